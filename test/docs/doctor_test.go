package docs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// doctor runs "nexus-broker doctor" in dir and returns what it prints and its exit code.
func doctor(t *testing.T, dir string, e env, args ...string) (output string, code int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(built(t), "nexus-broker"), append([]string{"doctor"}, args...)...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH")}
	for name, value := range e {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	require.NoError(t, err)
	return string(out), 0
}

// The policies of docs/vault.md are those that doctor prints.
func TestPrintedPoliciesAreTheDocumented(t *testing.T) {
	t.Parallel()
	needsPrograms(t)
	for name, e := range map[string]env{
		"rw-v2": {"VAULT_KV_VERSION": "2"},
		"ro-v2": {"VAULT_KV_VERSION": "2", "SECRET_READ_ONLY": "true"},
		"rw-v1": {"VAULT_KV_VERSION": "1", "VAULT_MOUNT": "kv1"},
		"ro-v1": {"VAULT_KV_VERSION": "1", "VAULT_MOUNT": "kv1", "SECRET_READ_ONLY": "true"},
	} {
		e["SECRET_BACKEND"], e["VAULT_ADDR"], e["VAULT_TOKEN"] = "hashicorp-vault", "http://127.0.0.1:9", "none"
		printed, code := doctor(t, t.TempDir(), e, "--print-policy")
		require.Zero(t, code)
		require.Equal(t, policy(t, name), printed, name)
	}
}

// What docs/vault.md shows of doctor's output is what it prints, and its table has
// every check of the backend.
func TestDoctorPrintsWhatIsDocumented(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.Policy("broker", strings.Replace(policy(t, "rw-v2"), `, "update"`, "", 1))
	e := env{"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": v.Addr, "VAULT_TOKEN": v.Token([]string{"broker"}, map[string]any{"period": "1h"})}
	b := start(t, e)
	b.stop() // it has made the database
	printed, code := doctor(t, b.Dir, e, "--dev")
	require.Equal(t, 1, code)
	blocks := scenario(t, "doctor-lines")
	require.Len(t, blocks, 1)
	pattern := strings.ReplaceAll(regexp.QuoteMeta(blocks[0].text), "…", ".*")
	require.Regexp(t, "^"+pattern+"$", printed)

	documented := map[string]bool{}
	for cell := range table(t, "docs/vault.md", "| check of the backend |") {
		for name := range strings.SplitSeq(cell, ", ") {
			documented[strings.Trim(name, "`")] = true
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^[a-z]+ +backend +([a-z]+) `).FindAllStringSubmatch(printed, -1) {
		require.Contains(t, documented, m[1])
	}
	for name := range documented {
		require.Contains(t, sources(t), `"`+name+`"`)
	}
}

// The command that writes the printed policy works as it stands there.
func TestPrintedPolicyIsApplied(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	s := newShell(t, map[string]string{})
	s.send("export VAULT_ADDR=" + v.Addr + " VAULT_TOKEN=" + v.RootToken)
	s.run(scenario(t, "print-policy"))
	hcl := v.Read("sys/policies/acl/payments")["data"].(map[string]any)["policy"].(string)
	require.Contains(t, hcl, `path "secret/data/teams/payments/*" {`)
}

package docs_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// said collects what brokers have logged, printed and answered.
type said struct{ texts []string }

// log adds the texts of a log in JSON, and lines that are not JSON as they are.
func (s *said) log(printed string) {
	for line := range strings.Lines(printed) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) != nil {
			s.texts = append(s.texts, strings.TrimSpace(line))
			continue
		}
		for _, f := range []string{"msg", "error", "err"} {
			if text, ok := fields[f].(string); ok {
				s.texts = append(s.texts, text)
			}
		}
	}
}

func (s *said) answer(a answer) { s.texts = append(s.texts, a.Message) }

// has reports whether a message, in which "…" stands for anything, was said.
func (s *said) has(message string) bool {
	quoted := strings.ReplaceAll(regexp.QuoteMeta(message), "…", ".*")
	return slices.ContainsFunc(s.texts, regexp.MustCompile(quoted).MatchString)
}

// Every message that the troubleshooting table quotes is one that the broker says.
func TestTroubleshootingQuotesTheBroker(t *testing.T) {
	t.Parallel()
	var s said
	startings(t, &s)
	flows(t, &s)
	for cell := range table(t, "docs/vault.md", "| message |") {
		require.True(t, s.has(strings.Trim(cell, "`")), "no broker has said %s in:\n%s", cell, strings.Join(slices.Compact(slices.Sorted(slices.Values(s.texts))), "\n"))
	}
}

// startings starts brokers that are configured wrongly, or meet a Vault that is set up
// wrongly.
func startings(t *testing.T, s *said) {
	t.Helper()
	v, secure := servers.Vault(t), servers.Vault(t, servers.VaultTLS())
	down := servers.NewFaultProxy(t, v.Addr)
	down.Down()
	v.Policy("broker", policy(t, "rw-v2"))
	v.Policy("reader", policy(t, "ro-v2"))
	valid := v.Token([]string{"broker"}, nil)
	roleID, _ := v.AppRole("broker", []string{"broker"}, nil)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("hvs.unknown"), 0o600))
	vault := env{"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": v.Addr, "VAULT_TOKEN": valid}
	for _, c := range []struct {
		exitCode int // -1: it starts, and warns
		env      env
		ready    bool // though it warns
	}{
		{2, env{"VAULT_ADDR": ""}, false},
		{2, env{"VAULT_TOKEN": ""}, false},
		{2, env{"VAULT_AUTH_METHOD": "kubernetes", "VAULT_K8S_ROLE": "r", "VAULT_K8S_TOKEN_PATH": "/none"}, false},
		{-1, env{"SECRET_BACKEND": ""}, true},
		{1, env{"VAULT_TOKEN": "hvs.unknown"}, false},
		{1, env{"VAULT_TOKEN": "", "VAULT_TOKEN_FILE": file}, false},
		{1, env{"VAULT_TOKEN": "", "VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": roleID, "VAULT_SECRET_ID": "unknown"}, false},
		{1, env{"VAULT_TOKEN": "", "VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": roleID, "VAULT_SECRET_ID_WRAPPED": "hvs.unknown"}, false},
		{-1, env{"VAULT_ADDR": down.URL}, false},
		{1, env{"VAULT_ADDR": down.URL, "SECRET_STARTUP_CHECK": "strict"}, false},
		{-1, env{"VAULT_ADDR": down.URL, "SECRET_STARTUP_CHECK": "off"}, false},
		{-1, env{"VAULT_TOKEN": "hvs.unknown", "SECRET_STARTUP_CHECK": "off"}, false},
		{-1, env{"VAULT_ADDR": "https://vault.invalid:8200"}, false},
		{-1, env{"VAULT_ADDR": secure.Addr, "VAULT_TOKEN": secure.RootToken}, false},
		{-1, env{"VAULT_ADDR": secure.Addr, "VAULT_TOKEN": secure.RootToken, "VAULT_CACERT": secure.CAFile, "VAULT_TLS_SERVER_NAME": "vault.example.com"}, false},
		{-1, env{"VAULT_MOUNT": "nope"}, false},
		{-1, env{"VAULT_MOUNT": "secret/nexus"}, false},
		{-1, env{"VAULT_MOUNT": "sys", "VAULT_TOKEN": v.RootToken}, false},
		{-1, env{"VAULT_TOKEN": v.Token([]string{"reader"}, nil)}, false},
		{1, env{"VAULT_TOKEN": v.Token([]string{"reader"}, nil), "SECRET_STARTUP_CHECK": "strict"}, false},
		{-1, env{"VAULT_TOKEN": v.Token([]string{"broker"}, map[string]any{"no_default_policy": true})}, true},
	} {
		t.Run(fmt.Sprint(c.env), func(t *testing.T) {
			e := maps.Clone(vault)
			maps.Copy(e, c.env)
			if c.exitCode >= 0 {
				exitCode, printed := refused(t, e)
				require.Equal(t, c.exitCode, exitCode, printed)
				s.log(printed)
				return
			}
			b := start(t, e)
			if c.env["SECRET_STARTUP_CHECK"] != "off" && !c.ready {
				require.Eventually(t, func() bool { return b.call("GET", "/health/ready", nil).text("status") == "degraded" },
					30*time.Second, 100*time.Millisecond)
			}
			b.stop()
			s.log(b.log.String())
		})
	}
}

// flows lets every trouble befall a Vault, and asks for what cannot be had.
func flows(t *testing.T, s *said) {
	t.Helper()
	w := newTroubled(t)
	w.put("foreign/client_id", map[string]any{"value": client().ID})
	w.put("foreign/client_secret", map[string]any{"value": client().Secret})
	s.answer(w.register("foreign"))
	s.answer(w.b.call("PATCH", "/providers/"+w.adopt("foreign").text("id"), map[string]any{"client_secret": "x"}))
	w.put("acme/client_secret", map[string]any{"value": 12})
	s.answer(w.consent(w.provider))
	w.put("acme/client_secret", map[string]any{"value": client().Secret})
	for _, name := range w.names() {
		trouble := w.troubles[name]
		trouble.begin()
		s.answer(w.consent(w.provider))
		s.answer(w.refresh(w.connection))
		if !trouble.last {
			trouble.end()
		}
	}
	w.b.stop()
	s.log(w.b.log.String())

	// The same database, started without a Vault.
	database := filepath.Join(w.b.Dir, "nexus-data")
	e := env{"DATABASE_URL": "sqlite:" + filepath.Join(database, "nexus.db")}
	for variable, file := range map[string]string{"ENCRYPTION_KEY_FILE": "encryption.key", "STATE_KEY_FILE": "state.key"} {
		e[variable] = filepath.Join(database, file)
	}
	w.b = start(t, e)
	require.Equal(t, http.StatusOK, w.token().Status)
	require.Equal(t, "secret_backend_denied", w.refresh(w.connection).Code)
	w.b.stop()
	s.log(w.b.log.String())
}

// A new token in the file is used at the next call, a changed CA file too.
func TestFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t, servers.VaultTLS())
	v.Policy("broker", policy(t, "rw-v2"))
	folder := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
		return file
	}
	authority, err := os.ReadFile(v.CAFile)
	require.NoError(t, err)
	other, err := os.ReadFile(servers.Vault(t, servers.VaultTLS()).CAFile)
	require.NoError(t, err)
	first := v.Token([]string{"broker"}, nil)
	b := start(t, env{
		"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": v.Addr,
		"VAULT_TOKEN_FILE": write("token", first), "VAULT_CACERT": write("ca.pem", string(other)),
	})
	adopt := func() answer {
		return b.call("POST", "/providers", map[string]any{"profile": map[string]any{"name": "acme", "issuer": "https://op.test", "enable_discovery": true}})
	}
	require.Equal(t, "secret_backend_unavailable", adopt().Code)
	write("ca.pem", string(authority))
	require.Equal(t, "credentials_not_found", adopt().Code)
	v.Revoke(first)
	require.Equal(t, "secret_backend_denied", adopt().Code)
	write("token", v.Token([]string{"broker"}, nil)+"\n")
	require.Equal(t, "credentials_not_found", adopt().Code)
}

// What the table about AppRole says of secret ids, and that nobody notices a token
// that was revoked.
func TestAppRoleSettings(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.Policy("broker", policy(t, "rw-v2"))
	roleID, secretID := v.AppRole("broker", []string{"broker"}, map[string]any{"token_ttl": "2s", "token_max_ttl": "4s"})
	onceID, once := v.AppRole("once", []string{"broker"}, map[string]any{"token_ttl": "2s", "token_max_ttl": "4s", "secret_id_num_uses": 1})
	file := filepath.Join(t.TempDir(), "secret-id")
	require.NoError(t, os.WriteFile(file, []byte(once), 0o600))
	e := env{
		"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": v.Addr, "VAULT_AUTH_METHOD": "approle",
		"VAULT_ROLE_ID": roleID, "VAULT_SECRET_ID": secretID, "SECRET_CACHE_TTL": "0",
	}
	adopt := func(b *broker) string {
		return b.call("POST", "/providers", map[string]any{"profile": map[string]any{"name": "acme", "issuer": "https://op.test", "enable_discovery": true}}).Code
	}
	many := start(t, e)
	e["VAULT_ROLE_ID"], e["VAULT_SECRET_ID"], e["VAULT_SECRET_ID_FILE"] = onceID, "", file
	single := start(t, e)
	for range 4 { // renewals, and a login where that is possible
		require.Equal(t, "credentials_not_found", adopt(many))
		time.Sleep(1500 * time.Millisecond)
	}
	require.Equal(t, "secret_backend_denied", adopt(single), "the one use of the secret id is spent and the token's longest life is over")
	require.NoError(t, os.WriteFile(file, []byte(v.SecretID("once")+"\n"), 0o600))
	require.Eventually(t, func() bool { return adopt(single) == "credentials_not_found" }, 30*time.Second, 200*time.Millisecond)

	v.Write("sys/leases/revoke-prefix/auth/approle/login", nil) // every token of a login
	require.Equal(t, "credentials_not_found", adopt(many))
	require.Equal(t, "credentials_not_found", adopt(many))
}

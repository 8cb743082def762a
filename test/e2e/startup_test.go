package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// exits runs the broker, which is expected to end by itself, and returns its exit
// code and all that it has printed.
func exits(t *testing.T, e env, args ...string) (code int, output string) {
	t.Helper()
	if len(args) == 0 {
		args = []string{"serve"}
	}
	p := launch(t, e, args...)
	select {
	case <-p.done:
	case <-time.After(60 * time.Second):
		t.Fatalf("the broker does not end\n%s", p.log)
	}
	return p.cmd.ProcessState.ExitCode(), p.log.String()
}

// TestStartReportsEveryProblem: one start tells all that is wrong, each on a line of
// its own that names the variable, says what is wrong and what would be right, and
// shows no value.
func TestStartReportsEveryProblem(t *testing.T) {
	t.Parallel()
	const canaryValue = "CANARY-in-the-wrong-place"
	wrong := env{"SECRET_BACKEND": "hashicorp-vault"}
	for _, name := range []string{
		"DATABASE_URL", "BASE_URL", "REDIRECT_PATH", "LISTEN_ADDR", "PORT", "ENCRYPTION_KEY", "STATE_KEY",
		"REQUIRE_API_KEY", "API_KEY_RELOAD_INTERVAL", "REQUIRE_ALLOWLIST", "ALLOWED_CIDRS", "TRUSTED_PROXIES",
		"ENFORCE_RETURN_URL", "ENFORCE_DB_SSL", "DB_SSLMODE", "DB_SSLROOTCERT", "AUTO_MIGRATE", "RATE_LIMIT", "LOG_LEVEL", "LOG_FORMAT",
		"SHUTDOWN_GRACE", "AUDIT_RETENTION", "OUTBOUND_ALLOW_PRIVATE", "SECRET_CACHE_TTL", "SECRET_CACHE_MAX_STALE",
		"SECRET_READ_ONLY", "SECRET_TIMEOUT", "SECRET_STARTUP_CHECK", "REDACT_CLIENT_SECRETS",
		"VAULT_ADDR", "VAULT_KV_VERSION", "VAULT_CACERT", "VAULT_CACERT_BYTES", "VAULT_SKIP_VERIFY", "VAULT_AUTH_METHOD",
	} {
		wrong[name] = canaryValue
	}
	code, output := exits(t, wrong)
	require.Equal(t, 2, code, output)
	require.NotContains(t, output, canaryValue)
	for name := range wrong {
		if name == "SECRET_BACKEND" {
			continue
		}
		require.Regexp(t, regexp.MustCompile(`(?m)^ +`+name+` .+: .+$`), output)
	}
}

// TestStartRefuses: what must not be started with, one by one.
func TestStartRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	sound := base().with(env{"DATABASE_URL": servers.Postgres(t), "API_KEY": "CANARY-key"})
	vault := sound.with(env{"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": "http://127.0.0.1:9", "VAULT_TOKEN": "CANARY-token"})
	for _, c := range []struct {
		env   env
		names string // the variables, or what else the message has to say
	}{
		{sound.with(env{"DATABASE_URL": ""}), "DATABASE_URL"},
		{sound.with(env{"DATABASE_URL": "mysql://CANARY:CANARY@h/db"}), "DATABASE_URL"},
		{sound.with(env{"BASE_URL": ""}), "BASE_URL"},
		{sound.with(env{"ENCRYPTION_KEY": ""}), "ENCRYPTION_KEY"},
		{sound.with(env{"ENCRYPTION_KEY": encryptionKey + ",CANARY"}), "ENCRYPTION_KEY"},
		{sound.with(env{"ENCRYPTION_KEY": "", "ENCRYPTION_KEY_FILE": file}), "ENCRYPTION_KEY_FILE"},
		{sound.with(env{"STATE_KEY": ""}), "STATE_KEY"},
		{sound.with(env{"API_KEY": ""}), "REQUIRE_API_KEY"},
		{sound.with(env{"API_KEY": "", "API_KEY_FILE": file}), "API_KEY_FILE"},
		{sound.with(env{"REQUIRE_ALLOWLIST": "true", "ALLOWED_CIDRS": "10.0.0.0/8,CANARY"}), "ALLOWED_CIDRS"},
		{sound.with(env{"ENFORCE_DB_SSL": "true", "DB_SSLMODE": "disable"}), "DB_SSLMODE"},
		{sound.with(env{"TLS_CERT_FILE": file}), "TLS_KEY_FILE"},
		{sound.with(env{"SECRET_BACKEND": "CANARY"}), "internal hashicorp-vault aws-secrets-manager gcp-secret-manager SECRET_BACKEND"},
		{sound.with(env{"SECRET_BACKEND": "aws-secrets-manager"}), "AWS_REGION"},
		{sound.with(env{"SECRET_BACKEND": "gcp-secret-manager"}), "GCP_PROJECT_ID"},
		{sound.with(env{"SECRET_REF_ALLOWED_PREFIXES": "CANARY,/"}), "SECRET_REF_ALLOWED_PREFIXES"},
		{vault.with(env{"VAULT_ADDR": ""}), "VAULT_ADDR"},
		{vault.with(env{"VAULT_TOKEN": ""}), "VAULT_TOKEN"},
		{vault.with(env{"API_KEY": "", "REQUIRE_API_KEY": ""}), "REQUIRE_API_KEY"},
		{vault.with(env{"VAULT_AUTH_METHOD": "CANARY"}), "VAULT_AUTH_METHOD"},
		{vault.with(env{"VAULT_AUTH_METHOD": "kubernetes"}), "VAULT_K8S_ROLE"},
		{vault.with(env{"VAULT_AUTH_METHOD": "approle"}), "VAULT_ROLE_ID"},
		{vault.with(env{"VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": "CANARY", "VAULT_SECRET_ID_WRAPPED": "CANARY"}), "VAULT_SECRET_ID_WRAPPED"},
		{vault.with(env{"VAULT_SKIP_VERIFY": "CANARY"}), "VAULT_SKIP_VERIFY"},
	} {
		code, output := exits(t, c.env)
		require.Equal(t, 2, code, "%s\n%s", c.names, output)
		for _, name := range strings.Fields(c.names) {
			require.Contains(t, output, name)
		}
		require.NotContains(t, output, "CANARY")
	}
}

// TestStartWithKeysInFiles: NAME_FILE works, with and without a newline at the end.
func TestStartWithKeysInFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := base().with(env{"ENCRYPTION_KEY": "", "STATE_KEY": "", "API_KEY": ""})
	for name, content := range map[string]string{
		"ENCRYPTION_KEY": encryptionKey + "\n", "STATE_KEY": stateKey, "API_KEY": apiKey + "\n", "DATABASE_URL": servers.Postgres(t) + "\n",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		e[name+"_FILE"] = file
	}
	b := start(t, e)
	b.call("GET", "/providers", nil).want(200)
	c := newCanary()
	c.protect("encryption key", encryptionKey)
	c.protect("state key", stateKey)
	c.protect("API key", apiKey)
	c.searchProcess(t, b.cmd.Process.Pid)
	c.checkBroker(t, b)
}

// TestStartChecksTheVault: what a start makes of a Vault that is not as it should be.
func TestStartChecksTheVault(t *testing.T) {
	t.Parallel()
	v := newProxiedVault(t, nil)
	good := v.world.env["VAULT_TOKEN"]
	v.Policy("reader", `path "secret/data/nexus/providers/*" { capabilities = ["read"] }`)
	v.Policy("nothing", `path "none/*" { capabilities = ["read"] }`)
	reader, nothing := v.Token([]string{"reader"}, nil), v.Token([]string{"nothing"}, nil)
	revoked := v.Token([]string{"nexus"}, nil)
	v.Revoke(revoked)
	roleID, _ := v.AppRole("nexus", []string{"nexus"}, nil)
	role := env{"VAULT_TOKEN": "", "VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": roleID, "VAULT_SECRET_ID": "CANARY-secret-id"}
	const starts, warns, ends = "starts", "warns", "ends"
	c := newCanary()
	c.protect("secret id", "CANARY-secret-id")
	for _, token := range []string{good, reader, nothing, revoked} {
		c.protect("token", token)
	}
	for _, k := range []struct {
		name                        string
		env                         env
		down                        bool
		permissions, strict, status string
	}{
		{"all is well", nil, false, starts, starts, "ok"},
		{"a reader that has to read", env{"VAULT_TOKEN": reader, "SECRET_READ_ONLY": "true"}, false, starts, starts, "ok"},
		{"a reader that has to write", env{"VAULT_TOKEN": reader}, false, warns, ends, "denied"},
		{"no rights", env{"VAULT_TOKEN": nothing}, false, warns, ends, "denied"},
		{"nothing is mounted there", env{"VAULT_MOUNT": "elsewhere"}, false, warns, ends, "denied"},
		{"down", nil, true, warns, ends, "unavailable"},
		{"revoked token", env{"VAULT_TOKEN": revoked}, false, ends, ends, ""},
		{"unknown token", env{"VAULT_TOKEN": "CANARY-secret-id"}, false, ends, ends, ""},
		{"refused login", role, false, ends, ends, ""},
	} {
		for check, expected := range map[string]string{"permissions": k.permissions, "strict": k.strict} {
			t.Run(k.name+", "+check, func(t *testing.T) {
				if k.down {
					v.proxy.Down()
					defer v.proxy.Up()
				}
				e := v.world.env.with(k.env).with(env{"SECRET_STARTUP_CHECK": check, "DATABASE_URL": "sqlite:" + t.TempDir() + "/broker.db"})
				if expected == ends {
					code, output := exits(t, e)
					require.Equal(t, 1, code, output)
					require.Contains(t, output, "start-up check of hashicorp-vault")
					c.search("output", []byte(output))
					return
				}
				b := start(t, e)
				require.Equal(t, expected == warns, strings.Contains(b.log.String(), "start-up check of the secret backend failed"))
				b.waitReady(t, map[string]string{starts: "ready", warns: "degraded"}[expected], k.status)
				c.search("log", []byte(b.log.String()))
				c.search("ready", b.send("GET", "/health/ready", nil, nil).Body)
			})
		}
	}
	c.check(t)
	// "off" asks nothing, not even of a Vault that would refuse.
	v.proxy.Forget()
	b := start(t, v.world.env.with(env{"SECRET_STARTUP_CHECK": "off", "VAULT_TOKEN": revoked}))
	require.Empty(t, v.proxy.Requests())
	b.call("GET", "/providers", nil).want(200)
	// A check never writes.
	v.proxy.Forget()
	start(t, v.world.env)
	require.NotEmpty(t, v.proxy.Requests())
	for _, r := range v.proxy.Requests() {
		require.True(t, r.Method == "GET" || r.Path == "/v1/sys/capabilities-self", "%s %s", r.Method, r.Path)
	}
}

// TestStartWithoutVault: a broker that starts while its Vault is down serves what is
// stored, and works when the Vault comes.
func TestStartWithoutVault(t *testing.T) {
	t.Parallel()
	c := newCanary()
	client := confidentialClient(c)
	v := newProxiedVault(t, nil)
	op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
	b := start(t, v.world.env)
	provider := b.register(op, "flow", client).id
	connection := b.connect(provider)
	b.stop()
	require.NoError(t, b.err)
	v.proxy.Down()
	b = start(t, v.world.env)
	b.token(connection).want(200)
	b.refresh(connection).want(503, "secret_backend_unavailable")
	v.proxy.Up()
	b.refresh(connection).want(200)
	b.waitReady(t, "ready", "ok")

	// A row is served from the backend that it names, if that is configured, whichever is
	// selected.
	b.stop()
	b = start(t, v.world.env.with(env{"SECRET_BACKEND": "internal"}))
	require.Contains(t, b.log.String(), "VAULT_ADDR is set but SECRET_BACKEND=internal")
	b.token(connection).want(200)
	b.refresh(connection).want(200)
	c.checkBroker(t, b)

	// If it is not configured any more it is not looked for anywhere else.
	b.stop()
	b = start(t, v.world.env.with(env{"SECRET_BACKEND": "internal", "VAULT_ADDR": "", "VAULT_TOKEN": ""}))
	ready := b.send("GET", "/health/ready", nil, nil).want(200).object()
	require.Equal(t, "degraded", ready["status"], "also before any flow has met it")
	require.Equal(t, "hashicorp-vault", ready["components"].(map[string]any)["secret_backend"].(map[string]any)["backend"])
	require.Equal(t, "unknown", b.call("GET", "/providers/"+provider, nil).want(200).object()["credentials"].(map[string]any)["state"])
	b.token(connection).want(200)
	a := b.refresh(connection).want(502, "secret_backend_denied")
	require.Contains(t, a.text("message"), "hashicorp-vault")
	require.NotContains(t, a.text("message"), "VAULT_", "what the operator has set is for the log")
	require.Contains(t, b.log.String(), "VAULT_ADDR is not set")
	c.checkBroker(t, b)
}

// TestStartTrustsTheVault: a certificate is verified, in each of the ways to name a CA.
func TestStartTrustsTheVault(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t, servers.VaultTLS())
	v.Policy("nexus", readWrite)
	pem, err := os.ReadFile(v.CAFile)
	require.NoError(t, err)
	e := base().with(env{"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": v.Addr, "VAULT_TOKEN": v.Token([]string{"nexus"}, nil),
		"SECRET_STARTUP_CHECK": "strict"})
	for name, trust := range map[string]env{
		"file": {"VAULT_CACERT": v.CAFile}, "bytes": {"VAULT_CACERT_BYTES": string(pem)},
		"server name": {"VAULT_CACERT": v.CAFile, "VAULT_TLS_SERVER_NAME": "localhost"}, "unverified": {"VAULT_SKIP_VERIFY": "true"},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, e.with(trust).with(env{"DATABASE_URL": "sqlite:" + t.TempDir() + "/broker.db"}))
			require.Equal(t, name == "unverified", strings.Contains(b.log.String(), "VAULT_SKIP_VERIFY"))
		})
	}
	for name, trust := range map[string]env{
		"nobody": {}, "another name": {"VAULT_CACERT": v.CAFile, "VAULT_TLS_SERVER_NAME": "vault.example.com"},
	} {
		code, output := exits(t, e.with(trust).with(env{"DATABASE_URL": "sqlite:" + t.TempDir() + "/broker.db"}))
		require.Equal(t, 1, code, name)
		require.Contains(t, output, "certificate", name)
	}
}

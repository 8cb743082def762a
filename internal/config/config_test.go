package config_test

import (
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

const (
	key1 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	key2 = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
)

// valid is the least that a broker with an internal backend needs.
func valid() map[string]string {
	return map[string]string{
		"DATABASE_URL": "postgres://nexus:hunter2@db.example.com/nexus", "BASE_URL": "https://broker.example.com",
		"ENCRYPTION_KEY": key1, "STATE_KEY": key2,
	}
}

// withVault is the least that a broker with Vault needs.
func withVault() map[string]string {
	env := valid()
	env["SECRET_BACKEND"], env["VAULT_ADDR"], env["VAULT_TOKEN"], env["API_KEY"] = "hashicorp-vault", "https://vault.example.com:8200", "hvs.x", "k"
	return env
}

func environ(env map[string]string, changes ...string) []string {
	for _, c := range changes {
		name, value, _ := strings.Cut(c, "=")
		env[name] = value
	}
	var list []string
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

func load(t *testing.T, env map[string]string, changes ...string) config.Config {
	t.Helper()
	c, err := config.Load(environ(env, changes...), config.Options{})
	require.NoError(t, err)
	return c
}

func TestDefaults(t *testing.T) {
	c := load(t, valid())
	require.Equal(t, "https://broker.example.com", c.Server.BaseURL.String())
	require.Equal(t, "/auth/callback", c.Server.RedirectPath)
	require.Equal(t, ":8080", c.Server.ListenAddr)
	require.Equal(t, 20*time.Second, c.Server.ShutdownGrace)
	require.Equal(t, config.Postgres, c.Database.Driver)
	require.Equal(t, "postgres://nexus:hunter2@db.example.com/nexus?sslmode=require", c.Database.DSN.Reveal())
	require.True(t, c.Database.AutoMigrate)
	require.False(t, c.Access.RequireAPIKey)
	require.Equal(t, 30*time.Second, c.Access.ReloadInterval)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}, c.Access.AllowedCIDRs)
	require.Empty(t, c.Access.TrustedProxies)
	require.Zero(t, c.Access.RateLimit)
	require.True(t, c.Outbound.AllowPrivate)
	require.Zero(t, c.Audit.Retention)
	require.Equal(t, "json", c.Log.Format)
	s := c.Secrets
	require.Equal(t, config.BackendInternal, s.Backend)
	require.Equal(t, 5*time.Minute, s.CacheTTL)
	require.Equal(t, time.Hour, s.CacheMaxStale)
	require.Equal(t, 5*time.Second, s.Timeout)
	require.Equal(t, config.CheckPermissions, s.StartupCheck)
	require.Zero(t, s.Vault)
	require.Len(t, c.Warnings, 1)
	require.Contains(t, c.Warnings[0], "REQUIRE_API_KEY is false")
}

func TestVaultDefaults(t *testing.T) {
	c := load(t, withVault())
	v := c.Secrets.Vault
	require.Equal(t, "https://vault.example.com:8200", v.Addr)
	require.Equal(t, "secret", v.Mount)
	require.Equal(t, "nexus/providers", v.PathPrefix)
	require.Equal(t, 0, v.KVVersion)
	require.Equal(t, config.VaultToken, v.AuthMethod)
	require.Equal(t, "hvs.x", v.Token.Reveal())
	require.True(t, c.Access.RequireAPIKey, "required with an external backend")
	require.Empty(t, c.Warnings)

	v = load(t, withVault(), "VAULT_TOKEN=", "VAULT_AUTH_METHOD=approle", "VAULT_ROLE_ID=r", "VAULT_SECRET_ID=s", "VAULT_KV_VERSION=2").Secrets.Vault
	require.Equal(t, "approle", v.AuthMount)
	require.Equal(t, "r", v.RoleID)
	require.Equal(t, "s", v.SecretID.Reveal())
	require.Equal(t, 2, v.KVVersion)
}

// Every start-up error: what is set, and the problems, word for word.
func TestProblems(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	full := filepath.Join(dir, "full")
	require.NoError(t, os.WriteFile(full, []byte("x\n"), 0o600))
	roleOnly := filepath.Join(dir, "role")
	require.NoError(t, os.WriteFile(roleOnly, []byte("canary\nadmin:\n"), 0o600))
	odd := filepath.Join(dir, "odd") // PEM, of a type that must not be quoted
	require.NoError(t, os.WriteFile(odd, pem.EncodeToMemory(&pem.Block{Type: "canary", Bytes: []byte("canary")}), 0o600))
	cert, key := issue(t, dir, "current", time.Now().Add(time.Hour))
	_, otherKey := issue(t, dir, "other", time.Now().Add(time.Hour))
	expired, expiredKey := issue(t, dir, "expired", time.Now().Add(-time.Hour))
	short := "AAECAwQFBgc="

	internal := map[string]string{
		"DATABASE_URL=":                                     "DATABASE_URL is not set: give postgres://user:password@host:5432/name or sqlite:/path/to/file.db",
		"DATABASE_URL=mysql://u:canary@h/db":                "DATABASE_URL has an unknown scheme",
		"DATABASE_URL=canary":                               "DATABASE_URL is neither a URL nor key=value pairs",
		"DATABASE_URL=host=h password='canary":              "DATABASE_URL has a quoted value that does not end",
		"DATABASE_URL=postgres://u:cana#ry@h/db":            "DATABASE_URL contains a #, which must be written %23",
		"DATABASE_URL=postgres://u:canary@h:port/db":        "DATABASE_URL is not a connection string that the PostgreSQL driver understands",
		"DATABASE_URL=postgres://u:canary@h/db?sslmode=yes": "DATABASE_URL has an unknown sslmode",
		"DATABASE_URL=sqlite:":                              "DATABASE_URL names no file",
		"DATABASE_URL=sqlite::memory:":                      "DATABASE_URL names no file",
		"DATABASE_URL_FILE=" + full:                         "DATABASE_URL and DATABASE_URL_FILE are both set: set one of them",
		"DATABASE_URL=|DATABASE_URL_FILE=/nowhere/canary":   "DATABASE_URL_FILE names a file that cannot be read (no such file or directory): name a readable file that holds the value",
		"ENCRYPTION_KEY=|ENCRYPTION_KEY_FILE=" + empty:      "ENCRYPTION_KEY_FILE names a file that is empty",
		"BASE_URL=":                                                "BASE_URL is not set: give the public URL, such as https://broker.example.com",
		"BASE_URL=broker.example.com":                              "BASE_URL does not begin with http:// or https://",
		"BASE_URL=https://":                                        "BASE_URL names no host",
		"BASE_URL=https://u:canary@h":                              "BASE_URL contains a user name or password",
		"BASE_URL=https://h/?canary=1":                             "BASE_URL contains a query or a fragment",
		"BASE_URL=https://h:canary":                                "BASE_URL is not a URL",
		"REDIRECT_PATH=auth/canary":                                "REDIRECT_PATH is not a plain absolute path",
		"REDIRECT_PATH=/auth/{canary}":                             "REDIRECT_PATH is not a plain absolute path",
		"REDIRECT_PATH=/providers/canary":                          "REDIRECT_PATH is a path of the broker's own API: give another path, such as /auth/callback",
		"PORT=canary":                                              "PORT is not a port number: give a number from 0 to 65535",
		"PORT=65536":                                               "PORT is not a port number",
		"LISTEN_ADDR=canary":                                       "LISTEN_ADDR is not host:port",
		"LISTEN_ADDR=:canary":                                      "LISTEN_ADDR is not host:port",
		"ENCRYPTION_KEY=":                                          "ENCRYPTION_KEY is not set: give the base64 of 32 random bytes: openssl rand -base64 32",
		"ENCRYPTION_KEY=ca-nary":                                   "ENCRYPTION_KEY is not base64 (key 1 of the list): give the base64 of 32 random bytes",
		"ENCRYPTION_KEY=" + key1 + "," + short:                     "ENCRYPTION_KEY has 8 instead of 32 bytes (key 2 of the list)",
		"ENCRYPTION_KEY=,":                                         "ENCRYPTION_KEY holds no key",
		"STATE_KEY=":                                               "STATE_KEY is not set",
		"STATE_KEY=" + short:                                       "STATE_KEY has 8 instead of 32 bytes: give the base64 of 32 random bytes: openssl rand -base64 32",
		"REQUIRE_API_KEY=true":                                     "REQUIRE_API_KEY is true but there is no key: set API_KEY, API_KEYS, API_KEY_FILE or API_KEYS_FILE",
		"REQUIRE_API_KEY=canary":                                   "REQUIRE_API_KEY is neither true nor false: give true or false",
		"API_KEY= canary":                                          "API_KEY begins or ends with a space or a newline",
		"API_KEYS=,":                                               "API_KEYS holds no key",
		"API_KEY_FILE=/nowhere/canary":                             "API_KEY_FILE names a file that cannot be read (no such file or directory)",
		"API_KEYS_FILE=" + empty:                                   "API_KEYS_FILE names a file that holds no key: name a file with a key on each line, as key or role:key",
		"API_KEYS=a,agent: ":                                       "API_KEYS holds a role without a key after it: give keys separated by commas, each as key or role:key",
		"API_KEY_FILE=" + roleOnly:                                 "API_KEY_FILE names a file that holds a role without a key after it",
		"API_KEY_RELOAD_INTERVAL=0":                                "API_KEY_RELOAD_INTERVAL is too short",
		"API_KEY_RELOAD_INTERVAL=canary":                           "API_KEY_RELOAD_INTERVAL is not a duration: give a duration such as 500ms, 30s, 5m, 12h or 90d",
		"REQUIRE_ALLOWLIST=canary":                                 "REQUIRE_ALLOWLIST is neither true nor false",
		"ALLOWED_CIDRS=10.0.0.0/8,canary":                          "ALLOWED_CIDRS entry 2 is not a CIDR: give CIDRs separated by commas, such as 10.0.0.0/8,::1/128",
		"TRUSTED_PROXIES=10.0.0.1":                                 "TRUSTED_PROXIES entry 1 is not a CIDR",
		"ENFORCE_RETURN_URL=canary":                                "ENFORCE_RETURN_URL is neither true nor false",
		"ALLOWED_RETURN_DOMAINS=a.example,https://canary":          "ALLOWED_RETURN_DOMAINS entry 2 is not a host name",
		"ALLOWED_RETURN_DOMAINS=canary:8080":                       "ALLOWED_RETURN_DOMAINS entry 1 is not a host name",
		"ENFORCE_DB_SSL=canary":                                    "ENFORCE_DB_SSL is neither true nor false",
		"DB_SSLMODE=canary":                                        "DB_SSLMODE is none of the known values: give disable, allow, prefer, require, verify-ca or verify-full",
		"ENFORCE_DB_SSL=true|DB_SSLMODE=prefer":                    "DB_SSLMODE does not enforce TLS but ENFORCE_DB_SSL is true: give require, verify-ca or verify-full",
		"DB_SSLROOTCERT=/nowhere/canary":                           "DB_SSLROOTCERT names a file that cannot be read (no such file or directory): name a readable file",
		"AUTO_MIGRATE=canary":                                      "AUTO_MIGRATE is neither true nor false",
		"RATE_LIMIT=canary":                                        "RATE_LIMIT is not a number of requests per second",
		"RATE_LIMIT=-1":                                            "RATE_LIMIT is not a number",
		"RATE_LIMIT=NaN":                                           "RATE_LIMIT is not a number",
		"LOG_LEVEL=canary":                                         "LOG_LEVEL is not a level: give debug, info, warn or error",
		"LOG_FORMAT=canary":                                        "LOG_FORMAT is none of the known values: give json or text",
		"TLS_CERT_FILE=" + full:                                    "TLS_KEY_FILE is not set but TLS_CERT_FILE is: set both, or none of them",
		"TLS_KEY_FILE=" + full:                                     "TLS_CERT_FILE is not set but TLS_KEY_FILE is",
		"TLS_CERT_FILE=/nowhere/canary|TLS_KEY_FILE=" + full:       "TLS_CERT_FILE names a file that cannot be read",
		"TLS_KEY_FILE=" + dir + "|TLS_CERT_FILE=" + full:           "TLS_KEY_FILE names a folder",
		"TLS_CERT_FILE=" + full + "|TLS_KEY_FILE=" + key:           "TLS_CERT_FILE names a file without a certificate: name a PEM file",
		"TLS_CERT_FILE=" + odd + "|TLS_KEY_FILE=" + key:            "TLS_CERT_FILE names a file without a certificate: name a PEM file",
		"TLS_CERT_FILE=" + cert + "|TLS_KEY_FILE=" + full:          "TLS_KEY_FILE names a file without the key of the certificate in TLS_CERT_FILE: name a PEM file",
		"TLS_CERT_FILE=" + cert + "|TLS_KEY_FILE=" + odd:           "TLS_KEY_FILE names a file without the key of the certificate in TLS_CERT_FILE: name a PEM file",
		"TLS_CERT_FILE=" + cert + "|TLS_KEY_FILE=" + otherKey:      "TLS_KEY_FILE names a file without the key of the certificate in TLS_CERT_FILE: name a PEM file",
		"TLS_CERT_FILE=" + expired + "|TLS_KEY_FILE=" + expiredKey: "TLS_CERT_FILE names a file whose certificate has expired: renew the certificate",
		"SHUTDOWN_GRACE=-1s":                                       "SHUTDOWN_GRACE is too short: give a duration of at least 0s",
		"AUDIT_RETENTION=canary":                                   "AUDIT_RETENTION is not a duration",
		"AUDIT_RETENTION=99999999999999d":                          "AUDIT_RETENTION is not a duration",
		"OUTBOUND_ALLOW_PRIVATE=canary":                            "OUTBOUND_ALLOW_PRIVATE is neither true nor false",
		"OTEL_EXPORTER_OTLP_ENDPOINT=canary":                       "OTEL_EXPORTER_OTLP_ENDPOINT does not begin with http:// or https://",
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc":                         "OTEL_EXPORTER_OTLP_PROTOCOL asks for an export that is not supported by this build: give",
		"OTEL_TRACES_EXPORTER=zipkin":                              "OTEL_TRACES_EXPORTER asks for an export",
		"OTEL_METRICS_EXPORTER=otlp":                               "OTEL_METRICS_EXPORTER asks for an export",
		"SECRET_BACKEND=canary":                                    "SECRET_BACKEND is not a known backend: give internal, hashicorp-vault, aws-secrets-manager or gcp-secret-manager",
		"SECRET_BACKEND=aws-secrets-manager|API_KEY=k":             "AWS_REGION is not set: give the region of the secrets, such as eu-central-1",
		"SECRET_BACKEND=gcp-secret-manager|API_KEY=k":              "GCP_PROJECT_ID is not set: give the id of the project of the secrets, such as my-project-123",
		"SECRET_CACHE_TTL=-1s":                                     "SECRET_CACHE_TTL is too short",
		"SECRET_CACHE_MAX_STALE=canary":                            "SECRET_CACHE_MAX_STALE is not a duration",
		"SECRET_READ_ONLY=canary":                                  "SECRET_READ_ONLY is neither true nor false",
		"SECRET_REF_ALLOWED_PREFIXES=canary,/":                     "SECRET_REF_ALLOWED_PREFIXES entry 2 names no path: give paths separated by commas, such as team-a,shared/oauth",
		"SECRET_TIMEOUT=0":                                         "SECRET_TIMEOUT is too short: give a duration of at least 1ms",
		"SECRET_STARTUP_CHECK=canary":                              "SECRET_STARTUP_CHECK is none of the known values: give permissions, strict or off",
		"REDACT_CLIENT_SECRETS=canary":                             "REDACT_CLIENT_SECRETS is neither true nor false",
	}
	vault := map[string]string{
		"VAULT_ADDR=":                        "VAULT_ADDR is not set: give the server's URL, such as https://vault.example.com:8200",
		"VAULT_ADDR=canary:8200":             "VAULT_ADDR does not begin with http:// or https://",
		"VAULT_ADDR=unix:///run/canary.sock": "VAULT_ADDR does not begin with http:// or https://: give the server's URL, such as https://vault.example.com:8200",
		"VAULT_CLIENT_CERT=" + full + "|VAULT_CLIENT_KEY=" + key:      "VAULT_CLIENT_CERT names a file without a certificate: name a PEM file",
		"VAULT_CLIENT_CERT=" + cert + "|VAULT_CLIENT_KEY=" + full:     "VAULT_CLIENT_KEY names a file without the key of the certificate in VAULT_CLIENT_CERT",
		"VAULT_CLIENT_CERT=" + cert + "|VAULT_CLIENT_KEY=" + otherKey: "VAULT_CLIENT_KEY names a file without the key of the certificate in VAULT_CLIENT_CERT",
		"API_KEY=":                                    "REQUIRE_API_KEY is true by default with an external SECRET_BACKEND but there is no key: set API_KEY",
		"VAULT_MOUNT=/":                               "VAULT_MOUNT is empty",
		"VAULT_PATH_PREFIX=../canary":                 "VAULT_PATH_PREFIX has a segment that is empty, . or ..",
		"VAULT_PATH_PREFIX=canary?x":                  "VAULT_PATH_PREFIX has a character that a path must not have",
		"VAULT_KV_VERSION=3":                          "VAULT_KV_VERSION is not a version of the KV engine: give auto, 1 or 2",
		"VAULT_CACERT=" + full:                        "VAULT_CACERT names a file without a certificate",
		"VAULT_CACERT=/nowhere/canary":                "VAULT_CACERT names a file that cannot be read",
		"VAULT_CAPATH=" + full:                        "VAULT_CAPATH names no folder",
		"VAULT_CAPATH=/nowhere/canary":                "VAULT_CAPATH names a folder that cannot be read",
		"VAULT_CACERT_BYTES=canary":                   "VAULT_CACERT_BYTES holds no certificate",
		"VAULT_CLIENT_CERT=" + full:                   "VAULT_CLIENT_CERT and VAULT_CLIENT_KEY belong together and one is missing: set both",
		"VAULT_CLIENT_KEY=" + full:                    "VAULT_CLIENT_CERT and VAULT_CLIENT_KEY belong together",
		"VAULT_SKIP_VERIFY=canary":                    "VAULT_SKIP_VERIFY is neither true nor false",
		"VAULT_TOKEN=":                                "VAULT_TOKEN is not set but needed by VAULT_AUTH_METHOD=token: set VAULT_TOKEN or VAULT_TOKEN_FILE",
		"VAULT_TOKEN_FILE=" + full:                    "VAULT_TOKEN and VAULT_TOKEN_FILE are both set: set one of them",
		"VAULT_TOKEN=|VAULT_TOKEN_FILE=/nowhere":      "VAULT_TOKEN_FILE names a file that cannot be read",
		"VAULT_AUTH_METHOD=canary":                    "VAULT_AUTH_METHOD is not a known login: give token, approle, kubernetes, jwt, aws or cert",
		"VAULT_AUTH_METHOD=approle|VAULT_SECRET_ID=s": "VAULT_ROLE_ID is not set: give the role id of the AppRole",
		"VAULT_AUTH_METHOD=approle|VAULT_ROLE_ID=r": "VAULT_SECRET_ID is not set but needed by VAULT_AUTH_METHOD=approle: " +
			"set VAULT_SECRET_ID, VAULT_SECRET_ID_FILE, VAULT_SECRET_ID_WRAPPED or VAULT_SECRET_ID_WRAPPED_FILE",
		"VAULT_AUTH_METHOD=approle|VAULT_ROLE_ID=r|VAULT_SECRET_ID=canary|VAULT_SECRET_ID_WRAPPED=canary": "VAULT_SECRET_ID and VAULT_SECRET_ID_WRAPPED are both set: set one of them",
		"VAULT_AUTH_METHOD=approle|VAULT_ROLE_ID=r|VAULT_SECRET_ID=canary|VAULT_SECRET_ID_WRAPPED=canary|VAULT_SECRET_ID_FILE=" + full: "VAULT_SECRET_ID and VAULT_SECRET_ID_FILE, " +
			"VAULT_SECRET_ID_WRAPPED are all set: set one of them",
		"VAULT_AUTH_METHOD=approle|VAULT_ROLE_ID=r|VAULT_SECRET_ID_WRAPPED_FILE=" + empty:                           "VAULT_SECRET_ID_WRAPPED_FILE names a file that is empty",
		"VAULT_AUTH_METHOD=kubernetes|VAULT_K8S_TOKEN_PATH=" + full:                                                 "VAULT_K8S_ROLE is not set: give the name of a role of the Kubernetes login",
		"VAULT_AUTH_METHOD=kubernetes|VAULT_K8S_ROLE=r|VAULT_K8S_TOKEN_PATH=/nowhere":                               "VAULT_K8S_TOKEN_PATH names a file that cannot be read (no such file or directory): name a readable file",
		"VAULT_AUTH_METHOD=kubernetes|VAULT_K8S_ROLE=r|VAULT_K8S_TOKEN_PATH=" + empty:                               "VAULT_K8S_TOKEN_PATH names a file that is empty",
		"VAULT_AUTH_METHOD=jwt|VAULT_JWT_ROLE=r":                                                                    "VAULT_JWT_PATH is not set: name a file that holds the JWT",
		"VAULT_AUTH_METHOD=jwt|VAULT_JWT_PATH=/nowhere":                                                             "VAULT_JWT_PATH names a file that cannot be read (no such file or directory): name a file that holds the JWT",
		"VAULT_AUTH_METHOD=cert|VAULT_CERT_ROLE=r":                                                                  "VAULT_CLIENT_CERT is not set but needed by VAULT_AUTH_METHOD=cert: name the PEM files of a client certificate and its key",
		"VAULT_AUTH_METHOD=cert|VAULT_CLIENT_CERT=" + cert:                                                          "VAULT_CLIENT_CERT and VAULT_CLIENT_KEY belong together and one is missing: set both",
		"VAULT_AUTH_METHOD=cert|VAULT_ADDR=http://localhost|VAULT_CLIENT_CERT=" + cert + "|VAULT_CLIENT_KEY=" + key: "VAULT_ADDR is not https but VAULT_AUTH_METHOD=cert: a client certificate needs an https:// address",
		"VAULT_AUTH_METHOD=aws|VAULT_AUTH_MOUNT=/":                                                                  "VAULT_AUTH_MOUNT is empty",
		"VAULT_CACERT_BYTES=canary|VAULT_CAPATH=" + dir:                                                             "VAULT_CAPATH is not the only one of VAULT_CACERT, VAULT_CAPATH and VAULT_CACERT_BYTES that is set",
	}
	checkProblems(t, valid, internal)
	checkProblems(t, withVault, vault)
}

// checkProblems loads env with changes, separated by "|", and expects one problem.
func checkProblems(t *testing.T, env func() map[string]string, cases map[string]string) {
	for changes, want := range cases {
		t.Run(changes, func(t *testing.T) {
			_, err := config.Load(environ(env(), strings.Split(changes, "|")...), config.Options{})
			var problems config.Problems
			require.ErrorAs(t, err, &problems)
			require.Contains(t, err.Error(), "\n  "+want)
			require.NotContains(t, err.Error(), "canary")
			for _, p := range problems {
				require.NotContains(t, p.String(), "\n", "one line each")
			}
			if !strings.Contains(changes, "BYTES") {
				require.Len(t, problems, 1, "nothing else is wrong: %v", err)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := config.Load([]string{"PORT=x", "LOG_LEVEL=y", "SECRET_BACKEND=hashicorp-vault"}, config.Options{})
	var problems config.Problems
	require.ErrorAs(t, err, &problems)
	var names []string
	for _, p := range problems {
		names = append(names, p.Variable)
	}
	require.Equal(t, []string{"DATABASE_URL", "BASE_URL", "PORT", "LOG_LEVEL", "ENCRYPTION_KEY", "STATE_KEY", "VAULT_ADDR", "REQUIRE_API_KEY", "VAULT_TOKEN"}, names)
	require.True(t, strings.HasPrefix(err.Error(), "the configuration has 9 problems:\n"))
	require.Equal(t, "the configuration has 1 problem:\n  A b: c", config.Problems{{Variable: "A", Wrong: "b", Want: "c"}}.Error())
}

func TestWarnings(t *testing.T) {
	for changes, want := range map[string]string{
		"VAULT_ADDR=http://v":                                        "VAULT_ADDR is set but SECRET_BACKEND=internal",
		"VAULT_TOKEN=canary":                                         "VAULT_TOKEN is set but SECRET_BACKEND=internal",
		"VAULT_K8S_ROLE=r":                                           "VAULT_K8S_ROLE is set but SECRET_BACKEND=internal",
		"AWS_REGION=eu-west-1":                                       "AWS_REGION is set but SECRET_BACKEND=internal",
		"GCP_PROJECT_ID=p":                                           "GCP_PROJECT_ID is set but SECRET_BACKEND=internal",
		"SECRET_BACKEND=hashicorp-vault|VAULT_ROLE_ID=r":             "VAULT_ROLE_ID is set but VAULT_AUTH_METHOD=token",
		"SECRET_BACKEND=hashicorp-vault|VAULT_AUTH_MOUNT=m":          "VAULT_AUTH_MOUNT is set but VAULT_AUTH_METHOD=token",
		"SECRET_BACKEND=hashicorp-vault|AWS_REGION=r":                "AWS_REGION is set but SECRET_BACKEND=hashicorp-vault",
		"SECRET_BACKEND=hashicorp-vault|VAULT_SKIP_VERIFY=true":      "VAULT_SKIP_VERIFY is true",
		"SECRET_BACKEND=hashicorp-vault|VAULT_ADDR=http://v.example": "VAULT_ADDR is not https",
		"REQUIRE_API_KEY=false":                                      "REQUIRE_API_KEY is false",
		"API_KEY=canary":                                             "REQUIRE_API_KEY is false: API keys are configured",
		"BASE_URL=http://broker.example.com":                         "BASE_URL is not https",
		"DB_SSLMODE=disable":                                         "DB_SSLMODE is set but acts only with ENFORCE_DB_SSL=true",
		"DATABASE_URL=sqlite:x.db|ENFORCE_DB_SSL=true":               "ENFORCE_DB_SSL is set but DATABASE_URL names an SQLite file",
		"STATE_KEY=" + key1:                                          "STATE_KEY is also in ENCRYPTION_KEY",
		"SECRET_REF_ALLOWED_PREFIXES=team-a":                         "SECRET_REF_ALLOWED_PREFIXES is set but SECRET_BACKEND=internal",
		"SECRET_READ_ONLY=true":                                      "SECRET_READ_ONLY is true but SECRET_BACKEND=internal",
		"ENFORCE_RETURN_URL=true":                                    "ENFORCE_RETURN_URL is true and ALLOWED_RETURN_DOMAINS is empty",
		"VAULT_PATH_PREFX=canary":                                    "VAULT_PATH_PREFX is set and means nothing: is VAULT_PATH_PREFIX meant?",
		"ENCRYPTION_KEYS=canary":                                     "ENCRYPTION_KEYS is set and means nothing: is ENCRYPTION_KEY meant?",
	} {
		t.Run(changes, func(t *testing.T) {
			env := valid()
			if strings.HasPrefix(changes, "SECRET_BACKEND=hashicorp-vault") {
				env = withVault()
			}
			c := load(t, env, strings.Split(changes, "|")...)
			require.True(t, slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.HasPrefix(w, want) }), "%q", c.Warnings)
			require.NotContains(t, strings.Join(c.Warnings, "\n"), "canary")
		})
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	env := withVault()
	for _, name := range []string{"DATABASE_URL", "ENCRYPTION_KEY", "STATE_KEY", "VAULT_TOKEN", "API_KEY"} {
		delete(env, name)
	}
	c := load(t, env,
		"DATABASE_URL_FILE="+write("db", "postgres://u:p@h/db\n"), "ENCRYPTION_KEY_FILE="+write("enc", key1+","+key2+"\r\n"),
		"STATE_KEY_FILE="+write("state", key2), "VAULT_TOKEN_FILE="+write("token", "hvs.t\n"), "API_KEYS_FILE="+write("keys", "agent:a\n"))
	require.Equal(t, "postgres://u:p@h/db?sslmode=require", c.Database.DSN.Reveal())
	require.Equal(t, "keyring of 2 keys", c.Keys.Encryption.String())
	require.Len(t, c.Keys.State.Reveal(), 32)
	require.True(t, c.Secrets.Vault.Token.IsZero(), "the file is read again while running, and not here")
	require.Equal(t, filepath.Join(dir, "token"), c.Secrets.Vault.TokenFile)
	require.Equal(t, filepath.Join(dir, "keys"), c.Access.APIKeysFile)
	for _, s := range c.Settings {
		if s.Name == "ENCRYPTION_KEY" {
			require.Equal(t, config.Setting{Name: "ENCRYPTION_KEY", Value: "set", Source: config.FromFile}, s)
		}
	}
}

func TestValues(t *testing.T) {
	c := load(t, valid(), "BASE_URL=https://h/broker/", "PORT=9", "LISTEN_ADDR=[::1]:0", "AUDIT_RETENTION=90d", "SHUTDOWN_GRACE=5",
		"SECRET_CACHE_TTL=0", "RATE_LIMIT=2.5", "API_KEYS=agent:a, b", "ALLOWED_CIDRS=10.1.2.3/8", "ENFORCE_RETURN_URL=1",
		"ALLOWED_RETURN_DOMAINS=a.example, *.b.example", "OTEL_TRACES_EXPORTER=none", "LOG_LEVEL=DEBUG", "REDIS_URL=redis://x", "MIGRATIONS_DIR=/m")
	require.Equal(t, "https://h/broker", c.Server.BaseURL.String())
	require.Equal(t, "[::1]:0", c.Server.ListenAddr, "wins over PORT")
	require.Equal(t, "https://h/broker", c.Server.PublicURL(1234).String())
	require.Equal(t, 90*24*time.Hour, c.Audit.Retention)
	require.Equal(t, 5*time.Second, c.Server.ShutdownGrace)
	require.Zero(t, c.Secrets.CacheTTL)
	require.InDelta(t, 2.5, c.Access.RateLimit, 0)
	require.Equal(t, "agent:a", c.Access.APIKeys[0].Reveal())
	require.Equal(t, "b", c.Access.APIKeys[1].Reveal())
	require.Equal(t, "10.0.0.0/8", c.Access.AllowedCIDRs[0].String())
	require.Equal(t, []string{"a.example", "*.b.example"}, c.Access.AllowedReturnDomains)
	require.Equal(t, "DEBUG", c.Log.Level.String())

}

func TestTracing(t *testing.T) {
	for on, settings := range map[bool][][]string{
		true: {{"OTEL_EXPORTER_OTLP_ENDPOINT=http://x:4318"}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://x/v1/traces"}, {"OTEL_TRACES_EXPORTER=otlp"}},
		false: {{}, {"OTEL_EXPORTER_OTLP_ENDPOINT=http://x", "OTEL_TRACES_EXPORTER=none"},
			{"OTEL_EXPORTER_OTLP_ENDPOINT=http://x", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_SDK_DISABLED=true"}},
	} {
		for _, set := range settings {
			c, err := config.Load(environ(valid(), set...), config.Options{})
			require.NoError(t, err)
			require.Equal(t, on, c.Tracing.Enabled, "%v", set)
		}
	}
}

// A Config that is printed by accident shows no secret, whatever the verb.
func TestPrintsNoSecret(t *testing.T) {
	env := withVault()
	env["DATABASE_URL"], env["API_KEY"], env["API_KEYS"], env["VAULT_TOKEN"] = "postgres://u:canary@h/db", "canary", "agent:canary", "canary"
	c, err := config.Load(environ(env, "REDIS_URL=canary", "STATE_KEY=Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5eHg="), config.Options{})
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		require.NotContains(t, fmt.Sprintf(verb, c), "canary")
	}
	for _, s := range c.Settings {
		require.NotContains(t, s.Value, "canary")
	}
}

package hashicorpvault_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// place is where the diagnoses take place, with what remains to be said.
func place(v *servers.VaultServer, token string) hashicorpvault.Config {
	return hashicorpvault.Config{
		Address: v.Addr, PathPrefix: "nexus/providers", Login: hashicorpvault.TokenLogin{Token: secret.NewValue(token)},
	}
}

// diagnose returns the findings by check, "verdict: detail: advice".
func diagnose(t *testing.T, cfg hashicorpvault.Config, need secret.Access) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, f := range open(t, cfg, hashicorpvault.Options{}).Diagnose(t.Context(), need) {
		require.NotContains(t, found, f.Check)
		require.Equal(t, f.Verdict == secret.Ok, f.Advice == "", "%+v", f)
		found[f.Check] = fmt.Sprintf("%s: %s: %s", f.Verdict, f.Detail, f.Advice)
		if login, is := cfg.Login.(hashicorpvault.TokenLogin); is && login.Token.Reveal() != "root" { // which is the name of a policy too
			require.NotContains(t, found[f.Check], login.Token.Reveal())
		}
		require.NotContains(t, found[f.Check], "probe-") // its values
	}
	return found
}

// verdicts keeps the verdict of each finding.
func verdicts(found map[string]string) map[string]string {
	short := map[string]string{}
	for check, text := range found {
		short[check], _, _ = strings.Cut(text, ":")
	}
	return short
}

// left returns the names below the prefix.
func left(t *testing.T, v *servers.VaultServer, path string) any {
	t.Helper()
	_, answer := v.Do("LIST", path, nil)
	data, _ := answer["data"].(map[string]any)
	return data["keys"]
}

var rightsOf = map[string]struct {
	mount, below, list string
	full, read         string
}{
	"v2": {"secret", "secret/data/nexus/providers/*", "secret/metadata/nexus/providers", `
path "secret/data/nexus/providers/*"     { capabilities = ["create", "read", "update"] }
path "secret/metadata/nexus/providers/*" { capabilities = ["delete"] }`, readOnlyV2},
	"v1": {"kv1", "kv1/nexus/providers/*", "kv1/nexus/providers", readWriteV1, readOnlyV1},
}

func TestDiagnoseOfAHealthyVault(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	for version, c := range rightsOf {
		t.Run(version, func(t *testing.T) {
			v.Policy("broker", c.full)
			cfg := place(v, v.Token([]string{"broker"}, map[string]any{"period": "1h"}))
			cfg.Mount = c.mount
			found := diagnose(t, cfg, secret.ReadWrite)
			for check, want := range map[string]string{
				"connection": "^ok: version .+ at http://127.0.0.1:[0-9]+, cluster .+: $",
				"tls":        "^ok: none: the address is http on this machine: $",
				"clock":      "^ok: less than 30s apart: $",
				"login":      "^ok: by token, with the policies broker, default: $",
				"token":      "^ok: ends in [0-9]+ min; renewed before that: $",
				"engine":     "^ok: KV version " + version[1:] + " at " + c.mount + ": $",
				"create":     "^ok: allowed on " + regexp.QuoteMeta(c.below) + ": $",
				"read":       "^ok: allowed on " + regexp.QuoteMeta(c.below) + ": $",
				"update":     "^ok: allowed on " + regexp.QuoteMeta(c.below) + ": $",
				"delete":     "^ok: allowed on .*nexus/providers/\\*: $",
			} {
				require.Regexp(t, want, found[check], check)
			}
			require.Len(t, found, 10, "%v", found)
			require.Nil(t, left(t, v, c.list), "the probe is removed")
		})
	}
}

// Taking a right away is found out, by name and path, and the others are allowed.
func TestDiagnoseNamesTheRightThatIsMissing(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	for version, c := range rightsOf {
		for _, right := range []string{"create", "read", "update", "delete"} {
			for _, byDefault := range []bool{true, false} { // without it Vault does not tell what is allowed
				t.Run(fmt.Sprintf("%s without %s, default %v", version, right, byDefault), func(t *testing.T) {
					hcl := regexp.MustCompile(`(, )?"`+right+`"`).ReplaceAllString(c.full, "")
					require.NotEqual(t, c.full, hcl)
					hcl = strings.NewReplacer("[, ", "[", "[]", `["deny"]`).Replace(hcl)
					v.Policy("broker", hcl)
					cfg := place(v, v.Token([]string{"broker"}, map[string]any{"period": "1h", "no_default_policy": !byDefault}))
					cfg.Mount = c.mount
					found := diagnose(t, cfg, secret.ReadWrite)
					below := c.below
					if right == "delete" {
						below = strings.Replace(below, "/data/", "/metadata/", 1)
					}
					require.Equal(t, fmt.Sprintf("fail: no policy of the token allows to %s %s: allow %q on %s", right, below, right, below), found[right])
					for _, other := range []string{"create", "read", "update", "delete"} {
						if other == right || right == "create" && other == "update" && !byDefault { // nothing to update, and nobody to ask
							continue
						}
						require.Regexp(t, "^ok: ", found[other], other)
					}
					if right != "delete" || byDefault {
						require.Nil(t, left(t, v, c.list), "the probe is removed, or was not written")
					} else {
						require.Regexp(t, "^warn: the probe at .* may still be there: delete it$", found["probe"])
						v.Remove(c.list + "/nexus-broker-probe/" + regexp.MustCompile("doctor-[a-z0-9]+").FindString(found["probe"]))
					}
				})
			}
		}
	}
}

// What a deletion would leave is a warning.
func TestDiagnoseOfADeletionThatLeavesSomething(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.Policy("broker", `
path "secret/data/nexus/providers/*"    { capabilities = ["create", "read", "update"] }
path "secret/destroy/nexus/providers/*" { capabilities = ["update"] }`)
	found := diagnose(t, place(v, v.Token([]string{"broker"}, map[string]any{"period": "1h"})), secret.ReadWrite)
	require.Equal(t, `warn: values can be deleted, but something of them is left: no policy allows to delete secret/metadata/nexus/providers/*: `+
		`allow "delete" on secret/metadata/nexus/providers/* too`, found["delete"])
}

// Whether references may be read is told too, by the policy that Policy prints and without it.
func TestDiagnoseOfReferences(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	for version, c := range rightsOf {
		t.Run(version, func(t *testing.T) {
			cfg := place(v, "")
			cfg.Mount, cfg.KVVersion, cfg.ReferencePrefixes = c.mount, int(version[1]-'0'), []string{"team-a"}
			at := c.mount + "/team-a"
			if cfg.KVVersion == 2 {
				at = c.mount + "/data/team-a"
			}
			login := func(hcl string) {
				v.Policy("broker", hcl)
				cfg.Login = hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{"broker"}, map[string]any{"period": "1h"}))}
			}
			login(c.full)
			require.Equal(t, `warn: no policy of the token allows to read `+at+`/*, where SECRET_REF_ALLOWED_PREFIXES lets references lie: `+
				`allow "read" on `+at+`/*, unless a policy names each secret there that is referred to`, diagnose(t, cfg, secret.ReadWrite)["references"])

			login(c.full + fmt.Sprintf("\npath %q { capabilities = [\"read\"] }", at))
			require.Equal(t, "ok: may be read at "+at+", and not below: ", diagnose(t, cfg, secret.ReadWrite)["references"])

			for _, need := range []secret.Access{secret.ReadOnly, secret.ReadWrite} {
				printed, err := open(t, cfg, hashicorpvault.Options{}).Policy(t.Context(), need)
				require.NoError(t, err)
				login(printed)
				found := diagnose(t, cfg, need)
				require.Equal(t, "ok: may be read below "+at+": ", found["references"])
				require.NotContains(t, slices.Collect(maps.Values(verdicts(found))), "fail")
			}
		})
	}
}

// With ReadOnly nothing is written, also by a token that could, which is a warning.
func TestDiagnoseReadOnlyWritesNothing(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	for version, c := range rightsOf {
		for _, hcl := range []string{c.read, c.full, `path "none/*" { capabilities = ["read"] }`} {
			v.Policy("broker", hcl)
			proxy := servers.NewFaultProxy(t, v.Addr)
			cfg := place(v, v.Token([]string{"broker"}, map[string]any{"period": "1h"}))
			cfg.Address, cfg.Mount, cfg.KVVersion = proxy.URL, c.mount, int(version[1]-'0')
			found := diagnose(t, cfg, secret.ReadOnly)
			for _, r := range proxy.Requests() {
				require.True(t, r.Method == http.MethodGet || r.Path == "/v1/sys/capabilities-self", "%s %s", r.Method, r.Path)
			}
			require.NotContains(t, found, "create")
			switch hcl {
			case c.read:
				require.Regexp(t, "^ok: ", found["read"])
				require.NotContains(t, found, "least privilege")
			case c.full:
				require.Regexp(t, "^ok: ", found["read"])
				require.Regexp(t, "^warn: the token may also create, update, delete .*: give it the read-only policy$", found["least privilege"])
			default:
				require.Regexp(t, `^fail: no policy of the token allows to read .*: allow "read" on `, found["read"])
			}
		}
	}
}

func TestDiagnoseOfAVaultInTrouble(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	proxy := servers.NewFaultProxy(t, v.Addr)
	cfg := place(v, v.RootToken)
	cfg.Address = proxy.URL

	for answer, want := range map[string]string{
		`{"initialized":true,"sealed":false,"standby":true,"version":"1.13.2"}`:                                "ok: version 1.13.2 at .*, a standby, which hands requests on: ",
		`{"initialized":true,"sealed":false,"standby":true,"replication_dr_mode":"secondary","version":"1.9"}`: "fail: .* is a disaster recovery secondary: use the address of the primary",
		`{"initialized":false,"sealed":true,"standby":true,"version":"1.13.2"}`:                                "fail: .* is not initialised: initialise it: vault operator init",
		`<html>`: "fail: the answer, with status 429, is not Vault's: check the address and the proxies in front of it",
		`{}`:     "fail: the answer, with status 429, is not Vault's: check the address and the proxies in front of it",
	} {
		proxy.Heal()
		proxy.Inject(servers.Answer(429, "application/json", answer), servers.PathIs("/v1/sys/health"))
		found := diagnose(t, cfg, secret.ReadWrite)
		require.Regexp(t, "^"+want+"$", found["connection"])
		require.Equal(t, strings.HasPrefix(want, "ok"), found["login"] != "", "what is of no use is left out")
	}
	proxy.Heal()

	proxy.Down()
	require.Equal(t, map[string]string{
		"connection": "fail: the connection is refused: check the address, and that Vault runs",
	}, diagnose(t, cfg, secret.ReadWrite))
	proxy.Up()

	v.Seal()
	found := diagnose(t, cfg, secret.ReadWrite)
	require.Regexp(t, "^fail: .* is sealed: unseal it$", found["connection"])
	require.NotContains(t, found, "login")
	v.Unseal()

	proxy.Inject(proxy.Hang())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	stalled := open(t, cfg, hashicorpvault.Options{}).Diagnose(ctx, secret.ReadWrite)
	require.Equal(t, []secret.Finding{{Check: "connection", Verdict: secret.Fail,
		Detail: "the examination was ended before there was an answer", Advice: "run it again with more time"}}, stalled)
}

func TestDiagnoseOfLoginAndToken(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.Policy("broker", readWriteV2)
	role, secretID := v.AppRole("broker", []string{"broker"}, map[string]any{"token_ttl": "1h"})
	token := func(settings map[string]any) hashicorpvault.Login {
		return hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{"broker"}, settings))}
	}
	for name, c := range map[string]struct {
		login hashicorpvault.Login
		check string
		want  string
	}{
		"wrong token": {hashicorpvault.TokenLogin{Token: secret.NewValue("hvs.unknown")}, "login",
			"fail: the token is not valid: it has expired or was revoked: give the broker a new one"},
		"wrong secret id": {hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue("unknown")}, "login",
			"fail: AppRole login at auth/approle/login: check the role id, .*"},
		"AppRole": {hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(secretID)}, "token",
			"ok: ends in .* min; renewed, or replaced by another login, before that: "},
		"root":          {rootLogin(v), "token", "warn: it is a root token: it may do everything: give the broker a token of the least policy"},
		"not renewable": {token(map[string]any{"ttl": "1h", "renewable": false}), "token", "warn: ends in .* min and can't be renewed: use a periodic token, or a login"},
		"not periodic":  {token(map[string]any{"ttl": "1h"}), "token", "warn: ends in .* min and is renewed, but only up to its longest life: use a periodic token, or a login"},
		"about to end":  {token(map[string]any{"ttl": "55s"}), "token", "warn: ends in .* s: there is hardly time to try again: let tokens live for 20 minutes or more"},
		"few uses":      {token(map[string]any{"num_uses": 50}), "token", "warn: it can be used [0-9]+ times more, .*: use one without num_uses"},
		"no default policy": {token(map[string]any{"period": "1h", "no_default_policy": true}), "token",
			"warn: it may not look itself up: .*: let it have Vault's policy .*"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := place(v, "")
			cfg.Login = c.login
			found := diagnose(t, cfg, secret.ReadWrite)
			require.Regexp(t, "^"+c.want+"$", found[c.check])
			if !strings.HasPrefix(c.want, "fail") {
				require.Regexp(t, "^ok: by (token|approle)", found["login"])
				require.Regexp(t, "^ok: ", found["delete"], "it goes on")
			}
		})
	}
	v.Policy("looks", readWriteV2+`path "auth/token/lookup-self" { capabilities = ["read"] } path "sys/capabilities-self" { capabilities = ["update"] }`)
	cfg := place(v, v.Token([]string{"looks"}, map[string]any{"period": "1h", "no_default_policy": true}))
	require.Regexp(t, "^warn: ends in .* min, and no policy allows it to renew itself: .*renew-self$", diagnose(t, cfg, secret.ReadWrite)["token"])
}

func TestDiagnoseOfTheEngine(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	for want, change := range map[string]func(*hashicorpvault.Config){
		"ok: KV version 2 at secret, as configured: ":                                                       func(c *hashicorpvault.Config) { c.KVVersion = 2 },
		"fail: KV version 1 is mounted at kv1, and 2 configured: correct the KV version .VAULT_KV_VERSION.": func(c *hashicorpvault.Config) { c.KVVersion, c.Mount = 2, "kv1" },
		"fail: nothing is mounted at nope, or .*":                                                           func(c *hashicorpvault.Config) { c.Mount = "nope" },
		"fail: what is mounted at sys is no KV engine: correct the mount":                                   func(c *hashicorpvault.Config) { c.Mount = "sys" },
		"fail: secret/a is a path in the mount above it: put the rest .*":                                   func(c *hashicorpvault.Config) { c.Mount = "secret/a" },
	} {
		cfg := place(v, v.RootToken)
		change(&cfg)
		found := diagnose(t, cfg, secret.ReadWrite)
		require.Regexp(t, "^"+want+"$", found["engine"])
		require.Equal(t, strings.HasPrefix(want, "ok"), found["create"] != "")
	}
	// An open-source Vault takes no notice of namespaces.
	cfg := place(v, v.RootToken)
	cfg.Namespace, cfg.AuthNamespace = "platform/prod", "root"
	require.Equal(t, "warn: secrets in platform/prod, login in root; but this open-source Vault has none and answers from its root: leave the namespace out",
		diagnose(t, cfg, secret.ReadWrite)["namespace"])
}

func TestDiagnoseOfTLSAndClocks(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	var skew time.Duration
	target, err := url.Parse(v.Addr)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Request.URL.Path != "/v1/sys/health" {
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			return err
		}
		var health map[string]any
		if err := json.Unmarshal(body, &health); err != nil {
			return err
		}
		health["server_time_utc"] = time.Now().Add(skew).Unix()
		body, err = json.Marshal(health)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
		r.Header.Del("Content-Length")
		return err
	}
	secure := httptest.NewTLSServer(proxy) // with a certificate until 2084
	t.Cleanup(secure.Close)

	cfg := place(v, v.RootToken)
	cfg.Address, cfg.TLS.InsecureSkipVerify = secure.URL, true
	require.Regexp(t, "^warn: the certificate, signed by O=Acme Co, ends on 2084-01-29; any other would be accepted too .*: name the authority instead",
		diagnose(t, cfg, secret.ReadWrite)["tls"])
	cfg.TLS = hashicorpvault.TLS{CACertPEM: pemOf(secure.Certificate())}
	found := diagnose(t, cfg, secret.ReadWrite)
	require.Equal(t, "ok: the certificate, signed by O=Acme Co, ends on 2084-01-29: ", found["tls"])
	require.Regexp(t, "^ok: ", found["clock"])
	skew = 10 * time.Minute
	require.Regexp(t, "^warn: Vault's is (10|9) min ahead of this machine's: set both clocks by NTP$", diagnose(t, cfg, secret.ReadWrite)["clock"])
	skew = -10 * time.Minute
	require.Regexp(t, "^warn: Vault's is (10|9) min behind this machine's: set both clocks by NTP$", diagnose(t, cfg, secret.ReadWrite)["clock"])

	// Vault's own, which ends tomorrow; and one that is not trusted.
	vTLS := servers.Vault(t, servers.VaultTLS())
	cfg = place(vTLS, vTLS.RootToken)
	require.Regexp(t, `^fail: the server's certificate is not trusted \(x509: .*\): check the CA and the server name$`, diagnose(t, cfg, secret.ReadWrite)["connection"])
	cfg.TLS.CACertFile = vTLS.CAFile
	require.Regexp(t, "^warn: the certificate, signed by CN=nexus-broker test CA, ends on .*, in 2[34] h: renew it$", diagnose(t, cfg, secret.ReadWrite)["tls"])
}

// Whatever goes wrong after the probe was written, also the end of the context, the
// probe goes.
func TestDiagnoseRemovesItsProbe(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.Policy("broker", readWriteV2)
	token := v.Token([]string{"broker"}, map[string]any{"period": "1h"})
	isData := func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/secret/data/") }
	for name, at := range map[string]func(*http.Request) bool{
		"the answer to its creation is lost": servers.MethodIs(http.MethodPut),
		"it can't be read":                   servers.MethodIs(http.MethodGet),
	} {
		t.Run(name, func(t *testing.T) {
			proxy := servers.NewFaultProxy(t, v.Addr)
			proxy.Inject(servers.DropAnswer(), isData, at)
			cfg := place(v, token)
			cfg.Address = proxy.URL
			found := diagnose(t, cfg, secret.ReadWrite)
			require.Contains(t, verdicts(found), "create")
			require.NotContains(t, found, "delete", "what cannot be examined any more is left out")
			require.NotContains(t, found, "probe")
			require.Nil(t, left(t, v, "secret/metadata/nexus/providers"))
		})
	}
	t.Run("the context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		proxy := servers.NewFaultProxy(t, v.Addr)
		proxy.Inject(func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			pass(w, r)
			cancel()
		}, isData, servers.MethodIs(http.MethodPut))
		cfg := place(v, token)
		cfg.Address = proxy.URL
		findings := open(t, cfg, hashicorpvault.Options{}).Diagnose(ctx, secret.ReadWrite)
		last := findings[len(findings)-1]
		require.Equal(t, secret.Fail, last.Verdict)
		require.Nil(t, left(t, v, "secret/metadata/nexus/providers"))
	})
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

package docs_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// policy returns a policy that docs/vault.md gives.
func policy(t *testing.T, name string) string {
	t.Helper()
	list := scenario(t, name)
	require.Len(t, list, 1)
	require.Equal(t, "policy", list[0].kind)
	return list[0].text
}

// without returns the policy less one capability.
func without(t *testing.T, hcl, capability string) string {
	t.Helper()
	less := regexp.MustCompile(`"`+capability+`"(, )?`).ReplaceAllString(hcl, "")
	require.NotEqual(t, hcl, less)
	less = strings.ReplaceAll(less, `", ]`, `"]`)
	return strings.ReplaceAll(less, `capabilities = []`, `capabilities = ["deny"]`)
}

// engine is a KV engine with a broker whose token has the policy "broker".
type engine struct {
	t     *testing.T
	v     *servers.VaultServer
	op    *oauthtest.Server
	b     *broker
	mount string
	data  string // what goes between the mount and the path in the API
}

func newEngine(t *testing.T, mount, hcl string, tokenSettings map[string]any, more env) *engine {
	t.Helper()
	e := &engine{t: t, v: servers.Vault(t), mount: mount}
	if e.data = "data/"; mount != "secret" {
		e.data = ""
		e.v.MountKV(mount, 1)
	}
	e.op = oauthtest.Start(t, oauthtest.Options{Clients: []oauthtest.Client{client()}})
	e.v.Policy("broker", hcl)
	settings := map[string]any{"period": "1h"}
	maps.Copy(settings, tokenSettings)
	variables := env{
		"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": e.v.Addr, "VAULT_MOUNT": mount,
		"VAULT_TOKEN": e.v.Token([]string{"broker"}, settings), "SECRET_CACHE_TTL": "0",
	}
	maps.Copy(variables, more)
	e.b = start(t, variables)
	return e
}

func (e *engine) path(key string) string { return e.mount + "/" + e.data + "nexus/providers/" + key }

// has reports whether Vault holds something at a key.
func (e *engine) has(key string) bool {
	e.t.Helper()
	return e.v.Read(e.path(key)) != nil
}

// put stores a value as a person does.
func (e *engine) put(key string, fields map[string]any) {
	e.t.Helper()
	if e.data != "" {
		fields = map[string]any{"data": fields}
	}
	e.v.Write(e.path(key), fields)
}

func (e *engine) profile(name string) map[string]any {
	return map[string]any{"name": name, "issuer": e.op.Issuer(), "enable_discovery": true, "auth_header": "client_secret_basic"}
}

func (e *engine) register(name string) answer {
	e.t.Helper()
	p := e.profile(name)
	p["client_id"], p["client_secret"] = client().ID, client().Secret
	return e.b.call("POST", "/providers", map[string]any{"profile": p})
}

func (e *engine) adopt(name string) answer {
	e.t.Helper()
	return e.b.call("POST", "/providers", map[string]any{"profile": e.profile(name)})
}

func (e *engine) consent(providerID string) answer {
	e.t.Helper()
	return e.b.call("POST", "/auth/consent-spec", map[string]any{
		"workspace_id": "team-1", "provider_id": providerID, "scopes": []string{"openid"}, "return_url": "http://app.test/done",
	})
}

// callback lets a user agree and returns the address that the provider sends the
// browser to. (Nothing else listens at the broker's BASE_URL than the broker.)
func (e *engine) callback(authURL string) string {
	e.t.Helper()
	resp := e.get(authURL)
	require.Equal(e.t, http.StatusFound, resp.StatusCode)
	u, err := url.Parse(resp.Header.Get("Location"))
	require.NoError(e.t, err)
	return e.b.URL + u.RequestURI()
}

// finish opens a callback and returns the query of the return_url.
func (e *engine) finish(callback string) url.Values {
	e.t.Helper()
	resp := e.get(callback)
	require.Equal(e.t, http.StatusFound, resp.StatusCode)
	u, err := url.Parse(resp.Header.Get("Location"))
	require.NoError(e.t, err)
	require.Equal(e.t, "app.test", u.Host)
	return u.Query()
}

func (e *engine) get(address string) *http.Response {
	e.t.Helper()
	req, err := http.NewRequest(http.MethodGet, address, nil)
	require.NoError(e.t, err)
	req.Header.Set("Accept", "text/html")
	c := &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	require.NoError(e.t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(e.t, err)
	require.NoError(e.t, resp.Body.Close())
	return resp
}

func (e *engine) connect(providerID string) (connectionID string) {
	e.t.Helper()
	q := e.finish(e.callback(e.consent(providerID).text("authUrl")))
	require.Equal(e.t, "success", q.Get("status"), "%v", q)
	return q.Get("connection_id")
}

func (e *engine) refresh(connectionID string) answer {
	e.t.Helper()
	return e.b.call("POST", "/connections/"+connectionID+"/refresh", nil)
}

// managed are the policies with which the broker writes, by mount.
var managed = map[string]string{"secret": "rw-v2", "kv1": "rw-v1"}

// A provider's whole life needs nothing but the policy.
func TestPoliciesSuffice(t *testing.T) {
	t.Parallel()
	for mount, name := range managed {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, mount, policy(t, name), nil, nil)
			id := e.register("acme").text("id")
			connection := e.connect(id)
			for _, a := range []answer{
				e.refresh(connection),
				e.b.call("PATCH", "/providers/"+id, map[string]any{"client_secret": "another"}),
				e.b.call("PATCH", "/providers/"+id, map[string]any{"name": "acme-2"}),
			} {
				require.Equal(t, http.StatusOK, a.Status, "%+v", a)
			}
			require.False(t, e.has("acme/client_secret"))
			require.True(t, e.has("acme-2/client_secret"))
			require.Equal(t, http.StatusOK, e.b.call("DELETE", "/providers/"+id, nil).Status)
			require.False(t, e.has("acme-2/client_id"))
			require.False(t, e.has("acme-2/client_secret"))
			require.Equal(t, "ready", e.b.call("GET", "/health/ready", nil).text("status"))
			e.b.stop()
			require.NotContains(t, e.b.log.String(), `"WARN"`)
		})
	}
}

// The read-only policies suffice for credentials that somebody else has put there.
func TestReadOnlyPoliciesSuffice(t *testing.T) {
	t.Parallel()
	for mount, name := range map[string]string{"secret": "ro-v2", "kv1": "ro-v1"} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, mount, policy(t, name), nil, env{"SECRET_READ_ONLY": "true"})
			e.put("acme/client_id", map[string]any{"value": client().ID})
			e.put("acme/client_secret", map[string]any{"client_secret": client().Secret})
			id := e.adopt("acme").text("id")
			require.Equal(t, http.StatusOK, e.refresh(e.connect(id)).Status)
			require.Equal(t, "credentials_external", e.register("other").Code)
			require.Equal(t, "credentials_external", e.b.call("PATCH", "/providers/"+id, map[string]any{"client_secret": "x"}).Code)
			require.Equal(t, "credentials_external", e.b.call("PATCH", "/providers/"+id, map[string]any{"name": "acme-2"}).Code)
			require.Equal(t, http.StatusOK, e.b.call("DELETE", "/providers/"+id, nil).Status)
			require.True(t, e.has("acme/client_id"))
			require.True(t, e.has("acme/client_secret"))
			e.b.stop()
			require.NotContains(t, e.b.log.String(), `"WARN"`)
		})
	}
}

// Taking a right away breaks what the table says, and nothing else.
func TestEveryRightIsNeeded(t *testing.T) {
	t.Parallel()
	rows := table(t, "docs/vault.md", "| without |")
	require.ElementsMatch(t, []string{"`create`", "`read`", "`update`", "`delete`"}, slices.Collect(maps.Keys(rows)))
	for mount, name := range managed {
		full := policy(t, name)
		e := newEngine(t, mount, full, nil, nil)
		for right, documented := range rows {
			t.Run(name+" without "+right, func(t *testing.T) {
				e.t, e.b.t = t, t
				e.v.Policy("broker", full)
				p := "p" + strings.Trim(right, "`")
				id := e.register(p).text("id")
				connection := e.connect(id)
				e.v.Policy("broker", without(t, full, strings.Trim(right, "`")))

				require.Equal(t, documented[0], outcome(e.register(p+"-new")), "register")
				require.Equal(t, documented[1], outcome(e.consent(id)), "consent")
				require.Equal(t, documented[1], outcome(e.refresh(connection)), "refresh")
				require.Equal(t, documented[2], outcome(e.b.call("PATCH", "/providers/"+id, map[string]any{"client_secret": "another"})), "PATCH")
				renamed := outcome(e.b.call("PATCH", "/providers/"+id, map[string]any{"name": p + "-renamed"}))
				if renamed == "ok" && e.has(p+"/client_secret") {
					renamed = "200, old values stay"
				}
				require.Equal(t, documented[3], renamed, "rename")
				deleted := outcome(e.b.call("DELETE", "/providers/"+id, nil))
				if deleted == "ok" && (e.has(p+"/client_id") || e.has(p+"-renamed/client_id")) {
					deleted = "200, values stay"
				}
				require.Equal(t, documented[4], deleted, "delete")
			})
		}
	}
}

func outcome(a answer) string {
	switch {
	case a.Status < 300:
		return "ok"
	case a.Code == "secret_backend_denied":
		return fmt.Sprint(a.Status)
	}
	return fmt.Sprintf("%d %s", a.Status, a.Code)
}

// Where the metadata may not be deleted the broker does what it may.
func TestWhatADeletionLeaves(t *testing.T) {
	t.Parallel()
	data := `path "secret/data/nexus/providers/*" { capabilities = ["create", "read", "update"] }`
	for right, check := range map[string]func(t *testing.T, version map[string]any){
		"`update` on `secret/destroy/nexus/providers/*`": func(t *testing.T, version map[string]any) {
			require.Equal(t, true, version["destroyed"])
		},
		"`update` on `secret/delete/nexus/providers/*`": func(t *testing.T, version map[string]any) {
			require.Equal(t, false, version["destroyed"])
			require.NotEmpty(t, version["deletion_time"])
		},
		"`delete` on `secret/data/nexus/providers/*`": func(t *testing.T, version map[string]any) {
			require.Equal(t, false, version["destroyed"])
			require.NotEmpty(t, version["deletion_time"])
		},
	} {
		t.Run(right, func(t *testing.T) {
			require.Contains(t, table(t, "docs/vault.md", "| instead of "), right)
			m := regexp.MustCompile("^`(.*)` on `(.*)`$").FindStringSubmatch(right)
			hcl := fmt.Sprintf("%s\npath %q { capabilities = [%q] }", data, m[2], m[1])
			if m[2] == "secret/data/nexus/providers/*" {
				hcl = strings.Replace(data, `"update"`, `"update", "delete"`, 1)
			}
			e := newEngine(t, "secret", hcl, nil, nil)
			id := e.register("acme").text("id")
			require.Equal(t, http.StatusOK, e.b.call("DELETE", "/providers/"+id, nil).Status)
			metadata := e.v.Read("secret/metadata/nexus/providers/acme/client_secret")["data"].(map[string]any)
			check(t, metadata["versions"].(map[string]any)["1"].(map[string]any))
			require.Equal(t, http.StatusCreated, e.register("acme").Status, "the name is free again")
			e.b.stop()
			require.Contains(t, e.b.log.String(), "a deletion has left something in Vault: allow delete on the path")
		})
	}
}

// A token without Vault's own policy "default" works, and with the third policy is
// renewed too.
func TestTokenWithoutTheDefaultPolicy(t *testing.T) {
	t.Parallel()
	const unknown = "the lifetime of the Vault token is unknown and it will not be renewed"
	for _, self := range []string{policy(t, "self"), ""} {
		e := newEngine(t, "secret", policy(t, "rw-v2")+self, map[string]any{"no_default_policy": true}, nil)
		id := e.register("acme").text("id")
		require.Equal(t, http.StatusOK, e.refresh(e.connect(id)).Status)
		knowsTTL := func() bool { return e.metrics()["nexus_secret_token_ttl_seconds"] }
		if self != "" {
			require.Eventually(t, knowsTTL, 30*time.Second, 50*time.Millisecond)
		}
		e.b.stop()
		require.Equal(t, self == "", strings.Contains(e.b.log.String(), unknown))
	}
}

// metrics returns the names of the metrics that the broker serves.
func (e *engine) metrics() map[string]bool {
	e.t.Helper()
	c := &http.Client{Timeout: 30 * time.Second}
	resp, err := c.Get(e.b.URL + "/metrics")
	require.NoError(e.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(e.t, err)
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+)[{ ]`).FindAllStringSubmatch(string(text), -1) {
		names[m[1]] = true
	}
	return names
}

package e2e_test

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// publicURL is the BASE_URL of the brokers here. Nothing listens there: the tests'
// browser goes to the broker instead, as it would through a proxy.
const publicURL = "http://127.0.0.1:9"

const returnURL = "http://app.test/done?keep=1"

func contract(t *testing.T) http.RoundTripper { return openapitest.Transport(t, http.DefaultTransport) }

// provider is a provider at the broker, with its client at the authorization server.
type provider struct {
	id, name             string
	clientID, clientAuth string
	secret               string
}

// register registers a client of the authorization server as a provider.
func (p *process) register(op *servers.OIDCServer, name string, c servers.OIDCClient) provider {
	p.t.Helper()
	profile := map[string]any{
		"name": name, "issuer": op.Issuer, "enable_discovery": true,
		"auth_header": c.Auth, "client_id": c.ID, "params": map[string]any{"prompt": "consent"},
	}
	if c.Secret != "" {
		profile["client_secret"] = c.Secret
	}
	id := p.call("POST", "/providers", map[string]any{"profile": profile}).want(201).text("id")
	return provider{id: id, name: name, clientID: c.ID, clientAuth: c.Auth, secret: c.Secret}
}

// begin asks for a consent and returns where the user goes.
func (p *process) begin(providerID string) (authURL, state string) {
	p.t.Helper()
	a := p.call("POST", "/auth/consent-spec", map[string]any{
		"workspace_id": "ws-1", "provider_id": providerID, "return_url": returnURL,
		"scopes": []string{"openid", "offline_access", "email"},
	}).want(200)
	return a.text("authUrl"), a.text("state")
}

// visit follows the redirects of an authorization as a browser does, up to the
// return_url, whose query it returns.
func (p *process) visit(authURL string) url.Values {
	p.t.Helper()
	return p.callback(p.authorize(authURL))
}

// authorize lets the user agree and returns the callback that the provider sends
// the browser to.
func (p *process) authorize(authURL string) *url.URL {
	p.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(p.t, err)
	var callback *url.URL
	browser := &http.Client{Jar: jar, Timeout: 30 * time.Second, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), publicURL+"/auth/callback") {
			callback = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := browser.Get(authURL)
	require.NoError(p.t, err)
	page, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	require.NoError(p.t, resp.Body.Close())
	require.NotNilf(p.t, callback, "the provider did not send the browser back: %s %s", resp.Status, page)
	return callback
}

// callback sends a browser to the broker's callback and returns the query of the
// return_url that it is sent to.
func (p *process) callback(u *url.URL) url.Values {
	p.t.Helper()
	a := p.send("GET", u.RequestURI(), nil, http.Header{"Accept": {"text/html"}}).want(302)
	to := mustURL(p.t, a.Header.Get("Location"))
	require.Equal(p.t, "app.test", to.Host)
	require.Equal(p.t, "1", to.Query().Get("keep"))
	return to.Query()
}

// connect takes a user through a whole consent.
func (p *process) connect(providerID string) (connectionID string) {
	p.t.Helper()
	authURL, _ := p.begin(providerID)
	q := p.visit(authURL)
	require.Equal(p.t, "success", q.Get("status"), "%v", q)
	require.NotEmpty(p.t, q.Get("connection_id"))
	return q.Get("connection_id")
}

func (p *process) token(connectionID string) answer {
	p.t.Helper()
	return p.call("GET", "/connections/"+connectionID+"/token", nil)
}

func (p *process) refresh(connectionID string) answer {
	p.t.Helper()
	return p.call("POST", "/connections/"+connectionID+"/refresh", nil)
}

// userInfo asks the provider whether an access token is good.
func userInfo(t *testing.T, op *servers.OIDCServer, accessToken string) int {
	t.Helper()
	req, err := http.NewRequest("GET", op.Issuer+"/me", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+accessToken)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// world is one combination of database and secret backend.
type world struct {
	name string
	env  env
	// path is where an external world keeps a key, or a provider, as its administrator
	// names it.
	path func(key string) string
	// set stores a credential as an administrator of the backend does; nil: the
	// backend has none, values change through the API.
	set func(t *testing.T, key, value string)
	// look returns the value that the backend holds, "" if none, past the broker.
	look func(t *testing.T, key string) string
	// gone checks that nothing of the key is left, versions and metadata included.
	gone func(t *testing.T, key string)
	// search adds what the broker's database holds to the canary.
	search func(t *testing.T, c *canary)
	// external: the values are outside the broker's database.
	external bool
}

func sqliteWorld(t *testing.T) world {
	dir := t.TempDir()
	file := dir + "/broker.db"
	return world{
		name: "internal on SQLite", env: base().with(env{"DATABASE_URL": "sqlite:" + file}),
		search: func(t *testing.T, c *canary) {
			c.searchDir(t, "database file", dir)
			c.searchDatabase(t, "sqlite", file)
		},
	}
}

func postgresWorld(t *testing.T, cluster *servers.Cluster) world {
	dsn := cluster.Database(t)
	return world{
		name: "internal on PostgreSQL", env: base().with(env{"DATABASE_URL": dsn}),
		search: func(t *testing.T, c *canary) {
			c.searchDatabase(t, "pgx", dsn)
			c.searchCluster(t, cluster, dsn)
		},
	}
}

// vaultWorld is w with its credentials in a Vault.
func vaultWorld(w world, name string, v *servers.VaultServer, mount string, version int, login env) world {
	prefix := "nexus/providers/" + strings.ToLower(rand.Text()) // the worlds share a Vault
	w.name, w.external = name, true
	w.path = func(key string) string { return mount + "/" + prefix + "/" + key }
	w.env = w.env.with(env{"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": v.Addr, "VAULT_MOUNT": mount, "VAULT_PATH_PREFIX": prefix}).with(login)
	path := func(kind, key string) string {
		if version == 1 {
			return mount + "/" + prefix + "/" + key
		}
		return mount + "/" + kind + "/" + prefix + "/" + key
	}
	w.set = func(t *testing.T, key, value string) {
		body := map[string]any{"value": value}
		if version == 2 {
			body = map[string]any{"data": body}
		}
		v.Write(path("data", key), body)
	}
	w.look = func(t *testing.T, key string) string {
		status, answer := v.Do("GET", path("data", key), nil)
		if status == http.StatusNotFound {
			return ""
		}
		require.Equal(t, http.StatusOK, status)
		data := answer["data"].(map[string]any)
		if version == 2 {
			data, _ = data["data"].(map[string]any)
		}
		value, _ := data["value"].(string)
		return value
	}
	w.gone = func(t *testing.T, key string) {
		status, _ := v.Do("GET", path("metadata", key), nil)
		require.Equal(t, http.StatusNotFound, status, "metadata of %s", key)
		status, _ = v.Do("GET", path("data", key), nil)
		require.Equal(t, http.StatusNotFound, status, "data of %s", key)
	}
	return w
}

// closedWorld is a world whose servers start when it is opened.
type closedWorld struct {
	name string
	open func(t *testing.T) world
}

// worlds are all combinations that the flow must work in.
func worlds(t *testing.T) []closedWorld {
	cluster := servers.PostgresCluster(t) // of its own: all that it writes is searched
	postgres := func(t *testing.T) world { return postgresWorld(t, cluster) }
	vault := servers.Vault(t)
	vault.MountKV("kv1", 1)
	token := func(policy string) env { return env{"VAULT_TOKEN": vault.Token([]string{policy}, nil)} }
	approle := func(policy string) env {
		roleID, secretID := vault.AppRole("nexus", []string{policy}, nil)
		return env{"VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": roleID, "VAULT_SECRET_ID": secretID}
	}
	// Each has the policy that doctor prints, and no other right.
	least := func(name, mount string, version int, database func(*testing.T) world, login func(policy string) env) closedWorld {
		return closedWorld{name, func(t *testing.T) world {
			fixed := env{"VAULT_KV_VERSION": strconv.Itoa(version)}
			w := vaultWorld(database(t), name, vault, mount, version, fixed)
			w = underPrintedPolicy(t, w, vault, strings.ReplaceAll(strings.ToLower(name), " ", "-"), login)
			w.env = w.env.with(env{"VAULT_KV_VERSION": ""}) // which is found out
			return w
		}}
	}
	return []closedWorld{
		{"internal on SQLite", sqliteWorld},
		{"internal on PostgreSQL", postgres},
		least("Vault KV v2 by token, PostgreSQL", "secret", 2, postgres, token),
		least("Vault KV v1 by token, SQLite", "kv1", 1, sqliteWorld, token),
		least("Vault KV v2 by AppRole, SQLite", "secret", 2, sqliteWorld, approle),
		{"AWS Secrets Manager, PostgreSQL", func(t *testing.T) world { return newAWS(t, postgres(t), "0").world }},
		{"AWS Secrets Manager, SQLite", func(t *testing.T) world { return newAWS(t, sqliteWorld(t), "7").world }},
		{"GCP Secret Manager, PostgreSQL", func(t *testing.T) world { return newGCP(t, postgres(t)).world }},
	}
}

// TestFlow is the broker's whole life in every world: a provider is registered, a
// user connects, an agent gets tokens, the secret is rotated, and everything goes.
func TestFlow(t *testing.T) {
	for i, closed := range worlds(t) {
		t.Run(closed.name, func(t *testing.T) {
			w := closed.open(t)
			c := newCanary()
			client := servers.OIDCClient{
				ID: "CANARY-client-id", Secret: `CANARY-client-secret /+:% "quoted" <&> \`,
				Auth:         []string{"client_secret_basic", "client_secret_post"}[i%2],
				RedirectURIs: []string{publicURL + "/auth/callback"}, ApplicationType: "native",
			}
			const rotated = `CANARY-rotated-secret =?#%20 2`
			op := servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}})
			c.protect("client secret", client.Secret)
			c.protect("rotated client secret", rotated)
			c.protect("API key", apiKey)
			if w.external {
				c.protect("client id", client.ID)
			}
			w.protectLogin(c)
			c.protect("encryption key", encryptionKey)
			c.protect("state key", stateKey)

			around := newSurroundings(t)
			b := startDetecting(t, w.env.with(around.env()))
			prov := b.register(op, "flow", client)
			if w.look != nil {
				require.Equal(t, client.ID, w.look(t, "flow/client_id"))
				require.Equal(t, client.Secret, w.look(t, "flow/client_secret"))
			}
			profile := b.call("GET", "/providers/"+prov.id, nil).want(200)
			if w.external {
				require.NotContains(t, profile.object(), "client_secret")
				require.NotContains(t, profile.object(), "client_id")
				stored := profile.object()["credentials"].(map[string]any)
				require.Equal(t, w.env["SECRET_BACKEND"], stored["backend"])
				require.Equal(t, w.path("flow"), stored["location"])
				require.Equal(t, "ready", stored["state"])
				require.Equal(t, true, stored["managed"])
			} else {
				require.Equal(t, client.Secret, profile.text("client_secret"))
				require.Equal(t, client.ID, profile.text("client_id"))
			}

			authURL, state := b.begin(prov.id)
			code := b.spend(c, authURL)
			c.protect("authorization code", code)
			connection := b.lastConnection(state)
			first := b.token(connection).want(200).object()
			b.protectTokens(c, first)
			require.Equal(t, map[string]any{"type": "oauth2"}, first["strategy"])
			require.Equal(t, false, first["expired"])
			require.Equal(t, http.StatusOK, userInfo(t, op, first["access_token"].(string)))

			second := b.refresh(connection).want(200).object()
			b.protectTokens(c, second)
			require.NotEqual(t, first["access_token"], second["access_token"])
			require.NotEqual(t, first["refresh_token"], second["refresh_token"], "the provider rotates")
			stored := b.token(connection).want(200).object()
			require.Equal(t, second["access_token"], stored["access_token"])
			require.Equal(t, second["refresh_token"], stored["refresh_token"])

			// The secret is rotated where it lies.
			op.SetSecret(t, client.ID, rotated)
			if w.set != nil {
				w.set(t, "flow/client_secret", rotated)
			} else {
				b.call("PATCH", "/providers/"+prov.id, map[string]any{"client_secret": rotated}).want(200)
			}
			b.protectTokens(c, b.refresh(connection).want(200).object())
			b.connectWitnessed(c)
			b.captureCredentials(c)
			b.provoke(c, prov.id, connection, code)
			for _, event := range []string{"provider.created", "credentials.written", "credentials.read",
				"oauth_flow_completed", "token_retrieved", "token_refreshed"} {
				require.NotEmpty(t, b.events(event), event)
			}
			if w.external {
				c.search("profile", b.call("GET", "/providers/"+prov.id, nil).Body)
			}
			c.searchProcess(t, b.cmd.Process.Pid)
			w.search(t, c)

			b.call("DELETE", "/providers/"+prov.id, nil).want(200)
			if w.gone != nil {
				w.gone(t, "flow/client_id")
				w.gone(t, "flow/client_secret")
				b.refresh(connection).want(404, "provider_not_found")
			} else { // as with the existing broker, connections outlive their provider
				b.protectTokens(c, b.refresh(connection).want(200).object())
			}
			b.token(connection).want(200)
			b.call("GET", "/providers/"+prov.id, nil).want(404, "provider_not_found")
			require.NotEmpty(t, b.events("provider.deleted"))
			c.searchAnswers(b)
			w.search(t, c)
			b.stop()
			require.NoError(t, b.err)
			c.search("log", []byte(b.log.String()))
			around.search(t, c, b)
			c.check(t)
		})
	}
}

// spend takes a consent to its end and returns the code that was spent.
func (p *process) spend(c *canary, authURL string) (code string) {
	p.t.Helper()
	to := p.authorize(authURL)
	q := p.callback(to)
	require.Equal(p.t, "success", q.Get("status"), "%v", q)
	require.Equal(p.t, "flow", q.Get("provider"))
	// Once more: the state has been used.
	again := p.callback(to)
	require.Equal(p.t, "error", again.Get("status"))
	require.Equal(p.t, "connection_not_found", again.Get("error"))
	return to.Query().Get("code")
}

// lastConnection returns the connection that a state is for.
func (p *process) lastConnection(state string) string {
	p.t.Helper()
	return verifyState(p.t, state)["nonce"]
}

// protectTokens protects what an answer of the broker hands out.
func (p *process) protectTokens(c *canary, answer map[string]any) {
	for _, name := range []string{"access_token", "refresh_token", "id_token"} {
		if v, ok := answer[name].(string); ok {
			c.protect(name+" "+v[max(0, len(v)-4):], v)
		}
	}
}

// events returns the data of the audit events of a type.
func (p *process) events(eventType string) []map[string]any {
	p.t.Helper()
	var list []struct {
		Data string `json:"event_data"`
	}
	a := p.call("GET", "/audit?limit=1000&event_type="+url.QueryEscape(eventType), nil).want(200)
	require.NoError(p.t, json.Unmarshal(a.Body, &list))
	var events []map[string]any
	for _, e := range list {
		var data map[string]any
		require.NoError(p.t, json.Unmarshal([]byte(e.Data), &data))
		events = append(events, data)
	}
	return events
}

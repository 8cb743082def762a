package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	nexusbroker "github.com/nexus-broker/nexus-broker"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

const applicationURL = "https://app.example.com/done?keep=1"

// deployment is the API of a real broker on SQLite, with a provider.
type deployment struct {
	*client
	vault    *memory.Faulty
	provider *oauthtest.Server
}

// deploy starts a broker whose credentials lie in the named backend.
func deploy(t *testing.T, backend string) *deployment {
	t.Helper()
	log := &logBuffer{}
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := httptest.NewUnstartedServer(nil)
	base, err := url.Parse("http://" + srv.Listener.Addr().String())
	require.NoError(t, err)

	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "broker.db"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	migrator, err := store.Migrator()
	require.NoError(t, err)
	_, err = migrator.Up(t.Context())
	require.NoError(t, err)
	ring, err := seal.NewKeyring([]byte(strings.Repeat("k", seal.KeyBytes)))
	require.NoError(t, err)
	d := &deployment{vault: memory.NewFaulty(memory.New()), provider: oauthtest.Start(t, oauthtest.Options{})}
	counts := metrics.New(nil)
	creds, err := credentials.New(credentials.Options{
		Backends: []credentials.Backend{
			{Name: credentials.Internal, Store: internalbackend.New(store, ring)},
			{Name: "hashicorp-vault", Store: d.vault, External: true},
		},
		WriteTo: backend, ReferencePrefixes: []string{"team-a"}, MaxStale: time.Hour, Audit: store, Metrics: counts, Logger: logger,
	})
	require.NoError(t, err)
	t.Cleanup(creds.Close)
	service := broker.New(broker.Config{
		BaseURL: base, RedirectPath: httpapi.DefaultRedirectPath, StateKey: []byte(strings.Repeat("s", 32)), SecretTimeout: time.Second,
	}, broker.Deps{
		Store: store, Credentials: creds, Keyring: ring, Metrics: counts, Logger: logger,
		OAuth: oauth.New(oauth.Options{HTTP: oauth.NewHTTPClient(oauth.HTTPOptions{AllowPrivate: true})}),
	})
	t.Cleanup(func() { require.NoError(t, service.Close(context.WithoutCancel(t.Context()))) })

	srv.Config.Handler = httpapi.New(httpapi.Options{
		Broker: service, Keys: newKeys(t, logger), OpenAPI: nexusbroker.OpenAPI, Logger: logger, Observe: counts.HTTPRequest,
	})
	srv.Start()
	t.Cleanup(srv.Close)
	d.client = &client{t: t, url: srv.URL, log: log, header: http.Header{"X-Api-Key": {adminKey}}, http: &http.Client{
		Transport:     openapitest.Transport(t, srv.Client().Transport),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return d
}

// decode reads a JSON answer.
func (g got) decode(t *testing.T) (body map[string]any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(g.body), &body), g.body)
	return body
}

func (d *deployment) profile(name string) string {
	return fmt.Sprintf(`{"name":%q,"auth_url":%q,"token_url":%q,"client_id":"test-client","client_secret":"test-secret","scopes":["a"],"params":{}}`,
		name, d.provider.URL(oauthtest.Authorization), d.provider.URL(oauthtest.Token))
}

func (d *deployment) register(profile string) (id string) {
	d.t.Helper()
	answer := d.do("POST", "/providers", `{"profile":`+profile+`}`)
	require.Equal(d.t, 201, answer.StatusCode, answer.body)
	return answer.decode(d.t)["id"].(string)
}

func (d *deployment) begin(providerID string) map[string]any {
	d.t.Helper()
	answer := d.as(agentKey).do("POST", "/auth/consent-spec",
		fmt.Sprintf(`{"workspace_id":"ws","provider_id":%q,"scopes":["a","b"],"return_url":%q}`, providerID, applicationURL))
	require.Equal(d.t, 200, answer.StatusCode, answer.body)
	return answer.decode(d.t)
}

// consent lets a user agree and returns the path of the callback.
func (d *deployment) consent(providerID string) (callback string) {
	d.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(d.t, err)
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), d.url) {
			callback = r.URL.RequestURI()
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := browser.Get(d.begin(providerID)["authUrl"].(string))
	require.NoError(d.t, err)
	require.NoError(d.t, resp.Body.Close())
	require.NotEmpty(d.t, callback)
	return callback
}

// connection returns the connection that a redirect to the application names.
func connection(t *testing.T, answer got) string {
	t.Helper()
	require.Equal(t, 302, answer.StatusCode, answer.body)
	to, err := url.Parse(answer.Header.Get("Location"))
	require.NoError(t, err)
	q := to.Query()
	require.Equal(t, "1", q.Get("keep"))
	require.Equal(t, "success", q.Get("status"), to)
	return q.Get("connection_id")
}

func TestWholeFlow(t *testing.T) {
	for _, backend := range []string{credentials.Internal, "hashicorp-vault"} {
		t.Run(backend, func(t *testing.T) {
			d := deploy(t, backend)
			id := d.register(d.profile("google"))
			d.do("POST", "/providers", `{"profile":`+d.profile("google")+`}`).requireError(t, 400, "invalid_provider_name")

			profile := d.get("/providers/" + id).decode(t)
			if backend == credentials.Internal {
				require.Equal(t, "test-secret", profile["client_secret"])
				require.NotContains(t, d.as(auditorKey).get("/providers/"+id).body, "test-")
			} else {
				require.NotContains(t, profile, "client_secret")
				require.Equal(t, "ready", profile["credentials"].(map[string]any)["state"])
			}

			path := "/connections/" + connection(t, d.as("").get(d.consent(id)))
			token := d.as(agentKey).get(path + "/token").decode(t)
			require.NotEmpty(t, token["access_token"])
			require.NotContains(t, token, "refresh_token")
			require.NotContains(t, token["credentials"], "refresh_token")
			require.Equal(t, map[string]any{"type": "oauth2"}, token["strategy"])
			require.Equal(t, false, token["expired"])
			fresh := d.do("POST", path+"/refresh", "").decode(t)
			require.NotEqual(t, token["access_token"], fresh["access_token"])
			require.NotEmpty(t, fresh["refresh_token"])
			require.Equal(t, fresh["refresh_token"], d.get(path + "/token").decode(t)["refresh_token"])

			d.provider.EndGrants()
			d.do("POST", path+"/refresh", "").requireError(t, 409, "attention_required")
			d.get(path+"/token").requireError(t, 409, "attention_required")
			d.do("POST", path+"/refresh", "").requireError(t, 404, "connection_not_found")

			require.Equal(t, 200, d.do("PATCH", "/providers/"+id, `{"description":"d","category":null}`).StatusCode)
			require.Equal(t, 200, d.do("PUT", "/providers/"+id, d.profile("google")).StatusCode)
			require.Contains(t, d.get("/providers/health").body, `"healthy"`)
			require.Contains(t, d.get("/providers/metadata").body, `"google"`)
			require.Equal(t, id, d.get("/providers/by-name/GOOGLE").decode(t)["id"])
			require.Equal(t, 200, d.do("DELETE", "/providers/"+id, "").StatusCode)
			require.Equal(t, 200, d.do("DELETE", "/providers/"+id, "").StatusCode)
			d.get("/providers/"+id).requireError(t, 404, "provider_not_found")
			d.do("PUT", "/providers/"+id, d.profile("google")).requireError(t, 404, "provider_not_found")
			require.Equal(t, "[]", strings.TrimSpace(d.get("/providers").body))

			events := d.as(auditorKey).with("X-Request-Id", "the-audit").get("/audit?limit=1000").body
			for _, want := range []string{"provider.created", "oauth_flow_completed", "token_retrieved", "token_refreshed", "token_refresh_fatal", "127.0.0.1"} {
				require.Contains(t, events, want)
			}
			require.Equal(t, 200, d.get("/health/ready").StatusCode)
			for _, credential := range []string{"test-secret", token["access_token"].(string), fresh["refresh_token"].(string)} {
				require.NotContains(t, d.log.String(), credential)
				require.NotContains(t, events, credential)
			}
		})
	}
}

func TestCallbacksThatFail(t *testing.T) {
	d := deploy(t, "hashicorp-vault")
	id := d.register(d.profile("google"))
	c, browser := d.as(""), d.as("").with("Accept", browserAccept)
	c.get("/auth/callback").requireError(t, 400, "missing_params")
	c.get("/auth/callback?code=c&state=forged").requireError(t, 400, "invalid_state")
	requirePage(t, browser.get("/auth/callback?code=c&state=forged"))

	used := d.consent(id)
	connection(t, c.get(used))
	c.get(used).requireError(t, 404, "connection_not_found")

	state := d.begin(id)["state"].(string)
	answer := browser.get("/auth/callback?error=access_denied&state=" + state)
	require.Equal(t, 302, answer.StatusCode)
	to, err := url.Parse(answer.Header.Get("Location"))
	require.NoError(t, err)
	require.Equal(t, "app.example.com", to.Host)
	require.Equal(t, "oauth_error", to.Query().Get("error"))
	require.Equal(t, "access_denied", to.Query().Get("provider_error"))
	c.get("/auth/callback?error=access_denied&state="+state).requireError(t, 400, "oauth_error")

	wrongCode := "/auth/callback?code=wrong&state=" + d.begin(id)["state"].(string)
	c.get(wrongCode).requireError(t, 500, "token_exchange_failed")

	pending := d.consent(id)
	d.vault.Fail(secret.ErrUnavailable)
	unavailable := c.get(pending)
	unavailable.requireError(t, 503, "secret_backend_unavailable")
	require.NotEmpty(t, unavailable.Header.Get("Retry-After"))
	d.vault.Fail(nil)
	connection(t, c.get(pending)) // the user may try again
}

func TestCaptureFlow(t *testing.T) {
	d := deploy(t, credentials.Internal)
	id := d.register(`{"name":"weather","auth_type":"api_key","params":{"credential_schema":{"type":"object","required":["api_key"],
		"properties":{"api_key":{"type":"string","format":"password","title":"API key","minLength":3},"port":{"type":"integer"}}}}}`)
	consent := d.begin(id)
	require.True(t, strings.HasPrefix(consent["authUrl"].(string), d.url+"/auth/capture-schema?state="))
	path := strings.TrimPrefix(consent["authUrl"].(string), d.url)
	require.Contains(t, d.as("").get(path).body, `"provider_name":"weather"`)
	browser := d.as("").with("Accept", browserAccept)
	requirePage(t, browser.get(path))

	browser = browser.with("Content-Type", "application/x-www-form-urlencoded")
	form := url.Values{"state": {consent["state"].(string)}, "credentials.api_key": {"k"}, "credentials.port": {"80"}}
	short := browser.do("POST", "/auth/capture-credential", form.Encode())
	require.Equal(t, 400, short.StatusCode)
	requirePage(t, short)
	form.Set("credentials.api_key", "the key")
	connected := connection(t, browser.do("POST", "/auth/capture-credential", form.Encode()))
	require.Equal(t, 404, browser.do("POST", "/auth/capture-credential", form.Encode()).StatusCode, "a success uses the state up")
	require.JSONEq(t, `{"strategy":{"type":"header","config":{"header_name":"X-API-Key","credential_field":"api_key"}},
		"credentials":{"api_key":"the key","port":80}}`, d.as(agentKey).get("/connections/"+connected+"/token").body)
	d.do("POST", "/connections/"+connected+"/refresh", "").requireError(t, 400, "static_token")

	state := d.begin(id)["state"].(string)
	c := d.as("")
	c.do("POST", "/auth/capture-credential", fmt.Sprintf(`{"state":%q,"credentials":{}}`, state)).requireError(t, 400, "invalid_credentials")
	c.do("POST", "/auth/capture-credential", fmt.Sprintf(`{"state":%q,"credentials":{"port":1}}`, state)).requireError(t, 400, "invalid_credentials")
	connection(t, c.do("POST", "/auth/capture-credential", fmt.Sprintf(`{"state":%q,"credentials":{"api_key":"by a program"}}`, state)))
	c.do("POST", "/auth/capture-credential", `{"state":"forged","credentials":{"api_key":"k"}}`).requireError(t, 400, "invalid_state")

	plain := d.register(`{"name":"plain","auth_type":"basic_auth"}`)
	c.get("/auth/capture-schema?state="+d.begin(plain)["state"].(string)).requireError(t, 404, "schema_not_found")
}

func TestRefusalsOfTheDomain(t *testing.T) {
	d := deploy(t, "hashicorp-vault")
	for profile, want := range map[string]string{
		`{"name":"Bad Name"}`: "invalid_provider_name",
		`{"name":"a","client_id":"i","client_secret":"s","token_url":"https://t.example.com"}`:                    "missing_auth_url",
		`{"name":"a","client_id":"i","client_secret":"s","auth_url":"https://a.example.com"}`:                     "missing_token_url",
		`{"name":"a","client_secret":"s","auth_url":"https://a.example.com","token_url":"https://t.example.com"}`: "missing_client_id",
		`{"name":"a","client_id":"i","auth_url":"https://a.example.com","token_url":"https://t.example.com"}`:     "missing_client_secret",
		`{"name":"a","auth_type":"magic"}`: "provider_creation_failed",
		`{"name":"a","credentials_ref":{"client_id":"x","client_secret":"y"},"auth_url":"https://a.example.com","token_url":"https://t.example.com"}`: "credentials_ref_not_allowed",
	} {
		d.do("POST", "/providers", `{"profile":`+profile+`}`).requireError(t, 400, want)
	}
	external := `{"name":"a","auth_url":"https://a.example.com","token_url":"https://t.example.com"}`
	missing := d.do("POST", "/providers", `{"profile":`+external+`}`)
	missing.requireError(t, 409, "credentials_not_found")
	require.Len(t, missing.decode(t)["details"].(map[string]any)["paths"], 2)
	require.NoError(t, d.vault.Set(t.Context(), "google/client_id", "i"))
	d.do("POST", "/providers", `{"profile":`+d.profile("google")+`}`).requireError(t, 409, "credentials_exist")
	d.vault.Fail(secret.ErrDenied)
	d.do("POST", "/providers", `{"profile":`+external+`}`).requireError(t, 502, "secret_backend_denied")

	unknown := uuid.NewString()
	d.get("/providers/"+unknown).requireError(t, 404, "provider_not_found")
	d.get("/providers/by-name/nobody").requireError(t, 404, "provider_not_found")
	d.do("DELETE", "/providers/by-name/nobody", "").requireError(t, 404, "provider_not_found")
	d.get("/connections/"+unknown+"/token").requireError(t, 404, "connection_not_found")
	d.do("POST", "/connections/"+unknown+"/refresh", "").requireError(t, 404, "connection_not_found")
	d.do("POST", "/auth/consent-spec", `{}`).requireError(t, 400, "missing_fields")
	d.do("POST", "/auth/consent-spec", `{"workspace_id":"w","provider_id":"no uuid","return_url":"https://app.example.com"}`).requireError(t, 404, "provider_not_found")
}

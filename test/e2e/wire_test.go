package e2e_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// raw sends a request whose body is given byte for byte.
func (p *process) raw(method, path, body string, header http.Header) answer {
	p.t.Helper()
	req := p.request(method, path, nil, header)
	if body != "" {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	client := &http.Client{Timeout: time.Minute, Transport: contract(p.t), CheckRedirect: noRedirect}
	resp, err := client.Do(req)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	return answer{t: p.t, Status: resp.StatusCode, Header: resp.Header, Body: b}
}

// key is the header of an administrator.
func key(more ...string) http.Header {
	h := http.Header{"X-Api-Key": {apiKey}}
	for i := 0; i+1 < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

// wired is a broker on PostgreSQL with one of everything.
type wired struct {
	*process
	op                           *oauthtest.Server
	provider, static             string // ids
	active, pending, captured    string // ids of connections
	noRefresh, attention, failed string
	revoked                      string
}

func newWired(t *testing.T) wired {
	t.Helper()
	dsn := servers.Postgres(t)
	op := oauthtest.Start(t, oauthtest.Options{})
	w := wired{op: op, process: start(t, base().with(env{"DATABASE_URL": dsn}))}
	w.provider = w.registerAt(op, "flow")
	w.static = w.call("POST", "/providers", map[string]any{"profile": map[string]any{"name": "static", "auth_type": "api_key"}}).want(201).text("id")
	w.active = w.connect(w.provider)
	_, state := w.begin(w.provider)
	w.pending = verifyState(t, state)["nonce"]
	_, state = w.begin(w.static)
	w.raw("POST", "/auth/capture-credential", `{"state":"`+state+`","credentials":{"api_key":"k"}}`, nil).want(302)
	w.captured = verifyState(t, state)["nonce"]
	op.Next(oauthtest.Token, oauthtest.Without("refresh_token"))
	w.noRefresh = w.connect(w.provider)
	w.attention = w.connect(w.provider)
	op.Next(oauthtest.Token, oauthtest.Refuse(400, "invalid_grant"))
	w.refresh(w.attention).want(409, "attention_required")
	authURL, state := w.begin(w.provider)
	op.Next(oauthtest.Token, oauthtest.Refuse(400, "invalid_grant"))
	w.send("GET", w.authorize(authURL).RequestURI(), nil, nil).want(500, "token_exchange_failed")
	w.failed = verifyState(t, state)["nonce"]
	w.revoked = w.connect(w.provider)
	w.call("DELETE", "/connections/"+w.revoked, nil).want(200)
	return w
}

// TestWireErrors is every failure of the API but those of the secret backend, which
// the tests of the faults bring about.
func TestWireErrors(t *testing.T) {
	t.Parallel()
	w := newWired(t)
	_, state := w.begin(w.provider)
	_, staticState := w.begin(w.static)
	unknown := uuid.NewString()
	profile := func(members string) string { return `{"profile":{` + members + `}}` }
	const sound = `"name":"sound","client_id":"i","client_secret":"s","auth_url":"https://op.test/a","token_url":"https://op.test/t"`
	without := func(member string) string {
		var kept []string
		for _, m := range strings.Split(sound, ",") {
			if !strings.HasPrefix(m, `"`+member+`"`) {
				kept = append(kept, m)
			}
		}
		return profile(strings.Join(kept, ","))
	}
	reconsent := func(workspace, provider, connection string) string {
		return `{"workspace_id":"` + workspace + `","provider_id":"` + provider + `","return_url":"https://a.test","connection_id":"` + connection + `"}`
	}
	big := `{"workspace_id":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, k := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/nope", "", 404, "not_found"},
		{"GET", "/", "", 404, "not_found"},
		{"GET", "/providers/" + w.provider + "/nope", "", 404, "not_found"},
		{"GET", "/connections/" + w.active, "", 405, "method_not_allowed"},
		{"GET", "/connections/" + w.active + "/nope", "", 404, "not_found"},
		{"DELETE", "/providers", "", 405, "method_not_allowed"},
		{"POST", "/health", "", 405, "method_not_allowed"},
		{"GET", "/auth/consent-spec", "", 405, "method_not_allowed"},
		{"PUT", "/connections/" + w.active + "/token", "", 405, "method_not_allowed"},
		{"POST", "/auth/callback", "", 405, "method_not_allowed"},

		{"POST", "/providers", "{", 400, "invalid_json"},
		{"POST", "/providers", "[]", 400, "invalid_json"},
		{"POST", "/providers", "", 400, "invalid_json"},
		{"POST", "/providers", profile(sound) + "{}", 400, "invalid_json"},
		{"POST", "/providers", profile(`"name":7`), 400, "invalid_json"},
		{"POST", "/providers", "{}", 400, "missing_profile"},
		{"POST", "/providers", `{"profile":null}`, 400, "missing_profile"},
		{"POST", "/providers", without("name"), 400, "invalid_provider_name"},
		{"POST", "/providers", strings.Replace(profile(sound), `"sound"`, `"Upper Case"`, 1), 400, "invalid_provider_name"},
		{"POST", "/providers", strings.Replace(profile(sound), `"sound"`, `"flow"`, 1), 400, "invalid_provider_name"},
		{"POST", "/providers", without("client_id"), 400, "missing_client_id"},
		{"POST", "/providers", without("client_secret"), 400, "missing_client_secret"},
		{"POST", "/providers", without("auth_url"), 400, "missing_auth_url"},
		{"POST", "/providers", without("token_url"), 400, "missing_token_url"},
		{"POST", "/providers", profile(sound + `,"enable_discovery":true`), 400, "provider_creation_failed"},
		{"POST", "/providers", profile(sound + `,"auth_type":"magic"`), 400, "provider_creation_failed"},
		{"POST", "/providers", profile(sound + `,"params":[]`), 400, "provider_creation_failed"},
		{"POST", "/providers", profile(sound + `,"credentials_ref":{"client_id":"a#b"}`), 400, "credentials_ref_not_allowed"},
		{"POST", "/providers", big, 413, "body_too_large"},
		{"GET", "/providers/nope", "", 400, "invalid_provider_id"},
		{"GET", "/providers/" + unknown, "", 404, "provider_not_found"},
		{"GET", "/providers/by-name/nope", "", 404, "provider_not_found"},
		{"DELETE", "/providers/by-name/nope", "", 404, "provider_not_found"},
		{"PUT", "/providers/nope", "{}", 400, "invalid_provider_id"},
		{"PUT", "/providers/" + unknown, "{" + sound + "}", 404, "provider_not_found"},
		{"PUT", "/providers/" + w.provider, `{"name":"flow"}`, 400, "missing_auth_url"},
		{"PATCH", "/providers/" + unknown, `{"description":"x"}`, 404, "provider_not_found"},
		{"PATCH", "/providers/" + w.provider, `{"auth_type":"magic"}`, 400, "provider_creation_failed"},
		{"PATCH", "/providers/" + w.provider, `{"name":"static"}`, 400, "invalid_provider_name"},
		{"PATCH", "/providers/" + w.provider, `{"name":null}`, 400, "invalid_provider_name"},
		{"PATCH", "/providers/" + w.provider, `nope`, 400, "invalid_json"},
		{"DELETE", "/providers/nope", "", 400, "invalid_provider_id"},

		{"POST", "/auth/consent-spec", "{", 400, "invalid_json"},
		{"POST", "/auth/consent-spec", "{}", 400, "missing_fields"},
		{"POST", "/auth/consent-spec", `{"workspace_id":"w","provider_id":"` + w.provider + `"}`, 400, "missing_fields"},
		{"POST", "/auth/consent-spec", `{"workspace_id":"w","provider_id":"nope","return_url":"https://a.test"}`, 404, "provider_not_found"},
		{"POST", "/auth/consent-spec", `{"workspace_id":"w","provider_id":"` + unknown + `","return_url":"https://a.test"}`, 404, "provider_not_found"},
		{"POST", "/auth/consent-spec", big, 413, "body_too_large"},

		{"GET", "/auth/callback", "", 400, "missing_params"},
		{"GET", "/auth/callback?code=c", "", 400, "missing_params"},
		{"GET", "/auth/callback?state=" + state, "", 400, "missing_params"},
		{"GET", "/auth/callback?code=c&state=nope", "", 400, "invalid_state"},
		{"GET", "/auth/callback?error=access_denied&state=" + state, "", 400, "oauth_error"},
		{"GET", "/auth/capture-schema", "", 400, "invalid_state"},
		{"GET", "/auth/capture-schema?state=nope", "", 400, "invalid_state"},
		{"GET", "/auth/capture-schema?state=" + staticState, "", 404, "schema_not_found"},
		{"POST", "/auth/capture-credential", "{", 400, "invalid_json"},
		{"POST", "/auth/capture-credential", `{"state":"nope","credentials":{"a":"b"}}`, 400, "invalid_state"},
		{"POST", "/auth/capture-credential", `{"state":"` + staticState + `"}`, 400, "invalid_credentials"},
		{"POST", "/auth/capture-credential", big, 413, "body_too_large"},

		{"GET", "/connections/nope/token", "", 400, "invalid_connection_id"},
		{"GET", "/connections/" + unknown + "/token", "", 404, "connection_not_found"},
		{"GET", "/connections/" + w.pending + "/token", "", 403, "connection_not_active"},
		{"GET", "/connections/" + w.failed + "/token", "", 403, "connection_not_active"},
		{"GET", "/connections/" + w.attention + "/token", "", 409, "attention_required"},
		{"POST", "/connections/nope/refresh", "", 400, "invalid_connection_id"},
		{"POST", "/connections/" + unknown + "/refresh", "", 404, "connection_not_found"},
		{"POST", "/connections/" + w.pending + "/refresh", "", 404, "connection_not_found"},
		{"POST", "/connections/" + w.attention + "/refresh", "", 404, "connection_not_found"},
		{"POST", "/connections/" + w.captured + "/refresh", "", 400, "static_token"},
		{"POST", "/connections/" + w.noRefresh + "/refresh", "", 400, "no_refresh_token"},
		{"GET", "/audit?since=yesterday", "", 400, "invalid_since"},

		{"GET", "/connections/" + w.active + "/token?min_ttl=x", "", 400, "invalid_min_ttl"},
		{"GET", "/connections/" + w.revoked + "/token", "", 410, "connection_revoked"},
		{"GET", "/connections/" + w.revoked + "/token?min_ttl=9", "", 410, "connection_revoked"},
		{"POST", "/connections/" + w.revoked + "/refresh", "", 404, "connection_not_found"},
		{"GET", "/connections", "", 400, "missing_workspace_id"},
		{"GET", "/connections?workspace_id=ws-1&limit=-1", "", 400, "invalid_limit"},
		{"GET", "/connections?workspace_id=ws-1&after=x", "", 400, "invalid_after"},
		{"DELETE", "/connections/nope", "", 400, "invalid_connection_id"},
		{"DELETE", "/connections/" + unknown, "", 404, "connection_not_found"},
		{"DELETE", "/connections/" + w.active, "{", 400, "invalid_json"},
		{"DELETE", "/connections/" + w.active, `{"workspace_id":"another"}`, 404, "connection_not_found"},
		{"DELETE", "/connections/" + w.active + "?workspace_id=another", "", 404, "connection_not_found"},
		{"DELETE", "/connections/" + w.active, big, 413, "body_too_large"},
		{"POST", "/auth/consent-spec", reconsent("ws-1", w.provider, "nope"), 400, "invalid_connection_id"},
		{"POST", "/auth/consent-spec", reconsent("ws-1", w.provider, unknown), 404, "connection_not_found"},
		{"POST", "/auth/consent-spec", reconsent("another", w.provider, w.active), 404, "connection_not_found"},
		{"POST", "/auth/consent-spec", reconsent("ws-1", w.static, w.active), 404, "connection_not_found"},
		{"POST", "/auth/consent-spec", reconsent("ws-1", w.provider, w.pending), 404, "connection_not_found"},
		{"POST", "/auth/consent-spec", reconsent("ws-1", w.provider, w.revoked), 410, "connection_revoked"},
	} {
		a := w.raw(k.method, k.path, k.body, key("X-Request-Id", "wire-1.2_3"))
		require.Equal(t, k.status, a.Status, "%s %.200s %.200s: %s", k.method, k.path, k.body, a.Body)
		require.Equal(t, k.code, a.text("error"), "%s %.200s %.200s: %s", k.method, k.path, k.body, a.Body)
		require.NotEmpty(t, a.text("message"))
		for member := range a.object() {
			require.Contains(t, []string{"error", "message", "details", "detail"}, member)
		}
		require.Equal(t, "application/json", a.Header.Get("Content-Type"))
		require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
		require.Equal(t, "wire-1.2_3", a.Header.Get("X-Request-Id"))
		require.Equal(t, k.status == 405, a.Header.Get("Allow") != "")
	}

	a := w.token(w.attention)
	require.NotEmpty(t, a.text("detail"), "of attention_required")
	require.Equal(t, a.text("detail"), a.text("message"))

	// What the provider does to a refresh, and to a callback.
	for _, answer := range []oauthtest.Answer{
		oauthtest.Refuse(400, "invalid_request"), oauthtest.Refuse(503, "temporarily_unavailable"), oauthtest.HTML(500), oauthtest.HTML(200),
		oauthtest.RateLimited(time.Second), oauthtest.Refuse(200, "slow_down"), oauthtest.Huge(8 << 20), oauthtest.RedirectTo("http://127.0.0.1:9/"),
	} {
		w.op.Next(oauthtest.Token, answer)
		w.refresh(w.active).want(502, "upstream_error")
		w.token(w.active).want(200)
	}
	w.op.Next(oauthtest.Token, oauthtest.Refuse(401, "invalid_client"))
	w.refresh(w.active).want(502, "provider_credentials_rejected")
	w.refresh(w.active).want(200)
	authURL, _ := w.begin(w.provider)
	w.op.EditClaims(func(claims map[string]any) { claims["aud"] = "somebody-else" })
	w.send("GET", w.authorize(authURL).RequestURI(), nil, nil).want(401, "invalid_id_token")
}

// TestWireKeys is who is let in, and how the answer tells.
func TestWireKeys(t *testing.T) {
	t.Parallel()
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t), "REQUIRE_ALLOWLIST": "true", "ALLOWED_CIDRS": "10.0.0.0/8"}))
	b.send("GET", "/providers", nil, nil).want(401, "missing_api_key")
	b.send("GET", "/providers", nil, http.Header{"X-Api-Key": {apiKey + "x"}}).want(403, "invalid_api_key")
	b.call("GET", "/providers", nil).want(403, "access_denied")
	for _, public := range []string{"/health", "/health/ready", "/metrics", "/openapi.yaml"} {
		b.send("GET", public, nil, nil).want(200)
	}
	b.send("GET", "/auth/callback", nil, nil).want(400, "missing_params")
	b.send("GET", "/auth/capture-schema", nil, nil).want(400, "invalid_state")
	b.send("POST", "/auth/capture-credential", map[string]any{}, nil).want(400, "invalid_state")
}

// TestWireRequestID: a sane id is passed on, anything else is replaced.
func TestWireRequestID(t *testing.T) {
	t.Parallel()
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t)}))
	for sent, kept := range map[string]bool{
		"abc-DEF_1.2": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
		"with space": false, "ümläut": false, `"quoted"`: false, "a;b": false, "": false,
	} {
		h := key()
		if sent != "" {
			h.Set("X-Request-Id", sent)
		}
		got := b.raw("GET", "/providers", "", h).want(200).Header.Values("X-Request-Id")
		require.Len(t, got, 1)
		require.Equal(t, kept, got[0] == sent, "sent %q, got %q", sent, got[0])
		require.NotEmpty(t, got[0])
		eventually(t, "the id is in the log", func() bool { return strings.Contains(b.log.String(), `"request_id":"`+got[0]+`"`) })
	}
}

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// exactly checks that an answer is this JSON, member for member.
func (a answer) exactly(expected string, values ...any) answer {
	a.t.Helper()
	require.JSONEq(a.t, fmt.Sprintf(expected, values...), string(a.Body))
	require.Equal(a.t, "application/json", a.Header.Get("Content-Type"))
	return a
}

func (a answer) empty() {
	a.t.Helper()
	require.Equal(a.t, 200, a.Status, "answer: %s", a.Body)
	require.Empty(a.t, a.Body)
}

// TestWireProviders compares the answers about providers with what clients of the
// existing broker know.
func TestWireProviders(t *testing.T) {
	t.Parallel()
	w := newWired(t)
	b := w.process
	post := func(profile string) string {
		return b.raw("POST", "/providers", `{"profile":`+profile+`}`, key()).want(201).text("id")
	}
	id := post(`{"name":"full","auth_type":"oauth2","auth_header":"Basic","client_id":"i","client_secret":"s","auth_url":"https://op.test/a",
		"token_url":"https://op.test/t","issuer":"https://op.test","enable_discovery":false,"scopes":["a","b"],"api_base_url":"https://api.test",
		"user_info_endpoint":"/me","revocation_url":"https://op.test/r","params":{"k":"v","n":1},"description":"d","category":"c","unknown":"ignored"}`)
	b.call("GET", "/providers/"+id, nil).want(200).exactly(`{"id":"%s","name":"full","auth_type":"oauth2","auth_header":"Basic",
		"client_id":"i","client_secret":"s","auth_url":"https://op.test/a","token_url":"https://op.test/t","issuer":"https://op.test",
		"enable_discovery":false,"scopes":["a","b"],"api_base_url":"https://api.test","user_info_endpoint":"/me",
		"revocation_url":"https://op.test/r","params":{"k":"v","n":1},"description":"d","category":"c"}`, id)
	small := post(`{"name":"small","auth_type":"basic_auth"}`)
	b.call("GET", "/providers/"+small, nil).want(200).exactly(`{"id":"%s","name":"small","auth_type":"basic_auth","enable_discovery":false,"scopes":[]}`, small)
	created := b.raw("POST", "/providers", `{"profile":{"name":"last","auth_type":"header"}}`, key()).want(201)
	created.exactly(`{"id":"%s","message":"Provider profile created successfully"}`, created.text("id"))
	last := created.text("id")

	list := fmt.Sprintf(`[{"id":%q,"name":"last"},{"id":%q,"name":"small"},{"id":%q,"name":"full"},{"id":%q,"name":"static"},{"id":%q,"name":"flow"}]`,
		last, small, id, w.static, w.provider)
	b.call("GET", "/providers", nil).want(200).exactly("%s", list)
	b.call("GET", "/providers/", nil).want(200).exactly("%s", list)
	b.call("GET", "/providers?limit=2", nil).want(200).exactly(`[{"id":%q,"name":"last"},{"id":%q,"name":"small"}]`, last, small)
	b.call("GET", "/providers?limit=1&after="+small, nil).want(200).exactly(`[{"id":%q,"name":"full"}]`, id)
	b.call("GET", "/providers/metadata", nil).want(200).exactly(`{
		"oauth2":{"flow":{"id":%q,"api_base_url":"","user_info_endpoint":"","scopes":[],"description":"","category":""},
			"full":{"id":%q,"api_base_url":"https://api.test","user_info_endpoint":"/me","scopes":["a","b"],"description":"d","category":"c"}},
		"api_key":{"static":{"id":%q,"api_base_url":"","user_info_endpoint":"","scopes":[],"description":"","category":""}},
		"basic_auth":{"small":{"id":%q,"api_base_url":"","user_info_endpoint":"","scopes":[],"description":"","category":""}},
		"header":{"last":{"id":%q,"api_base_url":"","user_info_endpoint":"","scopes":[],"description":"","category":""}}}`,
		w.provider, id, w.static, small, last)
	b.call("GET", "/providers/by-name/full", nil).want(200).exactly(`{"id":%q}`, id)
	b.call("GET", "/providers/by-name/FuLL", nil).want(200).exactly(`{"id":%q}`, id)
	var health []map[string]any
	require.NoError(t, json.Unmarshal(b.call("GET", "/providers/health", nil).want(200).Body, &health))
	require.Equal(t, map[string]any{"id": last, "name": "last", "health_status": "unknown", "health_message": "", "last_health_check_at": nil}, health[0])

	// PATCH changes what it names, null clears, and PUT replaces.
	b.raw("PATCH", "/providers/"+id, `{"description":"new","category":null,"scopes":["c"],"unknown":1}`, key()).empty()
	changed := b.call("GET", "/providers/"+id, nil).want(200).object()
	require.Equal(t, "new", changed["description"])
	require.NotContains(t, changed, "category")
	require.Equal(t, []any{"c"}, changed["scopes"])
	require.Equal(t, "s", changed["client_secret"])
	b.raw("PUT", "/providers/"+id, `{"name":"replaced","client_id":"i2","client_secret":"s2","auth_url":"https://op.test/a2","token_url":"https://op.test/t2"}`, key()).empty()
	b.call("GET", "/providers/"+id, nil).want(200).exactly(`{"id":%q,"name":"replaced","auth_type":"oauth2","client_id":"i2","client_secret":"s2",
		"auth_url":"https://op.test/a2","token_url":"https://op.test/t2","enable_discovery":false,"scopes":[]}`, id)

	b.call("DELETE", "/providers/"+id, nil).empty()
	b.call("DELETE", "/providers/"+id, nil).empty()
	b.call("GET", "/providers/"+id, nil).want(404, "provider_not_found")
	b.call("POST", "/auth/consent-spec", consentFor(id)).want(404, "provider_not_found")
	require.NotEqual(t, id, post(`{"name":"replaced","auth_type":"api_key"}`), "the name is free at once")
	b.call("DELETE", "/providers/by-name/SMALL", nil).want(200).exactly(`{"message":"Deleted 1 provider(s)"}`)
	for _, name := range []string{"replaced", "last", "static", "flow"} {
		b.call("DELETE", "/providers/by-name/"+name, nil).want(200)
	}
	require.Equal(t, "[]", strings.TrimSpace(string(b.call("GET", "/providers", nil).want(200).Body)))
	b.call("GET", "/providers/metadata", nil).want(200).exactly(`{}`)
}

// TestWireFlow compares a consent and its tokens.
func TestWireFlow(t *testing.T) {
	t.Parallel()
	w := newWired(t)
	b := w.process
	begin := func(provider, rest string) answer {
		return b.raw("POST", "/auth/consent-spec", `{"workspace_id":"ws","provider_id":"`+provider+`","return_url":"https://app.test/done?a=b#top"`+rest+`}`, key()).want(200)
	}
	a := begin(w.provider, "")
	require.Len(t, a.object(), 4)
	require.Contains(t, string(a.Body), `"scopes":null`)
	require.Equal(t, w.provider, a.text("provider_id"))
	claims := verifyState(t, a.text("state"))
	require.Equal(t, "ws", claims["workspace_id"])
	require.Equal(t, w.provider, claims["provider_id"])
	u := mustURL(t, a.text("authUrl"))
	require.Equal(t, w.op.URL(oauthtest.Authorization), u.Scheme+"://"+u.Host+u.Path)
	q := u.Query()
	require.Regexp(t, `^[A-Za-z0-9_-]{43}$`, q.Get("code_challenge"))
	q.Del("code_challenge")
	require.Equal(t, url.Values{"client_id": {"test-client"}, "redirect_uri": {publicURL + "/auth/callback"}, "response_type": {"code"},
		"scope": {""}, "state": {a.text("state")}, "code_challenge_method": {"S256"}}, q)

	a = begin(w.provider, `,"scopes":["openid","a b"]`)
	require.Equal(t, []any{"openid", "a b"}, a.object()["scopes"])
	u = mustURL(t, a.text("authUrl"))
	require.Equal(t, "openid a b", u.Query().Get("scope"))
	require.Equal(t, a.text("state"), u.Query().Get("nonce"))

	done := b.send("GET", b.authorize(a.text("authUrl")).RequestURI(), nil, nil).want(302)
	id := verifyState(t, a.text("state"))["nonce"]
	to := mustURL(t, done.Header.Get("Location"))
	require.Equal(t, url.Values{"a": {"b"}, "status": {"success"}, "connection_id": {id}, "provider": {"flow"}}, to.Query())
	require.Equal(t, "top", to.Fragment)

	token := b.token(id).want(200).object()
	fields, ok := token["credentials"].(map[string]any)
	require.True(t, ok)
	for _, name := range []string{"access_token", "token_type", "refresh_token", "expires_in", "scope", "id_token"} {
		require.Contains(t, fields, name)
		require.Equal(t, fields[name], token[name])
	}
	require.Equal(t, 3600.0, token["expires_in"])
	require.Equal(t, map[string]any{"type": "oauth2"}, token["strategy"])
	require.Equal(t, false, token["expired"])
	expires, err := time.Parse(time.RFC3339, token["expires_at"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(time.Hour), expires, 5*time.Minute)
	delete(token, "strategy")
	delete(token, "credentials")
	require.Equal(t, fields, token, "the same fields again, and nothing else")

	refreshed := b.refresh(id).want(200).object()
	require.NotContains(t, refreshed, "strategy")
	require.NotContains(t, refreshed, "credentials")
	require.NotEqual(t, token["refresh_token"], refreshed["refresh_token"])

	// A provider that says nothing of an end, and one that keeps its refresh token.
	w.op.Next(oauthtest.Token, oauthtest.Without("expires_in"))
	endless := b.token(b.connect(w.provider)).want(200).object()
	require.NotContains(t, endless, "expires_at")
	require.NotContains(t, endless, "expired")
	w.op.Next(oauthtest.Token, oauthtest.Without("refresh_token", "scope"))
	kept := b.refresh(id).want(200).object()
	require.Equal(t, refreshed["refresh_token"], kept["refresh_token"])
	require.Equal(t, refreshed["scope"], kept["scope"])

	// A browser comes back from a failure after a valid state, and is shown a page
	// without one.
	authURL, _ := b.begin(w.provider)
	denied := b.authorize(authURL + "&login_hint=deny")
	back := b.callback(denied)
	require.Equal(t, []string{"error", "oauth_error", "access_denied"}, []string{back.Get("status"), back.Get("error"), back.Get("provider_error")})
	page := b.send("GET", "/auth/callback?code=c&state=nope", nil, http.Header{"Accept": {"text/html,*/*;q=0.8"}})
	require.Equal(t, 400, page.Status)
	require.Contains(t, page.Header.Get("Content-Type"), "text/html")
	require.Contains(t, string(page.Body), "invalid_state")
	b.send("GET", "/auth/callback?code=c&state=nope", nil, http.Header{"Accept": {"*/*"}}).want(400, "invalid_state")
}

// TestWireStatic compares captured credentials: the form, both ways to send them, and
// how agents are told to use them.
func TestWireStatic(t *testing.T) {
	t.Parallel()
	w := newWired(t)
	b := w.process
	const schema = `{"type":"object","title":"Sign in","properties":{"api_key":{"type":"string","title":"Key","format":"password"},
		"region":{"type":"string","enum":["eu","us"]}},"required":["api_key"]}`
	register := func(name, authType, params string) string {
		return b.raw("POST", "/providers", `{"profile":{"name":"`+name+`","auth_type":"`+authType+`","params":`+params+`}}`, key()).want(201).text("id")
	}
	begin := func(provider string) (state string) {
		a := b.raw("POST", "/auth/consent-spec", `{"workspace_id":"ws","provider_id":"`+provider+`","return_url":"https://app.test/done?a=b"}`, key()).want(200)
		require.Equal(t, publicURL+"/auth/capture-schema?state="+url.QueryEscape(a.text("state")), a.text("authUrl"))
		return a.text("state")
	}
	withSchema := register("with-schema", "api_key", `{"credential_schema":`+schema+`}`)
	state := begin(withSchema)
	form := "/auth/capture-schema?state=" + url.QueryEscape(state)
	b.send("GET", form, nil, nil).want(200).exactly(`{"provider_name":"with-schema","schema":%s}`, schema)
	page := b.send("GET", form, nil, http.Header{"Accept": {"text/html"}}).want(200)
	require.Contains(t, page.Header.Get("Content-Type"), "text/html")
	for _, part := range []string{`>Key</label>`, `type="password"`, `required`, `<option value="eu">`, `name="state"`, "<title>Sign in</title>"} {
		require.Contains(t, string(page.Body), part)
	}

	b.raw("POST", "/auth/capture-credential", `{"state":"`+state+`","credentials":{"region":"mars"}}`, nil).want(400, "invalid_credentials")
	done := b.raw("POST", "/auth/capture-credential", `{"state":"`+state+`","credentials":{"api_key":"k/+","region":"eu","nested":{"a":[1]}}}`, nil).want(302)
	id := verifyState(t, state)["nonce"]
	require.Equal(t, "https://app.test/done?a=b&connection_id="+id+"&status=success", done.Header.Get("Location"))
	b.token(id).want(200).exactly(`{"strategy":{"type":"header","config":{"header_name":"X-API-Key","credential_field":"api_key"}},
		"credentials":{"api_key":"k/+","region":"eu","nested":{"a":[1]}}}`)
	b.raw("POST", "/auth/capture-credential", `{"state":"`+state+`","credentials":{"api_key":"again"}}`, nil).want(404, "connection_not_found")

	// The same by our own page, whose fields have the names that it gave them.
	state = begin(withSchema)
	name := regexp.MustCompile(`<input type="password" [^>]*name="([^"]+)"`).FindStringSubmatch(string(page.Body))
	require.Len(t, name, 2)
	posted := url.Values{"state": {state}, name[1]: {"from & a form"}}
	b.raw("POST", "/auth/capture-credential", posted.Encode(), http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}).want(302)
	require.Equal(t, map[string]any{"api_key": "from & a form"}, b.token(verifyState(t, state)["nonce"]).want(200).object()["credentials"])

	for authType, strategy := range map[string]string{
		"api_key": `{"type":"header","config":{"header_name":"X-API-Key","credential_field":"api_key"}}`, "basic_auth": `{"type":"basic_auth"}`,
		"header": `{"type":"header"}`, "query_param": `{"type":"query_param"}`, "hmac_payload": `{"type":"hmac_payload"}`, "aws_sigv4": `{"type":"aws_sigv4"}`,
	} {
		for params, expected := range map[string]string{`{}`: strategy, `{"auth_strategy":{"type":"own","config":{"x":1}}}`: `{"type":"own","config":{"x":1}}`} {
			state := begin(register(fmt.Sprintf("s-%s-%d", strings.ReplaceAll(authType, "_", "-"), len(params)), authType, params))
			b.raw("POST", "/auth/capture-credential", `{"state":"`+state+`","credentials":{"f":"v"}}`, nil).want(302)
			b.token(verifyState(t, state)["nonce"]).want(200).exactly(`{"strategy":%s,"credentials":{"f":"v"}}`, expected)
		}
	}
}

// TestWireOperations compares the audit log, health and metrics.
func TestWireOperations(t *testing.T) {
	t.Parallel()
	w := newWired(t)
	b := w.process
	audit := func(query string) (events []map[string]any) {
		require.NoError(t, json.Unmarshal(b.call("GET", "/audit?"+query, nil).want(200).Body, &events))
		return events
	}
	for range 60 {
		b.raw("GET", "/connections/"+w.active+"/token", "", key("User-Agent", "agent/1.0")).want(200)
	}
	since := time.Now().UTC()
	newest := audit("limit=1")[0]
	require.ElementsMatch(t, []string{"id", "connection_id", "event_type", "event_data", "ip_address", "user_agent", "created_at"}, keysOf(newest))
	require.Equal(t, "token_retrieved", newest["event_type"])
	require.Equal(t, w.active, newest["connection_id"])
	require.Equal(t, "127.0.0.1", newest["ip_address"])
	require.Equal(t, "agent/1.0", newest["user_agent"])
	require.True(t, json.Valid([]byte(newest["event_data"].(string))), "a string that holds JSON")
	for query, n := range map[string]int{"": 50, "limit=0": 50, "limit=1001": 50, "limit=-1": 50, "limit=x": 50, "limit=1": 1, "limit=55": 55, "event_type=token_retrieved&limit=1000": 60} {
		require.Len(t, audit(query), n, query)
	}
	created := audit("event_type=provider.created")
	require.Len(t, created, 2)
	require.NotContains(t, created[0], "connection_id", "null fields are left out")
	require.Contains(t, created[0]["event_data"], `static`, "newest first")
	require.Empty(t, audit("since="+url.QueryEscape(since.Add(time.Minute).Format(time.RFC3339))))
	require.Len(t, audit("limit=1000&event_type=token_retrieved&until="+url.QueryEscape(since.Add(time.Minute).Format(time.RFC3339))), 60)
	require.Len(t, audit("limit=1000&event_type=token_retrieved&connection_id="+w.captured), 0)
	page := audit("limit=2")
	require.Equal(t, audit("limit=1&after=" + page[0]["id"].(string))[0], page[1])

	require.Equal(t, `{"status": "healthy"}`, string(b.send("GET", "/health", nil, nil).want(200).Body))
	ready := b.send("GET", "/health/ready", nil, nil).want(200).object()
	require.Equal(t, "ready", ready["status"])
	require.Equal(t, "internal", ready["components"].(map[string]any)["secret_backend"].(map[string]any)["backend"])
	require.Contains(t, string(b.send("GET", "/openapi.yaml", nil, nil).want(200).Body), "openapi: 3.1")
	metrics := string(b.send("GET", "/metrics", nil, nil).want(200).Body)
	for _, series := range []string{"oauth_consents_created_total", "oauth_consents_with_openid_total", `oauth_token_exchanges_total{status="success"}`,
		"oauth_exchange_duration_seconds_bucket", "oauth_id_tokens_returned_total", `oauth_token_get_total{has_id_token="true",provider="` + w.provider + `"}`,
		`oidc_discovery_total{result=`, "oidc_discovery_duration_seconds_bucket", `oidc_verifications_total{result=`, "oidc_verification_duration_seconds_bucket"} {
		require.Contains(t, metrics, series)
	}
}

func keysOf(m map[string]any) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

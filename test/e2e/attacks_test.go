package e2e_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// signState makes a state as one who knows the key does.
func signState(t *testing.T, base64Key, payload string) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(base64Key)
	require.NoError(t, err)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(payload))
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(payload)) + "." + enc.EncodeToString(mac.Sum(nil))
}

// TestAttackOnTheState forges, ages, swaps and replays it.
func TestAttackOnTheState(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{})
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t)}))
	provider, other := b.registerAt(op, "flow"), b.registerAt(op, "other")
	authURL, state := b.begin(provider)
	callback := b.authorize(authURL)
	claims := verifyState(t, state)
	payload := func(workspace, provider, nonce string, at time.Time) string {
		return fmt.Sprintf(`{"workspace_id":%q,"provider_id":%q,"nonce":%q,"iat":%q}`, workspace, provider, nonce, at.UTC().Format(time.RFC3339Nano))
	}
	sound := payload("ws-1", provider, claims["nonce"], time.Now())
	body, mac, _ := strings.Cut(state, ".")
	raw, err := base64.RawURLEncoding.DecodeString(mac)
	require.NoError(t, err)
	flipped := append([]byte(nil), raw...)
	flipped[0] ^= 1
	for name, forged := range map[string]string{
		"another key":          signState(t, encryptionKey, sound),
		"no signature":         body,
		"an empty signature":   body + ".",
		"a changed signature":  body + "." + base64.RawURLEncoding.EncodeToString(flipped),
		"a short signature":    body + "." + base64.RawURLEncoding.EncodeToString(raw[:16]),
		"a changed payload":    base64.RawURLEncoding.EncodeToString([]byte(payload("ws-2", provider, claims["nonce"], time.Now()))) + "." + mac,
		"two payloads":         body + "." + body + "." + mac,
		"padded":               body + "=." + mac + "=",
		"a line break":         state[:9] + "\n" + state[9:],
		"expired":              signState(t, stateKey, payload("ws-1", provider, claims["nonce"], time.Now().Add(-10*time.Minute-time.Second))),
		"from the future":      signState(t, stateKey, payload("ws-1", provider, claims["nonce"], time.Now().Add(10*time.Minute))),
		"another provider":     signState(t, stateKey, payload("ws-1", other, claims["nonce"], time.Now())),
		"another workspace":    signState(t, stateKey, payload("ws-2", provider, claims["nonce"], time.Now())),
		"no connection":        signState(t, stateKey, payload("ws-1", provider, "", time.Now())),
		"no JSON":              signState(t, stateKey, "nope"),
		"NUL":                  state + "\x00",
		"a very long one":      strings.Repeat("a", 32<<10) + "." + mac,
		"a callback's in form": "state",
	} {
		q := callback.Query()
		q.Set("state", forged)
		a := b.send("GET", "/auth/callback?"+q.Encode(), nil, nil)
		require.Equal(t, 400, a.Status, "%s: %s", name, a.Body)
		require.Equal(t, "invalid_state", a.text("error"), name)
		b.send("GET", "/auth/capture-schema?state="+url.QueryEscape(forged), nil, nil).want(400, "invalid_state")
	}
	require.Equal(t, 0, op.CountGrant("authorization_code"), "no code was spent on any of them")
	require.NotEmpty(t, b.events("state_verification_failed"))
	// A consent at a provider is not completed with a form.
	b.send("POST", "/auth/capture-credential", map[string]any{"state": state, "credentials": map[string]any{"access_token": "mine"}}, nil).
		want(400, "invalid_state")
	b.send("GET", callback.RequestURI()+"&state="+url.QueryEscape(state), nil, nil).want(400, "missing_params")

	// Of two callbacks at once one succeeds, and the state is used up.
	answers := atOnce([]func() answer{
		func() answer { return b.send("GET", callback.RequestURI(), nil, nil) },
		func() answer { return b.send("GET", callback.RequestURI(), nil, nil) },
		func() answer { return b.send("GET", callback.RequestURI(), nil, nil) },
	})
	won := 0
	for _, a := range answers {
		if a.Status == 302 {
			won++
		} else {
			a.want(404, "connection_not_found")
		}
	}
	require.Equal(t, 1, won)
	b.send("GET", callback.RequestURI(), nil, nil).want(404, "connection_not_found")
	require.Equal(t, 1, op.CountGrant("authorization_code"))
	b.token(claims["nonce"]).want(200)
}

// TestAttackWithACode injects codes that were given to somebody else.
func TestAttackWithACode(t *testing.T) {
	t.Parallel()
	op, evil := oauthtest.Start(t, oauthtest.Options{}), oauthtest.Start(t, oauthtest.Options{})
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t)}))
	provider, evilProvider := b.registerAt(op, "flow"), b.registerAt(evil, "evil")
	inject := func(into, from *url.URL, parts ...string) answer {
		q := into.Query()
		for _, name := range parts {
			q.Set(name, from.Query().Get(name))
		}
		return b.send("GET", "/auth/callback?"+q.Encode(), nil, nil)
	}
	authorized := func(provider, user string) (callback *url.URL, connection string) {
		authURL, state := b.begin(provider)
		return b.authorize(authURL + "&login_hint=" + user), verifyState(t, state)["nonce"]
	}
	alice, aliceConnection := authorized(provider, "alice")
	bob, bobConnection := authorized(provider, "bob")

	// Alice's code with Bob's state: the code verifier is Bob's.
	inject(bob, alice, "code").want(500, "token_exchange_failed")
	b.token(bobConnection).want(403, "connection_not_active")
	// The other way round as well: the code is spent by now, nothing is handed out.
	b.token(aliceConnection).want(403, "connection_not_active")

	// Mix-up: an honest code reaches the broker with the state of the evil provider. It
	// must not be sent there.
	honest, _ := authorized(provider, "alice")
	wrong, evilConnection := authorized(evilProvider, "alice")
	inject(wrong, honest, "code", "iss").want(400, "oauth_error")
	require.Equal(t, 0, evil.CountGrant("authorization_code"), "the code has been shown to another provider")
	b.token(evilConnection).want(403, "connection_not_active")
	// And an ID token of the evil provider does not pass for the honest one's.
	fresh, connection := authorized(provider, "alice")
	op.Next(oauthtest.Token, oauthtest.Edit(func(fields map[string]any) {
		fields["id_token"] = evil.SignIDToken(map[string]any{"iss": op.Issuer(), "aud": "test-client", "sub": "alice",
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "nonce": fresh.Query().Get("state")})
	}))
	b.send("GET", fresh.RequestURI(), nil, nil).want(401, "invalid_id_token")
	b.token(connection).want(403, "connection_not_active")
}

// hostile is text that breaks what puts texts together.
const hostile = `'; DROP TABLE tokens; -- " \ %00 $1 {{.}} <script>alert(1)</script> ` + "\u202e 😀 \u2028"

// TestAttackWithSQL sends hostile text in every field: it is stored and returned as it
// is, or refused, and the tables stay.
func TestAttackWithSQL(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]string{"PostgreSQL": servers.Postgres(t), "SQLite": "sqlite:" + t.TempDir() + "/broker.db"} {
		t.Run(name, func(t *testing.T) {
			b := start(t, base().with(env{"DATABASE_URL": dsn}))
			profile := map[string]any{
				"name": "hostile", "auth_header": hostile, "client_id": hostile, "client_secret": hostile,
				"auth_url": "https://op.test/a?x=" + url.QueryEscape(hostile), "token_url": "https://op.test/t?x=" + url.QueryEscape(hostile),
				"scopes": []any{hostile, `{"a","b"}`, "NULL", ""}, "api_base_url": hostile, "user_info_endpoint": hostile, "description": hostile,
				"category": hostile, "params": map[string]any{hostile: hostile, "nested": map[string]any{"a": []any{hostile}}},
			}
			id := b.call("POST", "/providers", map[string]any{"profile": profile}).want(201).text("id")
			stored := b.call("GET", "/providers/"+id, nil).want(200).object()
			for member, value := range profile {
				require.Equal(t, value, stored[member], member)
			}
			b.call("PATCH", "/providers/"+id, map[string]any{"description": hostile + hostile}).want(200)
			require.Equal(t, hostile+hostile, b.call("GET", "/providers/"+id, nil).object()["description"])

			state := b.call("POST", "/auth/consent-spec", map[string]any{"workspace_id": hostile, "provider_id": id,
				"return_url": "https://app.test/" + url.PathEscape(hostile), "scopes": []string{hostile}}).want(200).text("state")
			require.Equal(t, hostile, verifyState(t, state)["workspace_id"])
			static := b.call("POST", "/providers", map[string]any{"profile": map[string]any{"name": "static", "auth_type": "api_key"}}).text("id")
			state = b.call("POST", "/auth/consent-spec", consentFor(static)).want(200).text("state")
			b.send("POST", "/auth/capture-credential", map[string]any{"state": state, "credentials": map[string]any{hostile: hostile}}, nil).want(302)
			token := b.raw("GET", "/connections/"+verifyState(t, state)["nonce"]+"/token", "", key("User-Agent", hostile)).want(200).object()
			require.Equal(t, map[string]any{hostile: hostile}, token["credentials"])

			escaped := url.PathEscape(hostile)
			for path, status := range map[string]int{
				"/providers/by-name/" + escaped: 404, "/providers/by-name/%25": 404, "/providers/by-name/_______": 404, "/providers/" + escaped: 400,
				"/connections/" + escaped + "/token": 400, "/audit?event_type=" + url.QueryEscape(hostile): 200, "/audit?since=" + url.QueryEscape(hostile): 400,
				"/audit?limit=" + url.QueryEscape(hostile): 200, "/providers?limit=" + url.QueryEscape(hostile): 400,
			} {
				b.call("GET", path, nil).want(status)
			}
			b.call("DELETE", "/providers/by-name/%25", nil).want(404)
			require.NotEmpty(t, b.events("token_retrieved"))
			b.call("GET", "/providers/"+id, nil).want(200)
		})
	}
}

// TestAttackWithBodies: members twice, depth, chunks without an end, a lie about the size.
func TestAttackWithBodies(t *testing.T) {
	t.Parallel()
	b := start(t, base().with(env{"DATABASE_URL": servers.Postgres(t)}))
	const rest = `"auth_url":"https://op.test/a","token_url":"https://op.test/t","client_id":"i"`
	for _, twice := range []string{
		`{"profile":{"name":"a","client_secret":"s","client_secret":"t",` + rest + `}}`,
		`{"profile":{"name":"a","client_secret":"s","Client_Secret":"t",` + rest + `}}`,
		`{"profile":{"name":"a","client_secret":"s",` + rest + `},"profile":{"name":"b","client_secret":"s",` + rest + `}}`,
		`{"profile":{"name":"a","client_secret":"s","params":{"x":1,"x":2},` + rest + `}}`,
	} {
		b.raw("POST", "/providers", twice, key()).want(400, "invalid_json")
	}
	deep := `{"profile":{"name":"a","params":` + strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000) + `}}`
	b.raw("POST", "/providers", deep, key()).want(400, "invalid_json")
	req := b.request("POST", "/providers", nil, key())
	body := &spaces{}
	body.left.Store(64 << 20) // many times the limit and what lies in buffers
	req.Body, req.ContentLength = body, -1
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err == nil { // the broker may have cut the connection before the client had sent all
		require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
		var e map[string]any
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&e))
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "body_too_large", e["error"])
	}
	require.Positive(t, body.left.Load(), "the broker has read all of it")
	big := key("X-Big", strings.Repeat("x", 128<<10))
	resp, err = (&http.Client{Timeout: time.Minute}).Do(b.request("GET", "/health", nil, big))
	if err == nil {
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
	}
	require.Empty(t, b.events("provider.created"))
	b.send("GET", "/health", nil, nil).want(200)
}

// spaces is a long body that does not say how long it is. A client may go on reading it
// after its request has failed.
type spaces struct{ left atomic.Int64 }

func (s *spaces) Read(p []byte) (int, error) {
	if s.left.Add(-int64(len(p))) <= 0 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func (s *spaces) Close() error { return nil }

package broker_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/secret"
)

func query(t *testing.T, raw string) url.Values {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.Query()
}

func TestAuthorizationURL(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := h.profile("google")
	in.Scopes = broker.Given([]string{"profile-scopes", "are-no-default"})
	in.Params = broker.Given(json.RawMessage(`{"prompt":"consent","state":"evil","redirect_uri":"https://evil.example",
		"client_id":"evil","code_challenge_method":"plain","nonce":"evil","response_type":"token",
		"number":1,"token_request_format":"json","auth_strategy":{"a":"b"}}`))
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)

	c := h.begin(id, "openid", "email")
	q := query(t, c.AuthURL)
	require.Equal(t, clientID, q.Get("client_id"))
	require.Equal(t, "https://broker.example/auth/callback", q.Get("redirect_uri"))
	require.Equal(t, "code", q.Get("response_type"))
	require.Equal(t, "openid email", q.Get("scope"))
	require.Equal(t, c.State, q.Get("state"))
	require.Equal(t, c.State, q.Get("nonce"))
	require.Equal(t, "S256", q.Get("code_challenge_method"))
	require.Len(t, q.Get("code_challenge"), 43)
	require.Equal(t, "consent", q.Get("prompt"))
	for _, own := range []string{"number", "token_request_format", "auth_strategy"} {
		require.False(t, q.Has(own), own)
	}

	c = h.begin(id)
	require.Nil(t, c.Scopes)
	q = query(t, c.AuthURL)
	require.True(t, q.Has("scope"))
	require.Empty(t, q.Get("scope"), "the provider's own scopes are not a default")
	require.False(t, q.Has("nonce"))

	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Params: broker.Given(json.RawMessage(`{"skip_scope_on_auth":true}`))}))
	require.False(t, query(t, h.begin(id, "email").AuthURL).Has("scope"))
}

func TestBeginRefusals(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{config: func(c *broker.Config) {
		c.EnforceReturnURL, c.AllowedReturnDomains = true, []string{"app.example", "*.apps.example"}
	}})
	id := h.register("google")
	ask := func(change func(*broker.ConsentRequest)) error {
		r := request(id)
		change(&r)
		_, err := h.Begin(t.Context(), r)
		return err
	}
	code(t, broker.CodeMissingFields, ask(func(r *broker.ConsentRequest) { r.WorkspaceID = "" }))
	code(t, broker.CodeMissingFields, ask(func(r *broker.ConsentRequest) { r.ReturnURL = "" }))
	code(t, broker.CodeMissingFields, ask(func(r *broker.ConsentRequest) { r.ProviderID = "" }))
	code(t, broker.CodeProviderNotFound, ask(func(r *broker.ConsentRequest) { r.ProviderID = "no-uuid" }))
	code(t, broker.CodeProviderNotFound, ask(func(r *broker.ConsentRequest) { r.ProviderID = uuid.NewString() }))
	for _, bad := range []string{
		"https://evil.example/", "https://app.example.evil.example/", "https://evil.example/app.example",
		"https://apps.example/", "https://xapps.example/", `https://app.example\@evil.example/`, "https://app.example@evil.example/",
		"//evil.example/", "javascript:alert(1)", "data:text/html,x", "https://app.example/\r\nSet-Cookie: a=b", "/relative", "http://[::1",
	} {
		code(t, broker.CodeReturnURLNotAllowed, ask(func(r *broker.ConsentRequest) { r.ReturnURL = bad }))
	}
	require.NotEmpty(t, h.events(audit.InvalidReturnURL))
	for _, good := range []string{"https://app.example/x", "https://APP.example:8443/", "https://a.apps.example/", "http://a.b.apps.example/"} {
		require.NoError(t, ask(func(r *broker.ConsentRequest) { r.ReturnURL = good }), good)
	}
}

func TestWithoutEnforcementScriptsAreStillRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	r := request(id)
	r.ReturnURL = "JavaScript:alert(1)"
	_, err := h.Begin(t.Context(), r)
	code(t, broker.CodeReturnURLNotAllowed, err)
	r.ReturnURL = "myapp://done"
	_, err = h.Begin(t.Context(), r)
	require.NoError(t, err)
}

func TestConsentWithDiscoveryAndIDToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := h.profile("google")
	in.AuthURL, in.TokenURL = broker.Field[string]{}, broker.Field[string]{}
	in.EnableDiscovery, in.Issuer = broker.Given(true), broker.Given(h.op.Issuer())
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	connection := h.connect(id, "openid")
	answer, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	require.NotEmpty(t, field(t, answer, "id_token"))
	require.Equal(t, broker.StatusActive, h.status(connection))
	require.Len(t, h.events(audit.OAuthFlowCompleted), 1)
	require.Equal(t, broker.HealthHealthy, h.provider(id).Health.Status)
	c, err := h.store.Connection(t.Context(), connection)
	require.NoError(t, err)
	require.Empty(t, c.CodeVerifier, "erased when used")
}

func TestIDTokenThatIsNotGood(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(map[string]any){
		"another nonce":  func(c map[string]any) { c["nonce"] = "another" },
		"another client": func(c map[string]any) { c["aud"] = "another" },
		"another issuer": func(c map[string]any) { c["iss"] = "https://evil.example" },
		"expired":        func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			in := h.profile("google")
			in.Issuer = broker.Given(h.op.Issuer())
			id, err := h.Register(t.Context(), in)
			require.NoError(t, err)
			c := h.begin(id, "openid")
			cb := h.agree(c)
			h.op.EditClaims(edit)
			_, err = h.Complete(t.Context(), cb)
			e := code(t, broker.CodeInvalidIDToken, err)
			q := query(t, e.ReturnURL)
			require.Equal(t, "invalid_id_token", q.Get("error"))
			id, err = uuid.Parse(q.Get("connection_id"))
			require.NoError(t, err)
			require.Equal(t, broker.StatusFailed, h.status(id))
			_, err = h.Token(t.Context(), id)
			code(t, broker.CodeConnectionNotActive, err)
		})
	}
}

func TestCallbackOfAState(t *testing.T) {
	t.Parallel()
	clock := time.Now()
	h := newHouse(t, options{now: func() time.Time { return clock }})
	id, other := h.register("google"), h.register("other")
	good := h.agree(h.begin(id))

	for name, state := range map[string]string{
		"garbage": "garbage", "empty parts": ".", "no signature": strings.Split(good.State, ".")[0],
		"altered": "A" + good.State[1:], "another's signature": strings.Split(good.State, ".")[0] + "." + strings.Split(h.begin(other).State, ".")[1],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.Complete(t.Context(), broker.Callback{Code: good.Code, State: state})
			e := code(t, broker.CodeInvalidState, err)
			require.Empty(t, e.ReturnURL, "an unverified state sends nobody anywhere")
		})
	}
	_, err := h.Complete(t.Context(), broker.Callback{State: good.State})
	code(t, broker.CodeMissingParams, err)
	_, err = h.Complete(t.Context(), broker.Callback{Code: good.Code})
	code(t, broker.CodeMissingParams, err)

	late := h.agree(h.begin(id))
	clock = clock.Add(11 * time.Minute)
	_, err = h.Complete(t.Context(), late)
	code(t, broker.CodeInvalidState, err)
	require.NotEmpty(t, h.events(audit.StateVerificationFailed))
}

func TestAStateWorksOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	cb := h.agree(h.begin(id))
	var wg sync.WaitGroup
	var won atomic.Int32
	for range 8 {
		wg.Go(func() {
			_, err := h.Complete(t.Context(), cb)
			if err == nil {
				won.Add(1)
			} else if broker.CodeOf(err) != broker.CodeConnectionNotFound {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, won.Load())
	require.Equal(t, 1, h.op.CountGrant("authorization_code"), "the code is sent to the provider once")
	_, err := h.Complete(t.Context(), cb)
	e := code(t, broker.CodeConnectionNotFound, err)
	require.Equal(t, "connection_not_found", query(t, e.ReturnURL).Get("error"))
}

func TestProviderAnswersWithAnError(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	c := h.begin(id)
	_, err := h.Complete(t.Context(), broker.Callback{State: c.State, Error: "access_denied"})
	e := code(t, broker.CodeOAuthError, err)
	q := query(t, e.ReturnURL)
	require.Equal(t, "error", q.Get("status"))
	require.Equal(t, "oauth_error", q.Get("error"))
	require.Equal(t, "access_denied", q.Get("provider_error"))
	require.Equal(t, "1", q.Get("keep"))
	connection, err := uuid.Parse(q.Get("connection_id"))
	require.NoError(t, err)
	require.Equal(t, broker.StatusPending, h.status(connection))

	_, err = h.Complete(t.Context(), broker.Callback{State: c.State, Error: "<script>"})
	require.False(t, query(t, code(t, broker.CodeOAuthError, err).ReturnURL).Has("provider_error"), "only a known code is passed on")
	_, err = h.Complete(t.Context(), broker.Callback{State: "forged", Error: "access_denied"})
	require.Empty(t, code(t, broker.CodeOAuthError, err).ReturnURL)
	require.Len(t, h.events(audit.OAuthError), 3)
	h.connectWith(c)
}

// connectWith completes a consent that has been begun.
func (h *house) connectWith(c broker.Consent) uuid.UUID {
	h.t.Helper()
	to, err := h.Complete(h.t.Context(), h.agree(c))
	require.NoError(h.t, err)
	return connectionIn(h.t, to.URL)
}

func TestMixUpIsNoticed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := h.profile("google")
	in.Issuer = broker.Given(h.op.Issuer())
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	cb := h.agree(h.begin(id))
	good := cb.Issuer
	cb.Issuer = "https://evil.example"
	_, err = h.Complete(t.Context(), cb)
	code(t, broker.CodeOAuthError, err)
	require.Zero(t, h.op.Count(oauthtest.Token), "the code goes nowhere")
	cb.Issuer = good
	_, err = h.Complete(t.Context(), cb)
	require.NoError(t, err)
}

func TestExchangeThatFails(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]oauthtest.Answer{
		"500": oauthtest.Respond(500, "text/plain", "boom CANARY"), "HTML": oauthtest.HTML(200),
		"200 with an error": oauthtest.Respond(200, "application/json", `{"error":"invalid_grant","error_description":"CANARY"}`),
		"invalid_grant":     oauthtest.Refuse(400, "invalid_grant"), "cut off": oauthtest.CutOff(),
		"no access token": oauthtest.Without("access_token"), "a redirect": oauthtest.RedirectTo("https://evil.example"),
		"huge": oauthtest.Huge(100 << 20), "unknown error": oauthtest.Refuse(400, "CANARY"),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			id := h.register("google")
			cb := h.agree(h.begin(id))
			h.op.Next(oauthtest.Token, answer)
			_, err := h.Complete(t.Context(), cb)
			e := code(t, broker.CodeTokenExchangeFailed, err)
			require.NotContains(t, err.Error(), "CANARY")
			require.NotContains(t, e.ReturnURL, "CANARY")
			connection, err := uuid.Parse(query(t, e.ReturnURL).Get("connection_id"))
			require.NoError(t, err)
			require.Equal(t, broker.StatusFailed, h.status(connection))
			require.Len(t, h.events(audit.TokenExchangeFailed), 1)
		})
	}
}

// What is wrong with the credentials is not the user's fault: the consent stays.
func TestVaultTroubleLeavesTheConsentPending(t *testing.T) {
	t.Parallel()
	for cause, want := range map[error]broker.Code{
		secret.ErrUnavailable: broker.CodeSecretBackendUnavailable, secret.ErrThrottled: broker.CodeSecretBackendUnavailable,
		secret.ErrDenied: broker.CodeSecretBackendDenied, secret.ErrInvalid: broker.CodeCredentialsInvalid,
		secret.ErrNotFound: broker.CodeCredentialsNotFoundAtFlow,
	} {
		t.Run(cause.Error(), func(t *testing.T) {
			h := newHouse(t, options{})
			id := h.register("google")
			c := h.begin(id)
			cb := h.agree(c)
			h.vault.Fail(cause)
			_, err := h.Complete(t.Context(), cb)
			e := code(t, want, err)
			require.Equal(t, e.WireCode(), query(t, e.ReturnURL).Get("error"))
			require.NotContains(t, e.WireCode(), " ")
			if want == broker.CodeSecretBackendUnavailable {
				require.Positive(t, e.RetryAfter)
			}
			_, err = h.Begin(t.Context(), request(id))
			code(t, want, err)
			h.vault.Fail(nil)
			_, err = h.Complete(t.Context(), cb)
			require.NoError(t, err, "the same callback works once the vault is back")
		})
	}
}

// A rotation in the vault during a flow: the provider refuses the old secret, the
// pair is read again, and the same code is exchanged with the new one.
func TestSecretRotatedDuringTheFlow(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{ttl: time.Hour})
	id := h.register("google")
	cb := h.agree(h.begin(id))
	h.op.SetSecret(clientID, "rotated")
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", "rotated"))
	_, err := h.Complete(t.Context(), cb)
	require.NoError(t, err)
	require.Equal(t, broker.HealthHealthy, h.provider(id).Health.Status)
}

func TestProviderRefusesTheCredentials(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	c := h.begin(id)
	cb := h.agree(c)
	h.op.SetSecret(clientID, "the provider's new secret that the vault does not have")
	_, err := h.Complete(t.Context(), cb)
	code(t, broker.CodeCredentialsRejected, err)
	require.Equal(t, broker.HealthCredentialsRejected, h.provider(id).Health.Status)
	h.op.SetSecret(clientID, clientSecret)
	h.connectWith(c) // the consent is still pending
	require.Equal(t, broker.HealthHealthy, h.provider(id).Health.Status)
}

func TestProviderDeletedDuringTheConsent(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	cb := h.agree(h.begin(id))
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	_, err := h.Complete(t.Context(), cb)
	code(t, broker.CodeProviderNotFound, err)
}

func TestJSONTokenRequestAndScopeSwitches(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := h.profile("google")
	in.AuthHeader = broker.Given("client_secret_post")
	in.Params = broker.Given(json.RawMessage(`{"token_request_format":"json","skip_scope_on_exchange":true}`))
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	connection := h.connect(id, "email")
	sent := h.op.LastRequest(oauthtest.Token)
	require.Contains(t, sent.Header.Get("Content-Type"), "application/json")
	require.NotContains(t, sent.Body, "email")
	_, err = h.Refresh(t.Context(), connection)
	require.NoError(t, err)
	require.Contains(t, h.op.LastRequest(oauthtest.Token).Header.Get("Content-Type"), "application/json")
}

// The rules for a return_url may have become stricter since the consent began.
func TestReturnURLThatIsNotAllowedAnyMore(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	before := newHouse(t, options{path: path})
	c := before.begin(before.register("google"))
	cb := before.agree(c)
	after := newHouse(t, options{path: path, vault: before.vault, config: func(c *broker.Config) { c.EnforceReturnURL = true }})
	_, err := after.Complete(t.Context(), cb)
	require.Empty(t, code(t, broker.CodeReturnURLNotAllowed, err).ReturnURL, "nobody is sent there")
	require.Zero(t, before.op.Count(oauthtest.Token))
}

func TestNothingBeginsAfterClose(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"))
	require.NoError(t, h.Close(t.Context()))
	_, err := h.Refresh(t.Context(), connection)
	code(t, broker.CodeShuttingDown, err)
	require.Zero(t, h.op.CountGrant("refresh_token"))
}

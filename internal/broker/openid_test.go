package broker_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// withIssuer registers a provider of ID tokens.
func (h *house) withIssuer(name string, change ...func(*broker.ProfileInput)) uuid.UUID {
	h.t.Helper()
	in := h.profile(name)
	in.Issuer = broker.Given(h.op.Issuer())
	for _, c := range change {
		c(&in)
	}
	id, err := h.Register(h.t.Context(), in)
	require.NoError(h.t, err)
	return id
}

// answerWithIDToken is what the token endpoint answers, in whatever form it was asked for
// openid.
func (h *house) answerWithIDToken(nonce string) oauthtest.Answer {
	now := time.Now()
	token := h.op.SignIDToken(map[string]any{
		"iss": h.op.Issuer(), "sub": "alice", "aud": clientID, "nonce": nonce, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	return oauthtest.Respond(http.StatusOK, "application/json", `{"access_token":"a","token_type":"Bearer","id_token":"`+token+`"}`)
}

// However openid is asked for, a nonce is sent and the ID token is verified.
func TestOpenIDInWhateverForm(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	plain := h.withIssuer("plain")
	always := h.withIssuer("always", func(in *broker.ProfileInput) {
		in.Params = broker.Given(json.RawMessage(`{"scope":"email openid"}`))
	})
	for name, c := range map[string]struct {
		provider uuid.UUID
		scopes   []string
	}{
		"a scope each":              {plain, []string{"email", "openid"}},
		"all in one string":         {plain, []string{"openid email profile"}},
		"within a string":           {plain, []string{"offline", " email  openid "}},
		"separated by commas":       {plain, []string{"email,openid"}},
		"in the profile's params":   {always, nil},
		"there, and others asked":   {always, []string{"email"}},
		"in capitals":               {plain, []string{"OpenID"}},
		"in capitals in one string": {plain, []string{"email OpenID"}},
	} {
		t.Run(name, func(t *testing.T) {
			consent := h.begin(c.provider, c.scopes...)
			require.Equal(t, consent.State, query(t, consent.AuthURL).Get("nonce"))
			cb := h.agree(consent)
			h.op.Next(oauthtest.Token, h.answerWithIDToken("another"))
			_, err := h.Complete(t.Context(), cb)
			code(t, broker.CodeInvalidIDToken, err)

			consent = h.begin(c.provider, c.scopes...)
			cb = h.agree(consent)
			h.op.Next(oauthtest.Token, h.answerWithIDToken(consent.State))
			_, err = h.Complete(t.Context(), cb)
			require.NoError(t, err)
		})
	}
	for _, scopes := range [][]string{nil, {"email"}, {"openid-connect email"}, {"not:openid"}} {
		require.False(t, query(t, h.begin(plain, scopes...).AuthURL).Has("nonce"), scopes)
	}
}

// Without the provider's metadata an ID token cannot be verified: the code is not spent.
func TestDiscoveryThatIsOutAtTheCallback(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]oauthtest.Answer{
		"down": oauthtest.Respond(503, "text/plain", ""), "throttled": oauthtest.RateLimited(time.Second),
		"too slow": oauthtest.Respond(408, "text/plain", ""), "cut off": oauthtest.CutOff(), "refused by a gateway": oauthtest.HTML(403),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			h.op.Always(oauthtest.Discovery, answer)
			cb := h.agree(h.begin(h.withIssuer("google"), "openid"))
			_, err := h.Complete(t.Context(), cb)
			code(t, broker.CodeUpstreamError, err)
			require.Zero(t, h.op.Count(oauthtest.Token))
			h.op.Always(oauthtest.Discovery, oauthtest.Ordinary())
			_, err = h.Complete(t.Context(), cb)
			require.NoError(t, err)
		})
	}
}

// An answer that says that there is no discovery is no outage: openid may be asked of a
// provider that gives no ID token. A refusal says so where nobody has said otherwise.
func TestThereIsNoDiscovery(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		issuer bool // the profile has one
	}{"not found": {404, true}, "not found where it was guessed": {404, false}, "refused where it was guessed": {403, false}} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			h.op.Always(oauthtest.Discovery, oauthtest.HTML(c.status))
			id := h.withIssuer("plain", func(in *broker.ProfileInput) {
				if !c.issuer {
					in.Issuer = broker.Field[string]{}
				}
			})
			cb := h.agree(h.begin(id, "openid"))
			h.op.Next(oauthtest.Token, oauthtest.Without("id_token"))
			_, err := h.Complete(t.Context(), cb)
			require.NoError(t, err)
		})
	}
}

// Neither can it without the provider's signing keys. Once they are there they are not
// asked for again.
func TestKeysThatAreOutAtTheCallback(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]oauthtest.Answer{
		"down": oauthtest.Respond(503, "text/plain", ""), "throttled": oauthtest.RateLimited(7 * time.Second),
		"not found": oauthtest.HTML(404), "a page": oauthtest.HTML(200),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			id := h.withIssuer("google")
			c := h.begin(id, "openid")
			cb := h.agree(c)
			h.op.Always(oauthtest.Keys, answer)
			_, err := h.Complete(t.Context(), cb)
			e := code(t, broker.CodeUpstreamError, err)
			require.Contains(t, e.Message, "signing keys")
			if name == "throttled" {
				require.Equal(t, 7*time.Second, e.RetryAfter)
			}
			require.Zero(t, h.op.Count(oauthtest.Token))
			require.Equal(t, broker.StatusPending, h.status(pendingOf(t, c)))
			h.connect(id, "email") // for which nobody needs them
			h.op.Always(oauthtest.Keys, oauthtest.Ordinary())
			_, err = h.Complete(t.Context(), cb)
			require.NoError(t, err)
			asked := h.op.Count(oauthtest.Keys)
			h.connect(id, "openid")
			require.Equal(t, asked, h.op.Count(oauthtest.Keys))
		})
	}
}

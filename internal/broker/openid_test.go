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

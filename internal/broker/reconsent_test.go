package broker_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// again begins a new consent to a connection.
func (h *house) again(provider, connection uuid.UUID, scopes ...string) broker.Consent {
	h.t.Helper()
	r := request(provider, scopes...)
	r.ConnectionID = connection
	c, err := h.Begin(h.t.Context(), r)
	require.NoError(h.t, err)
	return c
}

func (h *house) accessToken(connection uuid.UUID) string {
	h.t.Helper()
	a, err := h.Token(h.t.Context(), connection)
	require.NoError(h.t, err)
	return field(h.t, a, "access_token")
}

func TestReconsentKeepsTheConnectionAndItsTokenUntilItSucceeds(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h := newHouse(t, o)
		id := h.register("google")
		connection := h.connect(id, "email")
		old := h.accessToken(connection)

		c := h.again(id, connection, "email", "calendar")
		require.Equal(t, old, h.accessToken(connection))
		refreshed, err := h.Refresh(t.Context(), connection)
		require.NoError(t, err, "it is as usable as before")
		cb := h.agree(c)
		h.op.Next(oauthtest.Token, oauthtest.Refuse(400, "invalid_grant"))
		_, err = h.Complete(t.Context(), cb)
		code(t, broker.CodeTokenExchangeFailed, err)
		require.Equal(t, broker.StatusActive, h.status(connection), "a failed one costs nothing")
		require.Equal(t, field(t, refreshed, "access_token"), h.accessToken(connection))
		_, err = h.Complete(t.Context(), cb)
		code(t, broker.CodeConnectionNotFound, err)

		replaced := h.agree(h.again(id, connection))
		to, err := h.Complete(t.Context(), h.agree(h.again(id, connection, "email", "calendar")))
		require.NoError(t, err)
		require.Equal(t, connection, connectionIn(t, to.URL))
		require.NotEqual(t, field(t, refreshed, "access_token"), h.accessToken(connection))
		now, err := h.store.Connection(t.Context(), connection)
		require.NoError(t, err)
		require.Equal(t, []string{"email", "calendar"}, now.Scopes)
		_, err = h.Complete(t.Context(), replaced)
		code(t, broker.CodeConnectionNotFound, err)
		_, err = h.Refresh(t.Context(), connection)
		require.NoError(t, err)
		require.Equal(t, true, h.events(audit.OAuthFlowCompleted)[0].Data["reconsent"])
	})
}

func TestReconsentHealsAConnection(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	connection := h.connect(id)
	h.op.EndGrants()
	_, err := h.Refresh(t.Context(), connection)
	code(t, broker.CodeAttentionRequired, err)
	_, err = h.Complete(t.Context(), h.agree(h.again(id, connection)))
	require.NoError(t, err)
	h.accessToken(connection)

	c := h.begin(id)
	h.op.Next(oauthtest.Token, oauthtest.Refuse(400, "invalid_grant"))
	_, err = h.Complete(t.Context(), h.agree(c))
	code(t, broker.CodeTokenExchangeFailed, err)
	list, err := broker.All(h.Connections(t.Context(), "ws", broker.Page{}))
	require.NoError(t, err)
	failed := list[0].ID
	require.Equal(t, broker.StatusFailed, h.status(failed))
	_, err = h.Complete(t.Context(), h.agree(h.again(id, failed)))
	require.NoError(t, err)
	h.accessToken(failed)
}

func TestReconsentOfStaticCredentials(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := broker.ProfileInput{AuthType: broker.Given("api_key")}
	id := h.static("acme", in)
	c := h.begin(id)
	to, err := h.Capture(t.Context(), c.State, entered(t, `{"api_key":"old"}`))
	require.NoError(t, err)
	connection := connectionIn(t, to.URL)
	c = h.again(id, connection)
	a, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	require.Equal(t, "old", field(t, a, "api_key"))
	_, err = h.Capture(t.Context(), c.State, entered(t, `{"api_key":"new"}`))
	require.NoError(t, err)
	a, err = h.Token(t.Context(), connection)
	require.NoError(t, err)
	require.Equal(t, "new", field(t, a, "api_key"))
	_, err = h.Capture(t.Context(), c.State, entered(t, `{"api_key":"newer"}`))
	code(t, broker.CodeConnectionNotFound, err)
}

// A revocation during the exchange wins, and what the exchange got is made void.
func TestReconsentAgainstRevocation(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		one, two := newHouse(t, o), newHouse(t, o)
		id := one.revocable("google")
		for name, begin := range map[string]func() (broker.Consent, uuid.UUID){
			"of a new connection": func() (broker.Consent, uuid.UUID) {
				c := one.begin(id)
				return c, pendingOf(t, c)
			},
			"of a connection that is there": func() (broker.Consent, uuid.UUID) {
				connection := one.connect(id)
				return one.again(id, connection), connection
			},
		} {
			c, connection := begin()
			cb := one.agree(c)
			exchanged, release := one.op.CountGrant("authorization_code"), make(chan struct{})
			one.op.Next(oauthtest.Token, oauthtest.When(release,
				oauthtest.Respond(200, "application/json", `{"access_token":"at `+name+`","refresh_token":"rt `+name+`"}`)))
			done := make(chan error, 1)
			go func() {
				_, err := one.Complete(t.Context(), cb)
				done <- err
			}()
			eventually(t, "the exchange", func() bool { return one.op.CountGrant("authorization_code") == exchanged+1 })
			two.revoke(connection)
			close(release)
			code(t, broker.CodeConnectionNotFound, <-done)
			one.requireRevoked(connection)
			require.Contains(t, one.revokedAtProvider(), "refresh_token rt "+name)

			_, err := one.Complete(t.Context(), cb)
			code(t, broker.CodeConnectionNotFound, err)
			r := request(id)
			r.ConnectionID = connection
			_, err = one.Begin(t.Context(), r)
			code(t, broker.CodeConnectionRevoked, err)
		}
	})
}

// A refresh of the old token that ends after the new consent does not replace the new
// token.
func TestReconsentDuringARefresh(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h := newHouse(t, o)
		id := h.register("google")
		connection := h.connect(id)
		cb := h.agree(h.again(id, connection))
		for name, late := range map[string]oauthtest.Answer{
			"a token":       oauthtest.Respond(200, "application/json", `{"access_token":"late","refresh_token":"late"}`),
			"invalid_grant": oauthtest.Refuse(400, "invalid_grant"),
		} {
			asked, release := h.op.CountGrant("refresh_token"), make(chan struct{})
			h.op.Next(oauthtest.Token, oauthtest.When(release, late))
			results := refreshes(t, []*house{h}, 1, connection)
			eventually(t, "the request", func() bool { return h.op.CountGrant("refresh_token") == asked+1 })
			_, err := h.Complete(t.Context(), cb)
			require.NoError(t, err)
			fresh := h.accessToken(connection)
			close(release)
			r := <-results
			require.NoError(t, r.err, name)
			require.Equal(t, fresh, field(t, r.answer, "access_token"), name)
			require.Equal(t, fresh, h.accessToken(connection), name)
			cb = h.agree(h.again(id, connection))
		}
	})
}

func TestReconsentRefusals(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id, other := h.register("google"), h.register("other")
	connection := h.connect(id)
	pending := pendingOf(t, h.begin(id))
	for name, change := range map[string]func(*broker.ConsentRequest){
		"another workspace": func(r *broker.ConsentRequest) { r.WorkspaceID = "another" },
		"another provider":  func(r *broker.ConsentRequest) { r.ProviderID = other.String() },
		"unknown":           func(r *broker.ConsentRequest) { r.ConnectionID = uuid.New() },
		"pending":           func(r *broker.ConsentRequest) { r.ConnectionID = pending },
	} {
		r := request(id)
		r.ConnectionID = connection
		change(&r)
		_, err := h.Begin(t.Context(), r)
		require.Equal(t, broker.CodeConnectionNotFound, broker.CodeOf(err), name)
	}
}

func TestTokenThatLasts(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.provider = oauthtest.Options{AccessTokenTTL: 10 * time.Minute}
		h := newHouse(t, o)
		id := h.register("google")
		connection := h.connect(id)
		first := h.accessToken(connection)
		lasting := func(d time.Duration) broker.TokenAnswer {
			a, err := h.TokenLasting(t.Context(), connection, d)
			require.NoError(t, err)
			return a
		}
		require.Equal(t, first, field(t, lasting(5*time.Minute), "access_token"), "it lasts")
		require.Zero(t, h.op.CountGrant("refresh_token"))
		second := lasting(11 * time.Minute) // longer than the provider's tokens do
		require.NotEqual(t, first, field(t, second, "access_token"))
		require.Equal(t, 1, h.op.CountGrant("refresh_token"))
		require.Equal(t, field(t, second, "access_token"), h.accessToken(connection))

		// The refresh fails: what has not expired is handed out.
		h.op.Next(oauthtest.Token, oauthtest.RateLimited(time.Second))
		require.Equal(t, field(t, second, "access_token"), field(t, lasting(time.Hour), "access_token"))
		h.vault.Fail(errDown)
		h.creds.Forget(h.provider(id).Credentials)
		require.Equal(t, field(t, second, "access_token"), field(t, lasting(time.Hour), "access_token"))
		h.vault.Fail(nil)
		h.op.EndGrants()
		_, err := h.TokenLasting(t.Context(), connection, time.Hour)
		code(t, broker.CodeAttentionRequired, err)
	})
}

func TestTokenThatLastsOfAnExpiredOne(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{provider: oauthtest.Options{AccessTokenTTL: time.Second}})
	id := h.register("google")
	connection := h.connect(id)
	eventually(t, "it expires", func() bool {
		a, err := h.Token(t.Context(), connection)
		return err == nil && a.Expired
	})
	h.op.Next(oauthtest.Token, oauthtest.RateLimited(time.Second))
	_, err := h.TokenLasting(t.Context(), connection, time.Minute)
	code(t, broker.CodeUpstreamError, err)

	h.op.Next(oauthtest.Token, oauthtest.Without("refresh_token"))
	bare := h.connect(id)
	asked := h.op.CountGrant("refresh_token")
	_, err = h.TokenLasting(t.Context(), bare, time.Hour)
	require.NoError(t, err, "it cannot be refreshed, and is handed out as ever")
	h.op.Next(oauthtest.Token, oauthtest.Without("expires_in"))
	_, err = h.TokenLasting(t.Context(), h.connect(id), time.Hour)
	require.NoError(t, err, "nobody knows when it expires")
	static := h.capture("acme", broker.ProfileInput{AuthType: broker.Given("api_key")}, `{"api_key":"k","refresh_token":"r","expires_in":1}`)
	_, err = h.TokenLasting(t.Context(), static, time.Hour)
	require.NoError(t, err)
	require.Equal(t, asked, h.op.CountGrant("refresh_token"))
	_, err = h.TokenLasting(t.Context(), uuid.New(), time.Hour)
	code(t, broker.CodeConnectionNotFound, err)
}

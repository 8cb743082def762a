package broker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// revocable registers a provider whose revocation endpoint the profile names.
func (h *house) revocable(name string) uuid.UUID {
	h.t.Helper()
	in := h.profile(name)
	in.RevocationURL = broker.Given(h.op.URL(oauthtest.Revocation))
	id, err := h.Register(h.t.Context(), in)
	require.NoError(h.t, err)
	return id
}

func (h *house) revoke(connection uuid.UUID) broker.Revocation {
	h.t.Helper()
	r, err := h.Revoke(h.t.Context(), broker.RevokeRequest{ConnectionID: connection, Reason: "the user has left"})
	require.NoError(h.t, err)
	require.Equal(h.t, connection, r.ConnectionID)
	require.NotEmpty(h.t, r.ProviderName)
	return r
}

// revoked returns the tokens that the provider was asked to make void, in order.
func (h *house) revokedAtProvider() (tokens []string) {
	for _, r := range h.op.Requests(oauthtest.Revocation) {
		tokens = append(tokens, r.Params.Get("token_type_hint")+" "+r.Params.Get("token"))
	}
	return tokens
}

func (h *house) requireRevoked(connection uuid.UUID) {
	h.t.Helper()
	require.Equal(h.t, broker.StatusRevoked, h.status(connection))
	view, err := h.store.Token(h.t.Context(), connection)
	require.NoError(h.t, err)
	require.Zero(h.t, view.Token)
	_, err = h.Token(h.t.Context(), connection)
	code(h.t, broker.CodeConnectionRevoked, err)
	_, err = h.TokenLasting(h.t.Context(), connection, time.Hour)
	code(h.t, broker.CodeConnectionRevoked, err)
	_, err = h.Refresh(h.t.Context(), connection)
	code(h.t, broker.CodeConnectionNotFound, err)
}

func TestRevocationEndsTheTokenHereAndAtTheProvider(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h := newHouse(t, o)
		connection := h.connect(h.revocable("google"))
		token, err := h.Token(t.Context(), connection)
		require.NoError(t, err)
		_, err = h.Revoke(t.Context(), broker.RevokeRequest{ConnectionID: connection, WorkspaceID: "another"})
		code(t, broker.CodeConnectionNotFound, err)
		_, err = h.Revoke(t.Context(), broker.RevokeRequest{ConnectionID: uuid.New()})
		code(t, broker.CodeConnectionNotFound, err)
		require.Empty(t, h.revokedAtProvider())

		r := h.revoke(connection)
		require.True(t, r.TokenDeleted)
		require.True(t, r.ProviderRevoked)
		require.Equal(t, "google", r.ProviderName)
		require.Equal(t, []string{
			"refresh_token " + field(t, token, "refresh_token"), "access_token " + field(t, token, "access_token"),
		}, h.revokedAtProvider(), "the refresh token first")
		require.True(t, strings.HasPrefix(h.op.LastRequest(oauthtest.Revocation).Header.Get("Authorization"), "Basic "), "as at the exchange")
		h.requireRevoked(connection)
		events := h.events(audit.ConnectionRevoked)
		require.Len(t, events, 1)
		require.Equal(t, "the user has left", events[0].Data["reason"])
		require.Equal(t, "revoked", h.events(audit.ProviderRevocation)[0].Data["result"])

		again := h.revoke(connection)
		require.Equal(t, broker.Revocation{ConnectionID: connection, ProviderName: "google", RevokedAt: r.RevokedAt}, again)
		require.Len(t, h.events(audit.ConnectionRevoked), 1)
		require.Len(t, h.revokedAtProvider(), 2)
	})
}

func TestRevocationAtADiscoveredEndpoint(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"), "openid")
	require.True(t, h.revoke(connection).ProviderRevoked)
	require.Len(t, h.revokedAtProvider(), 2)
}

// The local revocation needs neither the vault nor the provider.
func TestRevocationWithoutVaultOrProvider(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	plain, revocable := h.register("plain"), h.revocable("google")

	none := h.revoke(h.connect(plain))
	require.True(t, none.TokenDeleted)
	require.False(t, none.ProviderRevoked, "it has no endpoint for it")
	require.Equal(t, "unsupported", h.events(audit.ProviderRevocation)[0].Data["result"])

	static := h.revoke(h.capture("acme", broker.ProfileInput{AuthType: broker.Given("api_key")}, `{"api_key":"k"}`))
	require.True(t, static.TokenDeleted)
	require.False(t, static.ProviderRevoked)

	for name, answer := range map[string]oauthtest.Answer{
		"503": oauthtest.Refuse(503, "temporarily_unavailable"), "HTML": oauthtest.HTML(500), "redirect": oauthtest.RedirectTo("http://127.0.0.1:9/"),
		"cut off": oauthtest.CutOff(), "error at last": oauthtest.Refuse(401, "invalid_client"),
	} {
		h.op.Next(oauthtest.Revocation, answer)
		connection := h.connect(revocable)
		r := h.revoke(connection)
		require.True(t, r.TokenDeleted, name)
		require.False(t, r.ProviderRevoked, name)
		h.requireRevoked(connection)
		require.Equal(t, "failed", h.events(audit.ProviderRevocation)[0].Data["result"], name)
	}
	unsupported := oauthtest.Refuse(400, "unsupported_token_type")
	h.op.Next(oauthtest.Revocation, unsupported, unsupported)
	require.False(t, h.revoke(h.connect(revocable)).ProviderRevoked, "no kind of token is taken")
	require.Equal(t, "failed", h.events(audit.ProviderRevocation)[0].Data["result"])
	h.op.Next(oauthtest.Revocation, oauthtest.Refuse(400, "invalid_token"), unsupported)
	require.True(t, h.revoke(h.connect(revocable)).ProviderRevoked, "it was void already, and access tokens are not taken")

	connection := h.connect(revocable)
	h.vault.Fail(errDown)
	h.creds.Forget(h.provider(revocable).Credentials)
	asked := len(h.revokedAtProvider())
	r := h.revoke(connection)
	require.True(t, r.TokenDeleted)
	require.False(t, r.ProviderRevoked)
	require.Len(t, h.revokedAtProvider(), asked)
	require.Equal(t, string(broker.CodeSecretBackendUnavailable), h.events(audit.ProviderRevocation)[0].Data["reason"])
	h.requireRevoked(connection)
}

// A provider that revokes access tokens only is asked for that, and the audit log says
// that the refresh token was not taken (RFC 7009 §2.2.1).
func TestRevocationWhereRefreshTokensAreNotTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.revocable("google"))
	h.op.Next(oauthtest.Revocation, oauthtest.Refuse(400, "unsupported_token_type"))
	require.True(t, h.revoke(connection).ProviderRevoked)
	asked := h.revokedAtProvider()
	require.Len(t, asked, 2)
	require.True(t, strings.HasPrefix(asked[1], "access_token "), "%s", asked[1])
	event := h.events(audit.ProviderRevocation)[0]
	require.Equal(t, "revoked", event.Data["result"])
	require.Equal(t, "unsupported_token_type", event.Data["provider_error"])
}

// leaving is a store whose caller goes away when a revocation has been committed.
type leaving struct {
	broker.Store
	leave func()
}

func (l leaving) RevokeConnection(
	ctx context.Context, id uuid.UUID, workspace, reason string, now time.Time, e audit.Event,
) (broker.RevokedConnection, error) {
	revoked, err := l.Store.RevokeConnection(ctx, id, workspace, reason, now, e)
	l.leave()
	return revoked, err
}

// The provider is asked once: neither a caller who goes away nor a broker that shuts down
// in the middle keeps the revocation from it.
func TestARevocationReachesTheProviderWithoutItsCaller(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(h *house, disconnect func()){
		"caller gone":   func(_ *house, disconnect func()) { disconnect() },
		"shutting down": func(h *house, disconnect func()) { h.beginToClose(); disconnect() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h *house
			ctx, disconnect := context.WithCancel(t.Context())
			h = newHouse(t, options{wrap: func(s broker.Store) broker.Store {
				return leaving{s, func() { leave(h, disconnect) }}
			}})
			connection := h.connect(h.revocable("google"))
			r, err := h.Revoke(ctx, broker.RevokeRequest{ConnectionID: connection})
			require.NoError(t, err)
			require.True(t, r.TokenDeleted)
			require.True(t, r.ProviderRevoked)
			require.Len(t, h.revokedAtProvider(), 2)
			require.Equal(t, "revoked", h.events(audit.ProviderRevocation)[0].Data["result"])
		})
	}
}

func TestNoRevocationBeginsWhileTheBrokerShutsDown(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.revocable("google"))
	require.NoError(t, h.Close(t.Context()))
	_, err := h.Revoke(t.Context(), broker.RevokeRequest{ConnectionID: connection})
	code(t, broker.CodeShuttingDown, err)
	require.Equal(t, broker.StatusActive, h.status(connection), "another replica can do it wholly")
}

// beginToClose tells the service to close, which waits for what is under way.
func (h *house) beginToClose() {
	h.t.Helper()
	patience, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(h.t, h.Close(patience), context.DeadlineExceeded, "the revocation is waited for")
}

// A refresh in flight, at this replica or another, cannot bring a revoked connection
// back; and the token that it got is made void as well.
func TestRevocationDuringARefresh(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		one, two := newHouse(t, o), newHouse(t, o)
		connection := one.connect(one.revocable("google"))
		release := make(chan struct{})
		one.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
		results := refreshes(t, []*house{one, two}, 3, connection)
		eventually(t, "the request", func() bool { return one.op.CountGrant("refresh_token") == 1 })
		require.True(t, two.revoke(connection).ProviderRevoked)
		close(release)
		for range 6 {
			r := <-results
			require.Contains(t, []broker.Code{broker.CodeConnectionRevoked, broker.CodeConnectionNotFound, broker.CodeAttentionRequired},
				broker.CodeOf(r.err), "%v", r.err)
		}
		one.requireRevoked(connection)
		require.Empty(t, one.events(audit.TokenRefreshed))
	})
}

// The provider rotates although the refresh token was revoked a moment before: what it
// gave is made void too.
func TestTheTokenOfARefreshAfterARevocationIsMadeVoid(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.provider = oauthtest.Options{}
		h := newHouse(t, o)
		connection := h.connect(h.revocable("google"))
		release := make(chan struct{})
		h.op.Next(oauthtest.Token, oauthtest.When(release,
			oauthtest.Respond(200, "application/json", `{"access_token":"late-at","refresh_token":"late-rt","expires_in":60}`)))
		results := refreshes(t, []*house{h}, 1, connection)
		eventually(t, "the request", func() bool { return h.op.CountGrant("refresh_token") == 1 })
		h.revoke(connection)
		close(release)
		code(t, broker.CodeConnectionRevoked, (<-results).err)
		require.Contains(t, h.revokedAtProvider(), "refresh_token late-rt")
		require.Contains(t, h.revokedAtProvider(), "access_token late-at")
		h.requireRevoked(connection)
	})
}

func TestConnectionsAreListed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h := newHouse(t, o)
		_, err := broker.All(h.Connections(t.Context(), "", broker.Page{}))
		code(t, broker.CodeMissingWorkspaceID, err)
		id := h.register("google")
		h.begin(id)
		active, revoked := h.connect(id, "email"), h.connect(id)
		h.revoke(revoked)
		list, err := broker.All(h.Connections(t.Context(), "ws", broker.Page{}))
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.Equal(t, revoked, list[0].ID)
		require.Equal(t, broker.StatusRevoked, list[0].Status)
		require.Zero(t, list[0].TokenExpiresAt)
		require.Equal(t, active, list[1].ID)
		require.Equal(t, "google", list[1].ProviderName)
		require.Equal(t, []string{"email"}, list[1].Scopes)
		require.WithinDuration(t, time.Now().Add(time.Hour), list[1].TokenExpiresAt, 10*time.Minute)
		require.Equal(t, broker.HealthUnknown, list[1].HealthStatus)
		_, err = h.Refresh(t.Context(), active)
		require.NoError(t, err)
		list, err = broker.All(h.Connections(t.Context(), "ws", broker.Page{After: revoked}))
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, broker.HealthHealthy, list[0].HealthStatus)
	})
}

package broker_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// reseal replaces the envelope of a connection's token by another one of the same
// token, as a rotation of the encryption key does.
func (h *house) reseal(connection uuid.UUID) {
	h.t.Helper()
	view, err := h.store.Token(h.t.Context(), connection)
	require.NoError(h.t, err)
	plain, err := keyring(h.t, "").Open(broker.TokenPurpose(connection), view.Token.Sealed)
	require.NoError(h.t, err)
	t := view.Token
	t.Sealed = keyring(h.t, "").Seal(broker.TokenPurpose(connection), plain)
	require.NoError(h.t, h.store.ReplaceToken(h.t.Context(), connection, view.Token.Sealed, t, time.Now()))
}

// A token is re-sealed while the provider is asked for the next one.
func TestARefreshedTokenIsStoredOverOneThatWasResealed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		unread := &unreadable{}
		o.wrap = func(inner broker.Store) broker.Store { unread.Store = inner; return unread }
		h := newHouse(t, o)
		connection := h.connect(h.register("google"))
		release := make(chan struct{})
		h.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
		results := refreshes(t, []*house{h}, 1, connection)
		eventually(t, "the request", func() bool { return h.op.CountGrant("refresh_token") == 1 })
		h.reseal(connection)
		close(release)
		r := <-results
		require.NoError(t, r.err)
		stored, err := h.Token(t.Context(), connection)
		require.NoError(t, err)
		require.Equal(t, field(t, r.answer, "access_token"), field(t, stored, "access_token"))
		require.Equal(t, int64(1), unread.failed.Load(), "the row could not be read at first")
		_, err = h.Refresh(t.Context(), connection)
		require.NoError(t, err, "the grant is alive")
	})
}

// unreadable is a store that does not give a token back, once, after it was found to be
// another than expected.
type unreadable struct {
	broker.Store
	stale  atomic.Bool
	failed atomic.Int64
}

func (u *unreadable) ReplaceToken(ctx context.Context, id uuid.UUID, old string, t broker.StoredToken, now time.Time, e ...audit.Event) error {
	err := u.Store.ReplaceToken(ctx, id, old, t, now, e...)
	u.stale.Store(errors.Is(err, broker.ErrStale))
	return err
}

func (u *unreadable) Token(ctx context.Context, id uuid.UUID) (broker.TokenView, error) {
	if u.stale.Swap(false) {
		u.failed.Add(1)
		return broker.TokenView{}, errors.New("the database is down")
	}
	return u.Store.Token(ctx, id)
}

// A grant that the provider has ended is not handed out as a fresh token because its
// envelope is another one by now.
func TestARefusedTokenThatWasResealedEndsTheConnection(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h := newHouse(t, o)
		connection := h.connect(h.register("google"))
		release := make(chan struct{})
		h.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Refuse(400, "invalid_grant")))
		results := refreshes(t, []*house{h}, 1, connection)
		eventually(t, "the request", func() bool { return h.op.CountGrant("refresh_token") == 1 })
		h.reseal(connection)
		close(release)
		code(t, broker.CodeAttentionRequired, (<-results).err)
		require.Equal(t, broker.StatusAttention, h.status(connection))
	})
}

// Who needs a token that lasts, and has looked at it before it was re-sealed, does not
// take the new envelope for a new token.
func TestALastingTokenIsRefreshedAlthoughItWasResealed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.provider = oauthtest.Options{AccessTokenTTL: 10 * time.Minute}
		late := &behind{}
		o.wrap = func(inner broker.Store) broker.Store { late.Store = inner; return late }
		h := newHouse(t, o)
		connection := h.connect(h.register("google"))
		before, err := h.store.Token(t.Context(), connection)
		require.NoError(t, err)
		h.reseal(connection)
		late.first.Store(&before)
		_, err = h.TokenLasting(t.Context(), connection, 20*time.Minute)
		require.NoError(t, err)
		require.Equal(t, 1, h.op.CountGrant("refresh_token"))
	})
}

// A consent that is given back for another try was out of the database while the
// encryption key was rotated.
func TestAConsentComesBackUnderTheFirstKey(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.key = "o"
		before := newHouse(t, o)
		provider := before.register("google")
		o.key = "no"
		during := newHouse(t, o)
		consents := []broker.Consent{before.begin(provider)}
		connected := before.connect(provider)
		again, err := before.Begin(t.Context(), broker.ConsentRequest{
			WorkspaceID: "ws", ProviderID: provider.String(), ReturnURL: returnURL, ConnectionID: connected,
		})
		require.NoError(t, err)
		consents = append(consents, again)
		var callbacks []broker.Callback
		before.op.SetSecret(clientID, "rotated")
		for _, c := range consents {
			callback := before.agree(c)
			_, err := during.Complete(t.Context(), callback)
			code(t, broker.CodeCredentialsRejected, err)
			callbacks = append(callbacks, callback)
		}
		require.NoError(t, during.PatchProvider(t.Context(), provider, broker.ProfileInput{ClientSecret: text("rotated")}))
		o.key = "n"
		after := newHouse(t, o)
		for _, callback := range callbacks {
			_, err := after.Complete(t.Context(), callback)
			require.NoError(t, err)
		}
	})
}

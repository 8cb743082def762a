package broker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// late is a store at which something happens between the look at a token and the claim of
// its refresh.
type late struct {
	broker.Store
	before func()
}

func (l *late) ClaimRefresh(ctx context.Context, id uuid.UUID, seen broker.RefreshSeen, ttl time.Duration) (broker.RefreshLease, error) {
	if before := l.before; before != nil {
		l.before = nil
		before()
	}
	return l.Store.ClaimRefresh(ctx, id, seen, ttl)
}

// Another replica's whole refresh lies between the look of this one and its claim: the
// token in its hands is spent, and the outcome of the other is as good as its own.
func TestARefreshThatHasLookedBeforeAnotherEnded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		two := newHouse(t, o)
		l := &late{}
		o.wrap = func(inner broker.Store) broker.Store { l.Store = inner; return l }
		one := newHouse(t, o)
		connection := two.connect(two.register("google"))

		var other broker.TokenAnswer
		l.before = func() {
			var err error
			other, err = two.Refresh(t.Context(), connection)
			require.NoError(t, err)
		}
		a, err := one.Refresh(t.Context(), connection)
		require.NoError(t, err)
		require.Equal(t, field(t, other, "access_token"), field(t, a, "access_token"))
		require.Equal(t, 1, two.op.CountGrant("refresh_token"))

		two.op.Next(oauthtest.Token, oauthtest.RateLimited(7*time.Second))
		l.before = func() {
			_, err := two.Refresh(t.Context(), connection)
			code(t, broker.CodeUpstreamError, err)
		}
		_, err = one.Refresh(t.Context(), connection)
		require.Equal(t, 7*time.Second, code(t, broker.CodeUpstreamError, err).RetryAfter)
		require.Equal(t, 2, two.op.CountGrant("refresh_token"))
		_, err = one.Refresh(t.Context(), connection)
		require.NoError(t, err, "the grant is alive")
	})
}

// unconfirmed is a store whose database is away when a lease is to be confirmed.
type unconfirmed struct {
	broker.Store
	down atomic.Bool
}

func (u *unconfirmed) KeepRefresh(ctx context.Context, l broker.RefreshLease, ttl time.Duration) error {
	if u.down.Load() {
		return errReset
	}
	return u.Store.KeepRefresh(ctx, l, ttl)
}

// The database goes away while the credentials are read: the provider is not asked for a
// token that could not be stored.
func TestNoTokenIsAskedForWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		db := &unconfirmed{}
		o.wrap = func(inner broker.Store) broker.Store { db.Store = inner; return db }
		h := newHouse(t, o)
		connection := h.connect(h.register("google"))
		db.down.Store(true)
		_, err := h.Refresh(t.Context(), connection)
		code(t, broker.CodeInternal, err)
		require.Zero(t, h.op.CountGrant("refresh_token"))
		db.down.Store(false)
		_, err = h.Refresh(t.Context(), connection)
		require.NoError(t, err)
	})
}

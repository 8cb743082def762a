package broker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// hanging is a store whose next calls go to connections that have vanished without a word:
// nothing answers before the caller gives up.
type hanging struct {
	broker.Store
	store, renew atomic.Int32 // how many calls
}

func hang(ctx context.Context, calls *atomic.Int32) error {
	if calls.Add(-1) < 0 {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (h *hanging) ReplaceToken(ctx context.Context, id uuid.UUID, old string, t broker.StoredToken, now time.Time, e ...audit.Event) error {
	if err := hang(ctx, &h.store); err != nil {
		return err
	}
	return h.Store.ReplaceToken(ctx, id, old, t, now, e...)
}

func (h *hanging) KeepRefresh(ctx context.Context, l broker.RefreshLease, ttl time.Duration) error {
	if err := hang(ctx, &h.renew); err != nil {
		return err
	}
	return h.Store.KeepRefresh(ctx, l, ttl)
}

// A replica whose connections to the database have vanished gives each up in time to
// reach it over another one, before its refresh is taken over: by storing the token it
// has got, or by renewing its lease.
func TestVanishedConnectionsCostNoRefresh(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string]struct{ store, renew int32 }{
		"the token is stored":  {1, 1000},
		"the lease is renewed": {3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options{path: t.TempDir() + "/broker.db", config: func(c *broker.Config) { c.RefreshLease = 4 * time.Second }}
			two := newHouse(t, o)
			db := &hanging{}
			o.vault = two.vault
			o.wrap = func(inner broker.Store) broker.Store { db.Store = inner; return db }
			one := newHouse(t, o)
			connection := two.connect(two.register("google"))
			release := make(chan struct{})
			two.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
			holder := refreshes(t, []*house{one}, 1, connection)
			eventually(t, "the request", func() bool { return two.op.CountGrant("refresh_token") == 1 })
			db.store.Store(calls.store)
			db.renew.Store(calls.renew)
			close(release)
			other, err := two.Refresh(t.Context(), connection)
			require.NoError(t, err)
			r := <-holder
			require.NoError(t, r.err)
			require.Equal(t, field(t, r.answer, "access_token"), field(t, other, "access_token"))
			require.Equal(t, 1, two.op.CountGrant("refresh_token"))
		})
	}
}

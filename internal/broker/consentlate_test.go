package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// overtime is a store that loses the answer of a completion, and by then the time of the
// exchange is up: a look at the token that has no longer than that fails at once.
type overtime struct {
	broker.Store
	deadline time.Time // of the exchange
	before   func()    // the completion that is lost
	up       bool
}

func (o *overtime) ClaimConsent(ctx context.Context, id uuid.UUID, issued, now time.Time) (broker.Connection, error) {
	o.deadline, _ = ctx.Deadline()
	return o.Store.ClaimConsent(ctx, id, issued, now)
}

func (o *overtime) CompleteConnection(ctx context.Context, c broker.Connection, t broker.StoredToken, now time.Time, e ...audit.Event) error {
	if o.up {
		return o.Store.CompleteConnection(ctx, c, t, now, e...)
	}
	o.up = true
	o.before()
	_ = o.Store.CompleteConnection(ctx, c, t, now, e...)
	return errReset
}

func (o *overtime) Token(ctx context.Context, id uuid.UUID) (broker.TokenView, error) {
	if d, bounded := ctx.Deadline(); o.up && bounded && d.Equal(o.deadline) {
		return broker.TokenView{}, context.DeadlineExceeded
	}
	return o.Store.Token(ctx, id)
}

// The database comes back when the exchange has used up its time: what has become of the
// consent is found out all the same.
func TestAConsentIsLookedUpAfterItsTime(t *testing.T) {
	t.Parallel()
	t.Run("stored", func(t *testing.T) {
		o := &overtime{before: func() {}}
		h := newHouse(t, options{wrap: func(s broker.Store) broker.Store { o.Store = s; return o }})
		h.connect(h.register("google"))
		require.True(t, o.up)
	})
	t.Run("revoked", func(t *testing.T) {
		o := &overtime{}
		h := newHouse(t, options{wrap: func(s broker.Store) broker.Store { o.Store = s; return o }})
		c := h.begin(h.revocable("google"))
		o.before = func() { h.revoke(pendingOf(t, c)) }
		_, err := h.Complete(t.Context(), h.agree(c))
		code(t, broker.CodeConnectionNotFound, err)
		require.Len(t, h.revokedAtProvider(), 2, "the tokens are of no use")
	})
}

// unclaimed is a store whose database is down when a consent is to be claimed.
type unclaimed struct {
	broker.Store
	down bool
}

func (u *unclaimed) ClaimConsent(ctx context.Context, id uuid.UUID, issued, now time.Time) (broker.Connection, error) {
	if u.down {
		return broker.Connection{}, broker.ErrDatabaseDown
	}
	return u.Store.ClaimConsent(ctx, id, issued, now)
}

// A browser whose callback meets a database that is down comes back with that reason, and
// its consent can be tried again.
func TestACallbackWhileTheDatabaseIsDown(t *testing.T) {
	t.Parallel()
	u := &unclaimed{down: true}
	h := newHouse(t, options{wrap: func(s broker.Store) broker.Store { u.Store = s; return u }})
	c := h.begin(h.register("google"))
	answer := h.agree(c)
	_, err := h.Complete(t.Context(), answer)
	e := code(t, broker.CodeDatabaseUnavailable, err)
	require.Contains(t, e.ReturnURL, "error=database_unavailable")
	u.down = false
	_, err = h.Complete(t.Context(), answer)
	require.NoError(t, err)
}

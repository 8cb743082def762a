package broker_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// gauge returns the sum of a metric's values.
func (h *house) gauge(name string) (sum int) {
	h.t.Helper()
	families, err := h.reg.Gather()
	require.NoError(h.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += int(m.GetGauge().GetValue())
			}
		}
	}
	return sum
}

type refreshed struct {
	answer broker.TokenAnswer
	err    error
}

// refreshes lets n callers of every house refresh, and returns when all of them wait.
func refreshes(t *testing.T, houses []*house, n int, connection uuid.UUID) <-chan refreshed {
	t.Helper()
	results := make(chan refreshed, n*len(houses))
	for _, h := range houses {
		for range n {
			go func() {
				a, err := h.Refresh(t.Context(), connection)
				results <- refreshed{a, err}
			}()
		}
	}
	for _, h := range houses {
		eventually(t, "all callers wait", func() bool {
			return h.gauge("nexus_token_refresh_waiting") == n && h.gauge("nexus_token_refreshes_under_way") == 1
		})
	}
	return results
}

// With a provider that detects reuse a second request would end the grant.
func TestOneRefreshAcrossReplicas(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		houses := []*house{newHouse(t, o), newHouse(t, o), newHouse(t, o)}
		op := houses[0].op
		connection := houses[0].connect(houses[0].register("google"))
		release := make(chan struct{})
		op.Always(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
		const callers = 20
		results := refreshes(t, houses, callers, connection)
		eventually(t, "the request", func() bool { return op.CountGrant("refresh_token") == 1 })
		close(release)
		first := ""
		for range callers * len(houses) {
			r := <-results
			require.NoError(t, r.err)
			if first == "" {
				first = field(t, r.answer, "access_token")
			}
			require.Equal(t, first, field(t, r.answer, "access_token"))
		}
		require.Equal(t, 1, op.CountGrant("refresh_token"))
		require.Len(t, houses[0].events(audit.TokenRefreshed), 1)
		require.Len(t, houses[0].events(audit.TokenRetrieved), callers*len(houses)-1, "a row for every other caller")
		for _, h := range houses {
			_, err := h.Refresh(t.Context(), connection)
			require.NoError(t, err, "the grant is alive")
		}
	})
}

// When the provider is down, or the grant is dead, the callers of the other replicas
// hear so from the one that has asked, and do not ask each in turn.
func TestAFailedRefreshIsNotRepeatedByTheOthers(t *testing.T) {
	t.Parallel()
	for name, failed := range map[string]struct {
		answer oauthtest.Answer
		code   broker.Code
	}{
		"429":           {oauthtest.RateLimited(7 * time.Second), broker.CodeUpstreamError},
		"invalid_grant": {oauthtest.Refuse(400, "invalid_grant"), broker.CodeAttentionRequired},
		"unknown scope": {oauthtest.Refuse(400, "invalid_scope"), broker.CodeUpstreamError},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, o options) {
				houses := []*house{newHouse(t, o), newHouse(t, o)}
				op := houses[0].op
				connection := houses[0].connect(houses[0].register("google"))
				release := make(chan struct{})
				op.Always(oauthtest.Token, oauthtest.When(release, failed.answer))
				results := refreshes(t, houses, 5, connection)
				eventually(t, "the request", func() bool { return op.CountGrant("refresh_token") == 1 })
				close(release)
				for range 10 {
					e := code(t, failed.code, (<-results).err)
					switch name {
					case "429":
						require.Equal(t, 7*time.Second, e.RetryAfter)
					case "unknown scope":
						require.Equal(t, map[string]any{"provider_error": "invalid_scope"}, e.Details)
					}
				}
				require.Equal(t, 1, op.CountGrant("refresh_token"))
			})
		})
	}
}

// A replica has died while it held the refresh.
func TestARefreshOfADeadReplicaIsTakenOver(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.config = shortLease
		h := newHouse(t, o)
		connection := h.connect(h.register("google"))
		view, err := h.store.Token(t.Context(), connection)
		require.NoError(t, err)
		dead, err := h.store.ClaimRefresh(t.Context(), connection, broker.RefreshSeen{Sealed: view.Token.Sealed}, 200*time.Millisecond)
		require.NoError(t, err)
		_, err = h.Refresh(t.Context(), connection)
		require.NoError(t, err)
		require.Equal(t, 1, h.op.CountGrant("refresh_token"))
		state, err := h.store.RefreshState(t.Context(), connection)
		require.NoError(t, err)
		require.Equal(t, broker.RefreshState{Version: dead.Version + 1, Ended: dead.Version + 1}, state)
	})
}

// suspended is the store of a process that can be stopped like by SIGSTOP: what it asks
// of the database then, it asks after it was resumed.
type suspended struct {
	broker.Store
	gate atomic.Pointer[chan struct{}]
	held atomic.Int64 // how many calls are waiting
}

func (s *suspended) stop() (resume func()) {
	gate := make(chan struct{})
	s.gate.Store(&gate)
	return sync.OnceFunc(func() { s.gate.Store(nil); close(gate) })
}

func (s *suspended) wait() {
	if gate := s.gate.Load(); gate != nil {
		s.held.Add(1)
		<-*gate
	}
}

func (s *suspended) Provider(ctx context.Context, id uuid.UUID) (broker.Provider, error) {
	s.wait()
	return s.Store.Provider(ctx, id)
}

func (s *suspended) KeepRefresh(ctx context.Context, l broker.RefreshLease, ttl time.Duration) error {
	s.wait()
	return s.Store.KeepRefresh(ctx, l, ttl)
}

// A replica that is suspended before it sends its request, and wakes up after its
// lease was taken over, does not send it: the token in its hands is spent.
func TestASuspendedReplicaDoesNotBeginLate(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.config = shortLease
		two := newHouse(t, o)
		s := &suspended{}
		o.wrap = func(inner broker.Store) broker.Store { s.Store = inner; return s }
		one := newHouse(t, o)
		connection := two.connect(two.register("google"))
		resume := s.stop()
		t.Cleanup(resume)
		late := make(chan refreshed, 1)
		go func() {
			a, err := one.Refresh(t.Context(), connection)
			late <- refreshed{a, err}
		}()
		eventually(t, "it is suspended", func() bool { return s.held.Load() > 0 })
		fast, err := two.Refresh(t.Context(), connection)
		require.NoError(t, err)
		resume()
		r := <-late
		require.NoError(t, r.err)
		require.Equal(t, field(t, fast, "access_token"), field(t, r.answer, "access_token"))
		require.Equal(t, 1, two.op.CountGrant("refresh_token"))
		_, err = one.Refresh(t.Context(), connection)
		require.NoError(t, err, "the grant is alive")
	})
}

// outage is the store of a replica whose database is away.
type outage struct {
	broker.Store
	down atomic.Bool
}

func (o *outage) err() error {
	if o.down.Load() {
		return errors.New("the database is down")
	}
	return nil
}

func (o *outage) ReplaceToken(ctx context.Context, id uuid.UUID, old string, t broker.StoredToken, now time.Time, e ...audit.Event) error {
	if err := o.err(); err != nil {
		return err
	}
	return o.Store.ReplaceToken(ctx, id, old, t, now, e...)
}

func (o *outage) KeepRefresh(ctx context.Context, l broker.RefreshLease, ttl time.Duration) error {
	if err := o.err(); err != nil {
		return err
	}
	return o.Store.KeepRefresh(ctx, l, ttl)
}

// The database goes away while the provider answers, for longer than the lease. When
// it is back, whoever has the new token stores it before another replica spends the
// old one.
func TestATokenThatCouldNotBeStoredComesFirst(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.config = func(c *broker.Config) { c.RefreshLease = 2 * time.Second }
		two := newHouse(t, o)
		db := &outage{}
		o.wrap = func(inner broker.Store) broker.Store { db.Store = inner; return db }
		one := newHouse(t, o)
		connection := two.connect(two.register("google"))
		release := make(chan struct{})
		two.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
		holder := refreshes(t, []*house{one}, 1, connection)
		eventually(t, "the request", func() bool { return two.op.CountGrant("refresh_token") == 1 })
		db.down.Store(true)
		close(release)
		eventually(t, "the lease has run out", func() bool {
			state, err := two.store.RefreshState(t.Context(), connection)
			return err == nil && state.Lapsed
		})
		db.down.Store(false)
		other, err := two.Refresh(t.Context(), connection)
		require.NoError(t, err)
		r := <-holder
		require.NoError(t, r.err)
		require.Equal(t, field(t, r.answer, "access_token"), field(t, other, "access_token"))
		require.Equal(t, 1, two.op.CountGrant("refresh_token"))
	})
}

// A caller whose lease is held by another replica does not keep the process from
// ending.
func TestCloseDoesNotWaitForAnotherReplica(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"))
	view, err := h.store.Token(t.Context(), connection)
	require.NoError(t, err)
	_, err = h.store.ClaimRefresh(t.Context(), connection, broker.RefreshSeen{Sealed: view.Token.Sealed}, time.Hour)
	require.NoError(t, err)
	results := refreshes(t, []*house{h}, 1, connection)
	require.NoError(t, h.Close(t.Context()))
	code(t, broker.CodeShuttingDown, (<-results).err)
}

// A refresh that takes longer than a lease is not taken over while its replica lives.
func TestAnotherReplicaWaitsForALivingOne(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.config = func(c *broker.Config) { c.RefreshLease = 2 * time.Second }
		one, two := newHouse(t, o), newHouse(t, o)
		connection := one.connect(one.register("google"))
		release := make(chan struct{})
		one.op.Always(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
		results := refreshes(t, []*house{one, two}, 1, connection)
		time.Sleep(5 * time.Second) // a lease and its grace, and then some
		close(release)
		for range 2 {
			require.NoError(t, (<-results).err)
		}
		require.Equal(t, 1, one.op.CountGrant("refresh_token"))
	})
}

// Many who need a token that lasts cause one refresh, also those who have looked at the
// stored token before it was replaced and ask for the refresh afterwards.
func TestManyWhoNeedALastingToken(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.provider = oauthtest.Options{AccessTokenTTL: 10 * time.Minute}
		one := newHouse(t, o)
		late := &behind{}
		o.wrap = func(inner broker.Store) broker.Store { late.Store = inner; return late }
		two := newHouse(t, o)
		connection := one.connect(one.register("google"))
		stale, err := one.store.Token(t.Context(), connection)
		require.NoError(t, err)
		fresh, err := one.TokenLasting(t.Context(), connection, 20*time.Minute)
		require.NoError(t, err)
		late.first.Store(&stale)
		a, err := two.TokenLasting(t.Context(), connection, 20*time.Minute)
		require.NoError(t, err)
		require.Equal(t, field(t, fresh, "access_token"), field(t, a, "access_token"))
		require.Equal(t, 1, one.op.CountGrant("refresh_token"))
	})
}

// behind is a store whose caller has looked at the token long ago.
type behind struct {
	broker.Store
	first atomic.Pointer[broker.TokenView]
}

func (b *behind) Token(ctx context.Context, id uuid.UUID) (broker.TokenView, error) {
	if stale := b.first.Swap(nil); stale != nil {
		return *stale, nil
	}
	return b.Store.Token(ctx, id)
}

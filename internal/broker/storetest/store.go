package storetest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

var storeTests = []test{
	{"a lease is held by one until it runs out", func(s *suite) {
		lease := func(name, holder string, ttl time.Duration) bool {
			s.Helper()
			ok, err := s.store.Lease(s.ctx, name, holder, ttl)
			require.NoError(s, err)
			return ok
		}
		require.True(s, lease("sweep", "a", time.Minute))
		require.False(s, lease("sweep", "b", time.Minute))
		require.True(s, lease("sweep", "a", time.Minute), "renewed")
		require.False(s, lease("sweep", "b", 0))
		require.True(s, lease("sweep", "a", 0), "given back")
		require.True(s, lease("sweep", "b", time.Minute), "taken over")
		require.False(s, lease("sweep", "a", time.Minute))
		require.True(s, lease("prune", "a", time.Minute))
	}},
	{"what lasts runs out by itself, and not before", testRunsOut},
	{"it answers", func(s *suite) { require.NoError(s, s.store.Ping(s.ctx)) }},
	{"a context that has ended is an error of the context", testEndedContext},
}

func testEndedContext(s *suite) {
	p := s.publish()
	c, token := s.active(p.ID)
	op := s.newOp(broker.OpUpdate)
	cancelled, cancel := context.WithCancelCause(s.ctx)
	cancel(errors.New("the caller has gone"))
	late, stop := context.WithDeadline(s.ctx, time.Now().Add(-time.Second))
	defer stop()
	for _, ctx := range []context.Context{cancelled, late} {
		e := s.newEvent(audit.TokenRetrieved, c.ID)
		for name, call := range map[string]func() error{
			"Ping":             func() error { return s.store.Ping(ctx) },
			"Provider":         func() error { _, err := s.store.Provider(ctx, p.ID); return err },
			"Providers":        func() error { _, err := broker.All(s.store.Providers(ctx, broker.Page{})); return err },
			"ReserveProvider":  func() error { return s.store.ReserveProvider(ctx, s.newProvider(), s.newOp(broker.OpRegister)) },
			"BeginOp":          func() error { _, err := s.store.BeginOp(ctx, p.ID, op, true); return err },
			"EndOp":            func() error { return s.store.EndOp(ctx, p.ID, op, credentials.Ready, 1) },
			"KeepOp":           func() error { return s.store.KeepOp(ctx, p.ID, op) },
			"CreateConnection": func() error { return s.store.CreateConnection(ctx, c, e) },
			"ReadToken":        func() error { _, err := s.store.ReadToken(ctx, c.ID, e); return err },
			"ReplaceToken":     func() error { return s.store.ReplaceToken(ctx, c.ID, token.Sealed, broker.StoredToken{}, s.now, e) },
			"Record":           func() error { return s.store.Record(ctx, e, e) },
			"AuditEvents":      func() error { _, err := broker.All(s.store.AuditEvents(ctx, audit.Filter{})); return err },
			"Lease":            func() error { _, err := s.store.Lease(ctx, "x", "y", time.Hour); return err },
		} {
			require.ErrorIs(s, call(), ctx.Err(), name)
		}
	}
	s.equalProvider(p, s.provider(p.ID))
	require.Equal(s, token, s.token(c.ID))
	require.Empty(s, s.events(audit.TokenRetrieved))
}

// testRunsOut waits for each thing that lasts.
func testRunsOut(s *suite) {
	const ttl, early = 300 * time.Millisecond, 250 * time.Millisecond // no two clocks run alike
	began := time.Now()
	p, op := s.publish(), s.newOp(broker.OpUpdate)
	op.TTL = ttl
	_, err := s.store.BeginOp(s.ctx, p.ID, op, false)
	require.NoError(s, err)
	kept := s.publish()
	op.ID = uuid.New()
	_, err = s.store.BeginOp(s.ctx, kept.ID, broker.Op{ID: op.ID, Kind: op.Kind}, false)
	require.NoError(s, err)
	require.NoError(s, s.store.KeepOp(s.ctx, kept.ID, op))
	reserved := s.newProvider()
	require.NoError(s, s.store.ReserveProvider(s.ctx, reserved, broker.Op{ID: uuid.New(), Kind: broker.OpRegister, TTL: ttl}))
	place := func(c broker.Cleanup) func() error {
		return func() error {
			_, err := s.store.ClaimCleanupsAt(s.ctx, c.Backend, c.Key, time.Minute)
			return err
		}
	}
	claimed := s.addCleanup(func(c *broker.Cleanup) { c.Wait = time.Hour })
	_, err = s.store.ClaimCleanupsAt(s.ctx, claimed.Backend, claimed.Key, ttl)
	require.NoError(s, err)
	postponed := s.addCleanup(func(c *broker.Cleanup) { c.Wait = time.Hour })
	require.NoError(s, s.store.PostponeCleanup(s.ctx, postponed.ID, ttl, "x"))
	_, err = s.store.Lease(s.ctx, "sweep", "a", ttl)
	require.NoError(s, err)

	begin := func(p broker.Provider) func() error {
		return func() error {
			_, err := s.store.BeginOp(s.ctx, p.ID, s.newOp(broker.OpRepair), false)
			return err
		}
	}
	due := func(c broker.Cleanup) func() error {
		return func() error {
			list, err := s.store.ClaimCleanups(s.ctx, 0, 10)
			if err == nil && !slices.Contains(cleanupIDs(list), c.ID) {
				err = broker.ErrBusy
			}
			return err
		}
	}
	for name, try := range map[string]func() error{
		"an operation": begin(p), "one that was prolonged": begin(kept), "a reservation": begin(reserved),
		"a claim of a place":     place(claimed),
		"a claim that is stored": place(s.addCleanup(func(c *broker.Cleanup) { c.Wait, c.Claim = time.Hour, ttl })),
		"a wait":                 due(s.addCleanup(func(c *broker.Cleanup) { c.Wait = ttl })),
		"a wait that is noted":   due(postponed),
		"a lease": func() error {
			mine, err := s.store.Lease(s.ctx, "sweep", "b", time.Minute)
			if err == nil && !mine {
				err = broker.ErrBusy
			}
			return err
		},
	} {
		for err := try(); err != nil; err = try() {
			require.ErrorIs(s, err, broker.ErrBusy, name)
			require.Less(s, time.Since(began), 30*time.Second, name)
			time.Sleep(10 * time.Millisecond)
		}
		require.GreaterOrEqual(s, time.Since(began), early, name)
	}
}

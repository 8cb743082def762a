package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

var storeTests = []test{
	{"a lease is held by one until it runs out", func(s *suite) {
		lease := func(holder string, now time.Time) bool {
			s.Helper()
			ok, err := s.store.Lease(s.ctx, "sweep", holder, now, time.Minute)
			require.NoError(s, err)
			return ok
		}
		require.True(s, lease("a", s.now))
		require.False(s, lease("b", s.now))
		require.True(s, lease("a", s.now.Add(30*time.Second)), "renewed")
		require.False(s, lease("b", s.now.Add(89*time.Second)))
		require.True(s, lease("b", s.now.Add(90*time.Second)), "taken over")
		require.False(s, lease("a", s.now.Add(91*time.Second)))
		other, err := s.store.Lease(s.ctx, "prune", "a", s.now, time.Minute)
		require.NoError(s, err)
		require.True(s, other)
	}},
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
			"BeginOp":          func() error { _, err := s.store.BeginOp(ctx, p.ID, op, s.now, true); return err },
			"EndOp":            func() error { return s.store.EndOp(ctx, p.ID, op, credentials.Ready, 1) },
			"KeepOp":           func() error { return s.store.KeepOp(ctx, p.ID, op) },
			"CreateConnection": func() error { return s.store.CreateConnection(ctx, c, e) },
			"ReadToken":        func() error { _, err := s.store.ReadToken(ctx, c.ID, e); return err },
			"ReplaceToken":     func() error { return s.store.ReplaceToken(ctx, c.ID, token.Sealed, broker.StoredToken{}, s.now, e) },
			"Record":           func() error { return s.store.Record(ctx, e, e) },
			"AuditEvents":      func() error { _, err := broker.All(s.store.AuditEvents(ctx, audit.Filter{})); return err },
			"Lease":            func() error { _, err := s.store.Lease(ctx, "x", "y", s.now, time.Hour); return err },
		} {
			require.ErrorIs(s, call(), ctx.Err(), name)
		}
	}
	s.equalProvider(p, s.provider(p.ID))
	require.Equal(s, token, s.token(c.ID))
	require.Empty(s, s.events(audit.TokenRetrieved))
}

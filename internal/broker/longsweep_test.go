package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// slowly is a store at which each step of a sweep takes long, by the database's clock.
type slowly struct {
	broker.Store
	h     *house
	steps int
}

// step is more than half as long as the lease. Nobody else gets it meanwhile.
func (s *slowly) step(ctx context.Context) {
	s.steps++
	s.h.pass(8 * time.Second)
	taken, err := s.Lease(ctx, "sweep", "another replica", 0)
	require.NoError(s.h.t, err)
	require.False(s.h.t, taken, "step %d", s.steps)
}

func (s *slowly) BeginOp(ctx context.Context, id uuid.UUID, op broker.Op, incomplete bool) (broker.Provider, error) {
	if op.Kind == broker.OpRepair {
		s.step(ctx)
	}
	return s.Store.BeginOp(ctx, id, op, incomplete)
}

func (s *slowly) DetachCredentials(ctx context.Context, id uuid.UUID, c broker.Cleanup) error {
	s.step(ctx)
	return s.Store.DetachCredentials(ctx, id, c)
}

// A sweep that takes long, because a vault does not answer, keeps its lease.
func TestALongSweepIsNotJoinedByAnotherReplica(t *testing.T) {
	t.Parallel()
	s := &slowly{}
	h := newHouse(t, options{internal: true, wrap: func(inner broker.Store) broker.Store { s.Store = inner; return s }})
	s.h = h
	var connections []uuid.UUID
	for range 3 {
		id := h.register(uuid.NewString())
		connections = append(connections, h.connect(id))
		require.NoError(t, h.DeleteProvider(t.Context(), id))
		h.cutUpdate(h.register(uuid.NewString()))
	}
	for _, id := range connections {
		require.NoError(t, h.store.SetStatus(t.Context(), id, broker.StatusActive, broker.StatusAttention, time.Now()))
	}
	s.steps = 0
	h.SweepOnce(t.Context())
	require.Equal(t, 6, s.steps)
}

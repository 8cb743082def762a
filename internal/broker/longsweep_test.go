package broker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// slowly is a store at which each step of a sweep takes long, by the clock of the test.
type slowly struct {
	broker.Store
	t       *testing.T
	elapsed atomic.Int64 // nanoseconds
	steps   int
}

func (s *slowly) now() time.Time { return time.Now().Add(time.Duration(s.elapsed.Load())) }

// step is more than half as long as the lease. Nobody else gets it meanwhile.
func (s *slowly) step(ctx context.Context) {
	s.steps++
	s.elapsed.Add(int64(8 * time.Second))
	taken, err := s.Lease(ctx, "sweep", "another replica", s.now().UTC(), 0)
	require.NoError(s.t, err)
	require.False(s.t, taken, "step %d", s.steps)
}

func (s *slowly) BeginOp(ctx context.Context, id uuid.UUID, op broker.Op, now time.Time, incomplete bool) (broker.Provider, error) {
	if op.Kind == broker.OpRepair {
		s.step(ctx)
	}
	return s.Store.BeginOp(ctx, id, op, now, incomplete)
}

func (s *slowly) DetachCredentials(ctx context.Context, id uuid.UUID, c broker.Cleanup) error {
	s.step(ctx)
	return s.Store.DetachCredentials(ctx, id, c)
}

// A sweep that takes long, because a vault does not answer, keeps its lease.
func TestALongSweepIsNotJoinedByAnotherReplica(t *testing.T) {
	s := &slowly{t: t}
	h := newHouse(t, options{internal: true, now: s.now, wrap: func(inner broker.Store) broker.Store { s.Store = inner; return s }})
	var connections []uuid.UUID
	for range 3 {
		id := h.register(uuid.NewString())
		connections = append(connections, h.connect(id))
		require.NoError(t, h.DeleteProvider(t.Context(), id))
		h.cutUpdate(h.register(uuid.NewString()))
	}
	for _, id := range connections {
		require.NoError(t, h.store.SetStatus(t.Context(), id, broker.StatusActive, broker.StatusAttention, s.now()))
	}
	s.steps = 0
	h.SweepOnce(t.Context())
	require.Equal(t, 6, s.steps)
}

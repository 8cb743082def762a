package broker_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// A registration that was paused for longer than its claim lasts writes its values after
// the sweep has cleared its reservation away. They go, and the name is free.
func TestARegistrationThatHasLostItsClaimLeavesNothing(t *testing.T) {
	t.Parallel()
	o := options{path: filepath.Join(t.TempDir(), "broker.db"), vault: memory.NewFaulty(memory.New())}
	h := newHouse(t, o)
	other := newHouse(t, o)
	var once sync.Once
	h.vault.Before(func(ctx context.Context, c memory.Call) error {
		if c.Op == memory.OpCreate {
			once.Do(func() {
				other.pass(time.Hour)
				other.SweepOnce(context.WithoutCancel(ctx))
			})
		}
		return nil
	})
	_, err := h.Register(t.Context(), h.profile("google"))
	require.ErrorIs(t, err, broker.ErrLostOp)
	require.Equal(t, clientSecret, h.inVault("google/client_secret"), "the reservation was not lost in time")
	other.pass(time.Hour)
	other.SweepOnce(t.Context())
	require.Empty(t, h.inVault("google/client_id"))
	require.Empty(t, h.inVault("google/client_secret"))
	h.connect(h.register("google"))
}

// Whoever is turned away by an outage does not keep the place from others once it is over.
func TestAPlaceIsGivenBackAfterAnOutage(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.vault.Fail(errDown)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	_, err := h.Register(t.Context(), h.profile("google"))
	code(t, broker.CodeSecretBackendUnavailable, err)
	h.vault.Fail(nil)
	h.connect(h.register("google"))
}

// The pair of a deletion that did not take place has been copied aside. Nothing keeps the
// next attempt from the place, and nothing is left there.
func TestADeletionThatFailedCanBeRepeated(t *testing.T) {
	t.Parallel()
	u := &unsure{cut: true}
	h := newHouse(t, options{internal: true, wrap: func(s broker.Store) broker.Store { u.Store = s; return u }})
	id := h.register("google")
	u.method = "delete"
	require.ErrorIs(t, h.DeleteProvider(t.Context(), id), errReset)
	require.Len(t, h.events(audit.CredentialsDeleted), 2, "the copy")
	require.NoError(t, h.DeleteProvider(t.Context(), id))
}

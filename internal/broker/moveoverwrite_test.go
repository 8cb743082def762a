package broker_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// An overwriting that fails half way puts back what it has overwritten. Even if the process
// then dies before it has told anybody, the sweep deletes nothing of somebody else's.
func TestWhatOverwritingPutsBackStays(t *testing.T) {
	t.Parallel()
	for _, mark := range []string{"", "another-tool"} {
		t.Run("mark "+mark, func(t *testing.T) {
			k := &keptNotes{}
			h := newHouse(t, options{internal: true, wrap: func(s broker.Store) broker.Store { k.Store = s; return k }})
			id := h.register("google")
			for _, key := range []string{"google/client_id", "google/client_secret"} {
				if mark == "" {
					require.NoError(t, h.vault.Set(t.Context(), key, "theirs"))
				} else {
					_, err := h.vault.Create(t.Context(), key, "theirs", mark)
					require.NoError(t, err)
				}
			}
			h.vault.Before(func(_ context.Context, c memory.Call) error {
				if c.Op == memory.OpReplace && c.Key == "google/client_secret" {
					return fmt.Errorf("no: %w", secret.ErrDenied)
				}
				return nil
			})
			o := outwards
			o.Overwrite = true
			k.keep.Store(true)
			moved(t, h.Migrate, o, id, broker.MoveFailed)
			k.keep.Store(false)
			h.vault.Before(nil)
			require.NotZero(t, h.pendingCleanups(), "the note is still there")

			h.pass(time.Hour)
			h.SweepOnce(t.Context())
			require.Zero(t, h.pendingCleanups())
			require.Equal(t, "theirs", h.inVault("google/client_id"))
			require.Equal(t, "theirs", h.inVault("google/client_secret"))
			moved(t, h.Migrate, outwards, id, broker.MoveConflict)
			moved(t, h.Migrate, o, id, broker.MoveCopied)
			require.Equal(t, clientID, h.inVault("google/client_id"))
		})
	}
}

// A process that dies when it has overwritten a target, and before the row names it, leaves
// a copy there: the sweep deletes it, unless somebody has run the move again.
func TestAnOverwritingThatIsCutOffLeavesNothing(t *testing.T) {
	t.Parallel()
	path, vault := t.TempDir()+"/broker.db", memory.NewFaulty(memory.New())
	one := newHouse(t, options{internal: true, path: path, vault: vault})
	id := one.register("google")
	require.NoError(t, vault.Set(t.Context(), "google/client_id", "theirs"))
	require.NoError(t, vault.Set(t.Context(), "google/client_secret", "theirs"))
	vault.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpReplace && c.Key == "google/client_secret" { // it is no more
			vault.Fail(errDown)
			return one.store.Close()
		}
		return nil
	})
	o := outwards
	o.Overwrite, o.Patience = true, time.Millisecond
	_, err := moving(t, one.Migrate, o)
	require.Error(t, err)
	vault.After(nil)
	vault.Fail(nil)
	require.Equal(t, clientSecret, one.inVault("google/client_secret"), "nothing is left: the test proves nothing")

	two := newHouse(t, options{internal: true, path: path, vault: vault})
	two.pass(time.Hour)
	two.SweepOnce(t.Context())
	require.NotEqual(t, clientID, two.inVault("google/client_id"))
	require.NotEqual(t, clientSecret, two.inVault("google/client_secret"))
	require.Equal(t, credentials.Internal, two.provider(id).Credentials.Backend)
	o.Patience = outwards.Patience
	moved(t, two.Migrate, o, id, broker.MoveCopied)
	require.Equal(t, clientSecret, two.inVault("google/client_secret"))
}

// keptNotes is a store that, while keep is set, drops no note: the process that wanted to
// is dead.
type keptNotes struct {
	broker.Store
	keep atomic.Bool
}

func (k *keptNotes) FinishCleanup(ctx context.Context, id uuid.UUID, events ...audit.Event) error {
	if k.keep.Load() {
		return nil
	}
	return k.Store.FinishCleanup(ctx, id, events...)
}

// Of a pair of which one value is the broker's the other is still somebody else's.
func TestHalfAPairOfSomebodyElseIsAConflict(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google")
	_, err := h.vault.Create(t.Context(), "google/client_id", clientID, credentials.Owner{ProviderID: id, Generation: 1}.String())
	require.NoError(t, err)
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", "theirs"))
	moved(t, h.Migrate, outwards, id, broker.MoveConflict)
	require.Equal(t, "theirs", h.inVault("google/client_secret"))
}

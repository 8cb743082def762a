package broker_test

import (
	"context"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// A provider is renamed, rotated or deleted while it is moved: the change comes before the
// move or after it, and neither loses the other.
func TestChangesDuringAMove(t *testing.T) {
	t.Parallel()
	patch := func(in broker.ProfileInput) func(*house, uuid.UUID) error {
		return func(h *house, id uuid.UUID) error { return h.PatchProvider(context.Background(), id, in) }
	}
	for name, change := range map[string]func(*house, uuid.UUID) error{
		"renamed": patch(broker.ProfileInput{Name: broker.Given("renamed")}),
		"rotated": patch(broker.ProfileInput{ClientSecret: text("rotated")}),
		"deleted": func(h *house, id uuid.UUID) error { return h.DeleteProvider(context.Background(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{}) // it writes to the vault, as after the switch
			id := h.register("google")
			moved(t, h.Migrate, inwards, id, broker.MoveCopied)
			moved(t, h.Scrub, inwards, id, broker.MoveDeleted)
			var once sync.Once
			changed := make(chan error, 1)
			h.vault.Before(func(_ context.Context, c memory.Call) error {
				if c.Op == memory.OpCreate {
					once.Do(func() { go func() { changed <- change(h, id) }() })
				}
				return nil
			})
			_, err := moving(t, h.Migrate, outwards)
			require.NoError(t, err)
			require.NoError(t, <-changed)
			h.vault.Before(nil)
			switch p, err := h.store.Provider(t.Context(), id); name {
			case "deleted":
				require.True(t, err != nil || p.Deleted())
				require.Empty(t, h.inVault("google/client_secret"))
			case "renamed":
				require.NoError(t, err)
				require.Equal(t, vaultName, p.Credentials.Backend)
				require.Equal(t, clientSecret, h.inVault("renamed/client_secret"))
				h.connect(id)
			case "rotated":
				require.NoError(t, err)
				require.Equal(t, vaultName, p.Credentials.Backend)
				require.Equal(t, "rotated", h.inVault("google/client_secret"))
			}
		})
	}
}

// Two migrations at once share the work: each provider is moved once.
func TestTwoMigrationsAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	var ids []uuid.UUID
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		ids = append(ids, h.register(name))
	}
	var both sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[uuid.UUID][]broker.MoveOutcome{}
	errs := make([]error, 2)
	for i := range errs {
		both.Go(func() {
			o := outwards
			o.Report = func(r broker.MoveResult) {
				mu.Lock()
				defer mu.Unlock()
				outcomes[r.ProviderID] = append(outcomes[r.ProviderID], r.Outcome)
			}
			errs[i] = h.Migrate(context.Background(), o)
		})
	}
	both.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	for _, id := range ids {
		require.ElementsMatch(t, []broker.MoveOutcome{broker.MoveCopied, broker.MoveSkipped}, outcomes[id])
		require.Equal(t, vaultName, h.provider(id).Credentials.Backend)
	}
	left, err := h.CountLeft(t.Context(), credentials.Internal)
	require.NoError(t, err)
	require.Equal(t, len(ids), left)
}

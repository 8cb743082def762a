package broker_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// Two replicas whose clocks are five minutes apart do each other's work: what one has
// begun the other completes, whichever of them is ahead.
func TestReplicasWhoseClocksDiffer(t *testing.T) {
	path, vault := filepath.Join(t.TempDir(), "broker.db"), memory.NewFaulty(memory.New())
	replica := func(offset time.Duration) *house {
		return newHouse(t, options{path: path, vault: vault, ttl: time.Minute, now: func() time.Time { return time.Now().Add(offset) }})
	}
	right := replica(0)
	for name, wrong := range map[string]*house{"ahead": replica(5 * time.Minute), "behind": replica(-5 * time.Minute)} {
		t.Run(name, func(t *testing.T) {
			for _, order := range []struct{ first, second *house }{{right, wrong}, {wrong, right}} {
				id := order.first.register("google")
				require.NoError(t, order.second.PatchProvider(t.Context(), id, broker.ProfileInput{Description: broker.Given("x")}))
				to, err := order.second.Complete(t.Context(), order.first.agree(order.first.begin(id)))
				require.NoError(t, err)
				connection := connectionIn(t, to.URL)
				for _, h := range []*house{order.first, order.second, order.first} {
					fresh, err := h.Refresh(t.Context(), connection)
					require.NoError(t, err)
					stored, err := order.second.Token(t.Context(), connection)
					require.NoError(t, err)
					require.Equal(t, field(t, fresh, "access_token"), field(t, stored, "access_token"))
				}
				require.NoError(t, order.first.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("renamed")}))
				require.NoError(t, order.second.DeleteProvider(t.Context(), id))
				require.Empty(t, right.inVault("google/client_secret")+right.inVault("renamed/client_secret"))
			}
		})
	}
	require.Empty(t, right.events(audit.StateVerificationFailed))
}

package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// outageAt makes the vault go down at the nth replacement, before that takes place.
func (h *house) outageAt(nth int) {
	n := 0
	h.vault.Before(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpReplace {
			n++
		}
		if n >= nth {
			return errDown
		}
		return nil
	})
}

var bothNew = broker.ProfileInput{ClientID: text("new-id"), ClientSecret: text("new-secret")}

// TestTheSweepFindsAPairWhole: the vault went down in the middle of an update, and nobody
// could tell whether anything was written. Nothing was.
func TestTheSweepFindsAPairWhole(t *testing.T) {
	h := newHouse(t, options{})
	id := h.register("google")
	h.outageAt(1)
	code(t, broker.CodeSecretBackendUnavailable, h.PatchProvider(t.Context(), id, bothNew))
	require.Equal(t, credentials.Incomplete, h.provider(id).Credentials.State)
	h.SweepOnce(t.Context())
	require.Equal(t, credentials.Incomplete, h.provider(id).Credentials.State, "the vault is still down")

	h = newHouse(t, options{})
	id = h.register("google")
	h.outageAt(1)
	code(t, broker.CodeSecretBackendUnavailable, h.PatchProvider(t.Context(), id, bothNew))
	h.vault.Before(nil)
	h.SweepOnce(t.Context())
	require.Equal(t, credentials.Ready, h.provider(id).Credentials.State)
	require.Equal(t, clientID, h.inVault("google/client_id"))
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	require.NoError(t, h.PatchProvider(t.Context(), id, bothNew))
}

// TestATornPairStaysIncomplete: an attempt to repair it that is cut off before it has
// written anything does not make it whole.
func TestATornPairStaysIncomplete(t *testing.T) {
	h := newHouse(t, options{})
	id := h.register("google")
	h.outageAt(2)
	code(t, broker.CodeSecretBackendUnavailable, h.PatchProvider(t.Context(), id, bothNew))
	h.vault.Before(nil)
	require.Equal(t, "new-id", h.inVault("google/client_id"))
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	for range 2 {
		h.SweepOnce(t.Context())
		require.Equal(t, credentials.Incomplete, h.provider(id).Credentials.State)
		_, err := h.store.BeginOp(t.Context(), id,
			broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, Until: time.Now().Add(-time.Second)}, time.Now(), true)
		require.NoError(t, err, "the repair that is cut off")
	}
	// Whoever repairs it need not wait for the sweep.
	require.NoError(t, h.PatchProvider(t.Context(), id, bothNew))
	require.Equal(t, credentials.Ready, h.provider(id).Credentials.State)
	require.Equal(t, "new-secret", h.inVault("google/client_secret"))
}

// TestATornPairThatIsRenamedStaysIncomplete: the copy has one mark for both values, which
// proves nothing.
func TestATornPairThatIsRenamedStaysIncomplete(t *testing.T) {
	h := newHouse(t, options{})
	id := h.tear()
	h.SweepOnce(t.Context())
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("renamed")}))
	require.Equal(t, "new-id", h.inVault("renamed/client_id"))
	require.Equal(t, clientSecret, h.inVault("renamed/client_secret"))
	h.SweepOnce(t.Context())
	require.Equal(t, credentials.Incomplete, h.provider(id).Credentials.State)
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("again"), ClientSecret: text("new-secret")}))
	require.Equal(t, credentials.Ready, h.provider(id).Credentials.State)
}

// tear leaves a provider whose update was cut off between the two values.
func (h *house) tear() uuid.UUID {
	h.t.Helper()
	id := h.register("google")
	h.outageAt(2)
	code(h.t, broker.CodeSecretBackendUnavailable, h.PatchProvider(h.t.Context(), id, bothNew))
	h.vault.Before(nil)
	return id
}

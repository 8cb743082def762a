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
	t.Parallel()
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
	t.Parallel()
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
			broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: -time.Second}, true)
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
	t.Parallel()
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

// cutUpdate leaves a claim of an update that was killed before it has written anything.
func (h *house) cutUpdate(id uuid.UUID) {
	h.t.Helper()
	ended := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: -time.Second}
	_, err := h.store.BeginOp(h.t.Context(), id, ended, true)
	require.NoError(h.t, err)
}

// TestTheMarksAreLookedAtBeforeAnythingElse: whatever comes to a provider whose update was
// cut off first finds out whether its pair is whole, which nobody would afterwards.
func TestTheMarksAreLookedAtBeforeAnythingElse(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(h *house, id uuid.UUID){
		"a description": func(h *house, id uuid.UUID) {
			require.NoError(h.t, h.PatchProvider(h.t.Context(), id, broker.ProfileInput{Description: broker.Given("x")}))
		},
		"a move": func(h *house, _ uuid.UUID) {
			require.Equal(h.t, []broker.MoveOutcome{broker.MoveCopied}, h.moveTo(credentials.Internal))
		},
		"a scrub": func(h *house, id uuid.UUID) {
			require.Equal(h.t, []broker.MoveOutcome{broker.MoveCopied}, h.moveTo(credentials.Internal))
			h.cutUpdate(id)
			var outcomes []broker.MoveOutcome
			require.NoError(h.t, h.Scrub(h.t.Context(), broker.MoveOptions{From: vaultName, Patience: time.Second,
				Report: func(r broker.MoveResult) { outcomes = append(outcomes, r.Outcome) }}))
			require.Equal(h.t, []broker.MoveOutcome{broker.MoveDeleted}, outcomes)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			id := h.register("google")
			h.cutUpdate(id)
			do(h, id)
			require.Equal(t, credentials.Ready, h.provider(id).Credentials.State)
		})
	}
	h := newHouse(t, options{})
	id := h.tear()
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Description: broker.Given("x")}))
	require.Equal(t, credentials.Incomplete, h.provider(id).Credentials.State, "it is torn")
}

func (h *house) moveTo(backend string) (outcomes []broker.MoveOutcome) {
	h.t.Helper()
	require.NoError(h.t, h.Migrate(h.t.Context(), broker.MoveOptions{From: vaultName, To: backend, Patience: time.Second,
		Report: func(r broker.MoveResult) { outcomes = append(outcomes, r.Outcome) }}))
	return outcomes
}

// TestAnOutageDoesNotKeepAProviderBusy: a sweep that cannot read the marks leaves the provider
// to whoever comes when the vault is back. Until then nothing is changed that would hide
// what is still to be found out.
func TestAnOutageDoesNotKeepAProviderBusy(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.outageAt(1)
	code(t, broker.CodeSecretBackendUnavailable, h.PatchProvider(t.Context(), id, bothNew))
	h.SweepOnce(t.Context())
	e := code(t, broker.CodeSecretBackendUnavailable,
		h.PatchProvider(t.Context(), id, broker.ProfileInput{Description: broker.Given("x")}))
	require.NotZero(t, e.RetryAfter)
	h.vault.Before(nil)
	require.NoError(t, h.PatchProvider(t.Context(), id, bothNew))
	require.Equal(t, credentials.Ready, h.provider(id).Credentials.State)

	id = h.register("another")
	h.outageAt(1)
	code(t, broker.CodeSecretBackendUnavailable, h.PatchProvider(t.Context(), id, bothNew))
	h.SweepOnce(t.Context())
	require.NoError(t, h.DeleteProvider(t.Context(), id), "which needs no vault")
}

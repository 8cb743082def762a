package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

var (
	outwards = broker.MoveOptions{From: credentials.Internal, To: vaultName, Patience: 10 * time.Second}
	inwards  = broker.MoveOptions{From: vaultName, To: credentials.Internal, Patience: 10 * time.Second}
)

// moving runs a part of a move and returns the results by provider.
func moving(t *testing.T, do func(context.Context, broker.MoveOptions) error, o broker.MoveOptions) (map[uuid.UUID]broker.MoveResult, error) {
	t.Helper()
	all := map[uuid.UUID]broker.MoveResult{}
	o.Report = func(r broker.MoveResult) {
		require.NotContains(t, r.Detail, clientSecret)
		require.NotContains(t, all, r.ProviderID, "reported once")
		all[r.ProviderID] = r
	}
	err := do(t.Context(), o)
	return all, err
}

func moved(t *testing.T, do func(context.Context, broker.MoveOptions) error, o broker.MoveOptions, id uuid.UUID, want broker.MoveOutcome) broker.MoveResult {
	t.Helper()
	all, err := moving(t, do, o)
	require.NoError(t, err)
	require.Equal(t, want, all[id].Outcome, "%+v", all[id])
	return all[id]
}

func (h *house) sealed(key string) bool {
	h.t.Helper()
	_, found, err := h.store.SealedRow(h.t.Context(), key)
	require.NoError(h.t, err)
	return found
}

// The whole way: dry run, migrate, verify, scrub; and a flow after each step.
func TestCredentialsMoveToTheVault(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.internal = true
		h := newHouse(t, o)
		id := h.register("google")
		connection := h.connect(id)
		dry := outwards
		dry.DryRun = true
		moved(t, h.Migrate, dry, id, broker.MoveCopied)
		require.Empty(t, h.inVault("google/client_secret"))
		require.Equal(t, credentials.Internal, h.provider(id).Credentials.Backend)

		moved(t, h.Migrate, outwards, id, broker.MoveCopied)
		require.Equal(t, clientSecret, h.inVault("google/client_secret"))
		require.Equal(t, vaultName, h.provider(id).Credentials.Backend)
		require.True(t, h.sealed("google/client_secret"), "the source is kept")
		require.Len(t, h.events(audit.CredentialsMigrated), 1)
		_, err := h.Refresh(t.Context(), connection)
		require.NoError(t, err)

		h.SweepOnce(t.Context())
		require.True(t, h.sealed("google/client_secret"), "also by the sweep")
		moved(t, h.Migrate, outwards, id, broker.MoveSkipped)
		moved(t, h.VerifyMoved, outwards, id, broker.MoveEqual)
		moved(t, h.Scrub, dry, id, broker.MoveDeleted)
		require.True(t, h.sealed("google/client_secret"))
		moved(t, h.Scrub, outwards, id, broker.MoveDeleted)
		require.False(t, h.sealed("google/client_secret"))
		require.False(t, h.sealed("google/client_id"))
		left, err := h.CountLeft(t.Context(), credentials.Internal)
		require.NoError(t, err)
		require.Zero(t, left)
		h.connect(id)
	})
}

// Back again, before and after the source was scrubbed.
func TestCredentialsMoveBack(t *testing.T) {
	t.Parallel()
	for _, scrubbed := range []bool{false, true} {
		t.Run(fmt.Sprintf("scrubbed %t", scrubbed), func(t *testing.T) {
			h := newHouse(t, options{})
			id := h.register("google")
			moved(t, h.Migrate, inwards, id, broker.MoveCopied)
			if scrubbed {
				moved(t, h.Scrub, inwards, id, broker.MoveDeleted)
				require.Empty(t, h.inVault("google/client_id"))
			}
			moved(t, h.Migrate, outwards, id, broker.MoveCopied)
			p := h.provider(id)
			require.Equal(t, vaultName, p.Credentials.Backend)
			require.True(t, p.Credentials.Managed)
			left, err := h.CountLeft(t.Context(), vaultName)
			require.NoError(t, err)
			require.Zero(t, left, "what is in use again is not left behind")
			h.SweepOnce(t.Context())
			moved(t, h.Scrub, outwards, id, broker.MoveDeleted)
			h.connect(id)
		})
	}
}

func TestWhatTheTargetHoldsAlready(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	set := func(name, key, value string) {
		require.NoError(t, h.vault.Set(t.Context(), name+"/"+key, value))
	}
	same, other := h.register("same"), h.register("other")
	set("same", "client_id", clientID)
	set("same", "client_secret", clientSecret)
	set("other", "client_id", "somebody else's")
	dry := outwards
	dry.DryRun = true
	for _, o := range []broker.MoveOptions{dry, outwards} {
		all, err := moving(t, h.Migrate, o)
		require.NoError(t, err)
		require.Equal(t, broker.MoveAdopted, all[same].Outcome)
		require.Equal(t, broker.MoveConflict, all[other].Outcome)
	}
	require.False(t, h.provider(same).Credentials.Managed, "they stay somebody else's")
	require.Equal(t, credentials.Internal, h.provider(other).Credentials.Backend)
	require.Equal(t, "somebody else's", h.inVault("other/client_id"))
	require.Empty(t, h.inVault("other/client_secret"))

	o := outwards
	o.Overwrite = true
	moved(t, h.Migrate, o, other, broker.MoveCopied)
	require.Equal(t, clientID, h.inVault("other/client_id"))
	h.connect(other)
	moved(t, h.Scrub, outwards, same, broker.MoveDeleted)
	require.NoError(t, h.DeleteProvider(t.Context(), same))
	require.Equal(t, clientSecret, h.inVault("same/client_secret"))
}

// TestHalfOfWhatTheTargetHoldsIsOurs: the other half is not overwritten unasked.
func TestHalfOfWhatTheTargetHoldsIsOurs(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google")
	_, err := h.vault.Create(t.Context(), "google/client_id", clientID, credentials.Owner{ProviderID: id, Generation: 1}.String())
	require.NoError(t, err)
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", "somebody else's"))
	dry := outwards
	dry.DryRun = true
	for _, o := range []broker.MoveOptions{dry, outwards} {
		moved(t, h.Migrate, o, id, broker.MoveConflict)
		require.Equal(t, "somebody else's", h.inVault("google/client_secret"))
	}
}

// TestWhatAnEarlierBrokerHasStoredCannotMove: what the upgrade keeps in the internal backend
// though no other takes it, and a pair of which a part was never there.
func TestWhatAnEarlierBrokerHasStoredCannotMove(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	long, half := h.register("long"), h.register("half")
	const key = "long/client_secret"
	sealed := keyring(t, "").Seal("secret/"+key, []byte(strings.Repeat("s", secret.MaxValueBytes+1)))
	_, err := h.store.UpsertSealedRow(t.Context(), key, sealed, credentials.Owner{ProviderID: long, Generation: 1}.String(), 1, time.Now())
	require.NoError(t, err)
	require.NoError(t, h.store.DeleteSealedRow(t.Context(), "half/client_secret"))
	dry := outwards
	dry.DryRun = true
	for _, o := range []broker.MoveOptions{dry, outwards} {
		all, err := moving(t, h.Migrate, o)
		require.NoError(t, err)
		require.Equal(t, broker.MoveFailed, all[long].Outcome)
		require.Contains(t, all[long].Detail, "long/client_secret: ")
		require.Contains(t, all[long].Detail, "longer than 32768 bytes")
		require.Equal(t, broker.MoveFailed, all[half].Outcome)
		require.Contains(t, all[half].Detail, "PATCH /providers/"+half.String())
	}
	require.Empty(t, h.inVault("long/client_id"))
}

func TestExternalCredentialsMoveOnlyIfAsked(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	require.NoError(t, h.vault.Set(t.Context(), "google/client_id", clientID))
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", clientSecret))
	in := h.profile("google")
	in.ClientID, in.ClientSecret = broker.Field[broker.SecretText]{}, broker.Field[broker.SecretText]{}
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	moved(t, h.Migrate, inwards, id, broker.MoveSkipped)
	o := inwards
	o.IncludeExternal = true
	moved(t, h.Migrate, o, id, broker.MoveCopied)
	require.True(t, h.provider(id).Credentials.Managed)
	all, err := moving(t, h.Scrub, inwards)
	require.NoError(t, err)
	require.Empty(t, all, "the source is not the broker's")
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
}

func TestScrubRefusesWhatItCannotVerify(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google")
	moved(t, h.Migrate, outwards, id, broker.MoveCopied)
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", "rotated"))
	moved(t, h.VerifyMoved, outwards, id, broker.MoveDiffers)
	moved(t, h.Scrub, outwards, id, broker.MoveDiffers)
	require.True(t, h.sealed("google/client_secret"))

	require.NoError(t, h.vault.Delete(t.Context(), "google/client_secret"))
	o := outwards
	o.IncludeDiffering = true
	moved(t, h.Scrub, o, id, broker.MoveMissing)
	require.True(t, h.sealed("google/client_secret"), "the last copy there is")

	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", "rotated"))
	moved(t, h.Scrub, o, id, broker.MoveDeleted)
	require.False(t, h.sealed("google/client_secret"))
}

func TestScrubLeavesSomebodyElsesMark(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	moved(t, h.Migrate, inwards, id, broker.MoveCopied)
	require.NoError(t, h.vault.Delete(t.Context(), "google/client_secret"))
	_, err := h.vault.Create(t.Context(), "google/client_secret", clientSecret, "another-tool")
	require.NoError(t, err)
	moved(t, h.Scrub, inwards, id, broker.MoveNotOurs)
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	require.Equal(t, clientID, h.inVault("google/client_id"))
}

func TestDeletingAProviderTakesWhatAMoveHasLeft(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	moved(t, h.Migrate, inwards, id, broker.MoveCopied)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	h.pass(time.Minute)
	h.SweepOnce(t.Context())
	require.Empty(t, h.inVault("google/client_secret"))
	require.False(t, h.sealed("google/client_secret"))
}

// Every call of the backend and every lost answer of the database is a place where a
// process may end, or the store fail; what has been left is finished by the next run.
func TestAMoveThatIsCutOffIsFinishedByTheNext(t *testing.T) {
	t.Parallel()
	errCut := fmt.Errorf("cut off: %w", secret.ErrUnavailable)
	for at := 1; at <= 4; at++ {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("call %d, answer lost %t", at, lost), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t, options{internal: true})
				id := h.register("google")
				var calls atomic.Int32
				hook := func(context.Context, memory.Call) error {
					if int(calls.Add(1)) >= at { // and everything after: the process is gone
						return errCut
					}
					return nil
				}
				if lost {
					h.vault.After(hook)
				} else {
					h.vault.Before(hook)
				}
				o := outwards
				o.Patience = time.Millisecond
				_, err := moving(t, h.Migrate, o)
				h.vault.Before(nil)
				h.vault.After(nil)
				h.pass(time.Minute) // claims have run out
				if err != nil {
					require.ErrorIs(t, err, broker.ErrUnfinishedMove)
					h.begin(id)
					moved(t, h.Migrate, outwards, id, broker.MoveCopied)
				}
				h.pass(time.Hour)
				h.SweepOnce(t.Context())
				require.Equal(t, vaultName, h.provider(id).Credentials.Backend)
				require.Equal(t, clientSecret, h.inVault("google/client_secret"))
				moved(t, h.Scrub, outwards, id, broker.MoveDeleted)
				h.connect(id)
			})
		}
	}
}

func TestASwitchWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut %t", cut), func(t *testing.T) {
			u := &unsure{cut: cut}
			h := newHouse(t, options{internal: true, wrap: func(s broker.Store) broker.Store { u.Store = s; return u }})
			id := h.register("google")
			u.method = "update"
			moved(t, h.Migrate, outwards, id, broker.MoveCopied)
			h.SweepOnce(t.Context())
			require.Equal(t, clientSecret, h.inVault("google/client_secret"))
			require.True(t, h.sealed("google/client_secret"))
			h.connect(id)
		})
	}
}

// A store that throttles gets what it asks for: nothing is begun before.
func TestAMoveHonoursAThrottlingStore(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google") // only one: what is in hand already goes on
	const asked = 300 * time.Millisecond
	var refused, early atomic.Int64 // when; and what was written in the pause after
	h.vault.Before(func(_ context.Context, c memory.Call) error {
		switch at := refused.Load(); {
		case c.Op != memory.OpCreate:
		case refused.CompareAndSwap(0, time.Now().UnixNano()):
			return secret.Throttled("slow down", asked)
		case time.Since(time.Unix(0, at)) < asked:
			early.Add(1)
		}
		return nil
	})
	moved(t, h.Migrate, outwards, id, broker.MoveCopied)
	require.GreaterOrEqual(t, time.Since(time.Unix(0, refused.Load())), asked)
	require.Zero(t, early.Load(), "writes in the pause")
}

func TestAMoveOfAReadOnlyBroker(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{readOnly: true})
	for _, do := range []func(context.Context, broker.MoveOptions) error{h.Migrate, h.Scrub} {
		_, err := moving(t, do, outwards)
		require.True(t, errors.Is(err, credentials.ErrReadOnly))
	}
}

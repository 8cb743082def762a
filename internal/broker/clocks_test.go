package broker_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// Two replicas whose clocks are five minutes apart do each other's work: what one has
// begun the other completes, whichever of them is ahead.
func TestReplicasWhoseClocksDiffer(t *testing.T) {
	t.Parallel()
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

// withWrongClocks runs a test for two replicas of which the clock of one or of the other is
// five minutes wrong. No claim of theirs lasts as long as that.
func withWrongClocks(t *testing.T, test func(t *testing.T, one, other *house)) {
	onBoth(t, func(t *testing.T, o options) {
		o.config = func(c *broker.Config) { c.SecretTimeout = 10 * time.Second }
		replica := func(t *testing.T, offset time.Duration) *house {
			o := o
			o.now = func() time.Time { return time.Now().Add(offset) }
			return newHouse(t, o)
		}
		for name, offsets := range map[string][2]time.Duration{
			"one is ahead": {5 * time.Minute, 0}, "one is behind": {-5 * time.Minute, 0},
			"the other is ahead": {0, 5 * time.Minute}, "the other is behind": {0, -5 * time.Minute},
		} {
			t.Run(name, func(t *testing.T) { test(t, replica(t, offsets[0]), replica(t, offsets[1])) })
		}
	})
}

// during calls do in the middle of the next writing or deleting of a client_secret, and
// returns whether it has.
func (h *house) during(do func()) *atomic.Bool {
	called := &atomic.Bool{}
	h.vault.Before(func(_ context.Context, c memory.Call) error {
		if slices.Contains(memory.Writes, c.Op) && strings.HasSuffix(c.Key, "/client_secret") && called.CompareAndSwap(false, true) {
			do()
		}
		return nil
	})
	return called
}

// deletedLater leaves a deletion of credentials that is to be done later.
func (h *house) deletedLater(name string) {
	h.t.Helper()
	id := h.register(name)
	h.vault.Fail(errDown)
	require.NoError(h.t, h.DeleteProvider(h.t.Context(), id))
	h.vault.Fail(nil)
}

// A replica whose clock is wrong, or that meets what such a one has claimed, leaves alone
// whatever is alive.
func TestAWrongClockTakesNothingOverThatIsAlive(t *testing.T) {
	t.Parallel()
	withWrongClocks(t, func(t *testing.T, one, other *house) {
		ctx := t.Context()
		var err error
		called := one.during(func() {
			other.SweepOnce(ctx)
			_, err = other.Register(ctx, other.profile("google"))
		})
		id := one.register("google")
		require.True(t, called.Load())
		code(t, broker.CodeInvalidProviderName, err)

		var seen map[uuid.UUID]broker.MoveResult
		called = one.during(func() {
			other.SweepOnce(ctx)
			o := inwards
			o.Patience = time.Millisecond
			seen, _ = moving(t, other.Migrate, o)
		})
		require.NoError(t, one.PatchProvider(ctx, id, bothNew))
		require.True(t, called.Load())
		require.Equal(t, broker.MoveFailed, seen[id].Outcome, "%+v", seen[id])
		require.Equal(t, credentials.Ready, one.provider(id).Credentials.State)
		require.Equal(t, "new-secret", one.inVault("google/client_secret"))

		var before, after int
		called = one.during(func() {
			before = other.vault.Count(memory.Writes...)
			other.SweepOnce(ctx)
			after = other.vault.Count(memory.Writes...)
		})
		require.NoError(t, one.DeleteProvider(ctx, id))
		require.True(t, called.Load())
		require.Equal(t, before, after, "it has deleted what another one is deleting")

		cut := one.register("cut")
		one.deletedLater("google")
		other.SweepOnce(ctx)
		require.Equal(t, clientSecret, one.inVault("google/client_secret"), "deleted before its time")
		one.pass(15 * time.Second)
		called = one.during(func() {
			other.cutUpdate(cut)
			other.SweepOnce(ctx)
		})
		one.SweepOnce(ctx)
		require.True(t, called.Load())
		require.Equal(t, credentials.Incomplete, one.provider(cut).Credentials.State, "it has swept while another one does")
		one.vault.Before(nil)
		require.NoError(t, one.DeleteProvider(ctx, cut))
	})
}

// The same replicas take over what has run out, neither earlier nor later than one whose
// clock is right.
func TestAWrongClockTakesOverWhatHasRunOut(t *testing.T) {
	t.Parallel()
	withWrongClocks(t, func(t *testing.T, one, other *house) {
		ctx := t.Context()
		const longest = 90 * time.Second // of all claims
		called := one.during(func() {
			other.pass(longest)
			other.SweepOnce(ctx)
		})
		_, err := one.Register(ctx, one.profile("google"))
		require.ErrorIs(t, err, broker.ErrLostOp)
		require.True(t, called.Load())
		other.pass(longest)
		other.SweepOnce(ctx)
		require.Empty(t, other.inVault("google/client_secret"))

		id := one.register("google")
		left := "nothing was looked for"
		called = one.during(func() {
			other.pass(longest)
			other.SweepOnce(ctx)
			left = other.inVault("google/client_secret")
		})
		require.NoError(t, one.DeleteProvider(ctx, id))
		require.True(t, called.Load())
		require.Empty(t, left)

		cut := one.register("cut")
		one.deletedLater("google")
		one.pass(15 * time.Second)
		var state credentials.State
		called = one.during(func() {
			other.pass(longest)
			other.cutUpdate(cut)
			other.SweepOnce(ctx)
			state = other.provider(cut).Credentials.State
		})
		one.SweepOnce(ctx)
		require.True(t, called.Load())
		require.Equal(t, credentials.Ready, state, "the lease of a sweep that has run out was not taken")
		one.vault.Before(nil)
		require.NoError(t, one.DeleteProvider(ctx, cut))
	})
}

package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/keyrotation"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// rotateTo brings everything under the first key of a ring.
func (h *house) rotateTo(ctx context.Context, ring string) keyrotation.Report {
	r := keyrotation.Rotator{Rows: h.store.(keyrotation.Rows), Keys: keyring(h.t, ring), Workers: 2}
	report, err := r.Rotate(ctx)
	if ctx.Err() == nil {
		require.NoError(h.t, err)
	}
	return report
}

// While the keys are rotated to and fro without a pause, everything is served, and the
// provider, which ends a grant whose refresh token is used twice, sees nothing of it.
func TestNothingIsRefusedOrLostDuringRotations(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.internal, o.key = true, "ab"
		o.provider = oauthtest.Options{AccessTokenTTL: 10 * time.Minute}
		one := newHouse(t, o)
		provider := one.register("google")
		two := newHouse(t, o)
		connections := []uuid.UUID{one.connect(provider), one.connect(provider), one.connect(provider)}

		ctx, stop := context.WithCancel(t.Context())
		rotated := make(chan int)
		go func() {
			n := 0
			for ring := 0; ctx.Err() == nil; ring = 1 - ring {
				n += one.rotateTo(t.Context(), []string{"ba", "ab"}[ring]).Sum().Resealed // each to its end: what one leaves that is cut off is the next one's
			}
			rotated <- n
		}()
		var work sync.WaitGroup
		var mu sync.Mutex
		var failures []error
		repeat := func(what string, n int, f func(i int) error) {
			work.Go(func() {
				for i := range n {
					if err := f(i); err != nil {
						mu.Lock()
						failures = append(failures, fmt.Errorf("%s: %w", what, err))
						mu.Unlock()
						return
					}
				}
			})
		}
		const rounds = 15
		for _, c := range connections {
			repeat("refresh", rounds, func(int) error { _, err := one.Refresh(ctx, c); return err })
			repeat("refresh at another replica", rounds, func(int) error { _, err := two.Refresh(ctx, c); return err })
			repeat("token", 5*rounds, func(int) error { _, err := two.Token(ctx, c); return err })
			repeat("lasting token", rounds, func(int) error { _, err := one.TokenLasting(ctx, c, time.Hour); return err })
		}
		repeat("consent", rounds, func(int) error {
			_, err := one.Complete(ctx, one.agree(one.begin(provider)))
			return err
		})
		repeat("new consent", rounds, func(int) error {
			r := request(provider)
			r.ConnectionID = connections[0]
			c, err := two.Begin(ctx, r)
			if err != nil {
				return err
			}
			_, err = two.Complete(ctx, one.agree(c))
			return err
		})
		repeat("registration and PATCH", rounds, func(i int) error {
			id, err := one.Register(ctx, one.profile(fmt.Sprintf("provider-%d", i)))
			if err != nil {
				return err
			}
			return errors.Join(one.PatchProvider(ctx, id, broker.ProfileInput{ClientSecret: text(clientSecret + "x")}),
				two.PatchProvider(ctx, id, broker.ProfileInput{ClientSecret: text(clientSecret)}))
		})
		work.Wait()
		stop()
		require.Positive(t, <-rotated)
		require.NoError(t, errors.Join(failures...))

		one.rotateTo(t.Context(), "ba")
		_, current, err := keyrotation.Check(t.Context(), one.store.(keyrotation.Rows), keyring(t, "b"))
		require.NoError(t, err)
		require.True(t, current)
		o.key = "b"
		last := newHouse(t, o)
		for _, c := range connections {
			_, err := last.Refresh(t.Context(), c)
			require.NoError(t, err, "the grant is alive, and the credentials open")
		}
	})
}

// What no key opens is named and stays, and the rest goes on; what is current is not
// opened; the verifier of a consent that has ended is erased.
func TestARotationReportsWhatDoesNotOpen(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		o.internal, o.key = true, "x"
		lost := newHouse(t, o)
		provider := lost.register("lost")
		connection := lost.connect(provider)
		o.key = "a"
		h := newHouse(t, o)
		good := h.register("good")
		kept := h.connect(good)
		h.begin(good)

		rows := h.store.(keyrotation.Rows)
		dry := keyrotation.Rotator{Rows: rows, Keys: keyring(t, "ba"), DryRun: true}
		before, _, err := keyrotation.Check(t.Context(), rows, keyring(t, "ba"))
		require.NoError(t, err)
		planned, err := dry.Rotate(t.Context())
		require.NoError(t, err)
		after, current, err := keyrotation.Check(t.Context(), rows, keyring(t, "ba"))
		require.NoError(t, err)
		require.False(t, current)
		require.Equal(t, before, after, "nothing has changed")

		report := h.rotateTo(t.Context(), "ba")
		require.Equal(t, planned, report)
		require.Equal(t, keyrotation.Result{Resealed: 4, Closed: 3}, report.Sum(), "a token, two credentials and a verifier")
		var named []string
		for _, r := range report.Rows {
			require.Equal(t, keyring(t, "x").CurrentID(), r.KeyID)
			named = append(named, string(r.Place)+" "+r.Row)
		}
		require.Subset(t, named, []string{"tokens " + connection.String()})
		require.Equal(t, keyrotation.Result{Current: 4, Closed: 3}, h.rotateTo(t.Context(), "ba").Sum())

		later := keyrotation.Rotator{Rows: rows, Keys: keyring(t, "cb"), Now: func() time.Time { return time.Now().Add(2 * time.Hour) }}
		report, err = later.Rotate(t.Context())
		require.NoError(t, err)
		require.Equal(t, keyrotation.Result{Resealed: 3, Erased: 1, Closed: 3}, report.Sum())
		o.key = "c"
		_, err = newHouse(t, o).Token(t.Context(), kept)
		require.NoError(t, err)
	})
}

package credentials_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

func TestReloadSeesARotationAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "old")
		rejected, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		b.put(t, "google", "id", "new")

		start := time.Now()
		p, changed, err := b.Reload(t.Context(), google(), rejected)
		require.NoError(t, err)
		require.True(t, changed)
		requirePair(t, p, "id", "new")
		require.Zero(t, time.Since(start))

		p, err = b.Get(t.Context(), google())
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
		require.Equal(t, 2, b.reads("google/client_secret"))
	})
}

// A flow that failed with the old pair after another has already reloaded costs no
// read.
func TestReloadUsesWhatAnotherHasReloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "old")
		rejected, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		b.put(t, "google", "id", "new")
		for range 10 {
			p, changed, err := b.Reload(t.Context(), google(), rejected)
			require.NoError(t, err)
			require.True(t, changed)
			requirePair(t, p, "id", "new")
		}
		require.Equal(t, 2, b.reads("google/client_secret"))
	})
}

func TestReloadOfAnUnchangedPair(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "id", "s3cret")
	rejected, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	p, changed, err := b.Reload(t.Context(), google(), rejected)
	require.NoError(t, err)
	require.False(t, changed)
	requirePair(t, p, "id", "s3cret")
	require.Equal(t, 2, b.reads("google/client_id"))
}

// A provider that refuses everything costs its backend one read of the pair a
// second, however many flows there are.
func TestReloadCannotBeAbused(t *testing.T) {
	for _, ttl := range []time.Duration{5 * time.Minute, 0} {
		t.Run(ttl.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, func(o *credentials.Options) { o.CacheTTL = ttl })
				b.put(t, "google", "id", "s3cret")
				rejected, err := b.Get(t.Context(), google())
				require.NoError(t, err)
				b.vault.Reset()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				var flows sync.WaitGroup
				var answers atomic.Int32
				for range 100 {
					flows.Go(func() {
						for ctx.Err() == nil && answers.Load() < 5000 { // time stands still for those who need not wait
							if _, changed, err := b.Reload(ctx, google(), rejected); err == nil && !changed {
								answers.Add(1)
							}
						}
					})
				}
				flows.Wait()
				require.LessOrEqual(t, b.reads("google/client_id"), 11)
				require.Greater(t, answers.Load(), int32(500))
			})
		})
	}
}

// A rotation right after a fruitless reload is seen, by a read that begins after
// the provider has refused the pair.
func TestReloadSeesARotationRightAfterAFruitlessOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "old")
		rejected, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		_, changed, err := b.Reload(t.Context(), google(), rejected)
		require.NoError(t, err)
		require.False(t, changed)

		b.put(t, "google", "id", "new")
		start := time.Now()
		p, changed, err := b.Reload(t.Context(), google(), rejected)
		require.NoError(t, err)
		require.True(t, changed)
		requirePair(t, p, "id", "new")
		require.LessOrEqual(t, time.Since(start), time.Second)
	})
}

// The same while a fruitless reload is still under way: its result is too old.
func TestReloadDoesNotSettleForAReadThatBeganBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "old")
		rejected, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		release := make(chan struct{})
		b.vault.After(func(context.Context, memory.Call) error { <-release; return nil })
		first := make(chan bool, 1)
		go func() {
			_, changed, _ := b.Reload(t.Context(), google(), rejected)
			first <- changed
		}()
		synctest.Wait()
		b.vault.After(nil)
		b.put(t, "google", "id", "new")
		second := make(chan credentials.Pair, 1)
		go func() {
			p, _, _ := b.Reload(t.Context(), google(), rejected)
			second <- p
		}()
		synctest.Wait()
		close(release)
		require.False(t, <-first)
		requirePair(t, <-second, "id", "new")
	})
}

// A pair whose halves were read on both sides of a rotation is mended.
func TestReloadMendsATornPair(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "old-id", "old")
	rotated := make(chan struct{})
	b.vault.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpRead && c.Key == "google/client_id" {
			b.vault.After(nil)
			b.put(t, "google", "new-id", "new")
			close(rotated)
		}
		return nil
	})
	b.vault.Before(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpRead && c.Key == "google/client_secret" {
			<-rotated
		}
		return nil
	})
	torn, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, torn, "old-id", "new")

	p, changed, err := b.Reload(t.Context(), google(), torn)
	require.NoError(t, err)
	require.True(t, changed)
	requirePair(t, p, "new-id", "new")
}

func TestReloadPassesFailuresOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		rejected, err := b.Get(t.Context(), google())
		require.NoError(t, err)

		// An outage is not bridged with what the provider has refused, and spoils nothing.
		b.vault.Fail(errOutage)
		_, changed, err := b.Reload(t.Context(), google(), rejected)
		require.ErrorIs(t, err, secret.ErrUnavailable)
		require.False(t, changed)
		_, err = b.Get(t.Context(), google())
		require.NoError(t, err)

		// A denial takes the pair out of the cache.
		b.vault.Fail(secret.ErrDenied)
		_, _, err = b.Reload(t.Context(), google(), rejected)
		require.ErrorIs(t, err, secret.ErrDenied)
		_, err = b.Get(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrDenied)
	})
}

func TestReloadHonoursTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		_, _, err := b.Reload(t.Context(), google(), pair("id", "s3cret"))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, _, err = b.Reload(ctx, google(), pair("id", "s3cret"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

package credentials_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

func TestMissingValueIsRememberedForFiveSecondsAtMost(t *testing.T) {
	for _, ttl := range []time.Duration{5 * time.Minute, 2 * time.Second} {
		t.Run(ttl.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, func(o *credentials.Options) { o.CacheTTL = ttl })
				for range 3 {
					_, err := b.Get(t.Context(), google())
					require.ErrorIs(t, err, secret.ErrNotFound)
				}
				require.Equal(t, 1, b.reads("google/client_id"))
				require.EqualValues(t, 2, b.lookups(t, "negative"))

				b.put(t, "google", "id", "s3cret")
				time.Sleep(min(ttl, 5*time.Second))
				p, err := b.Get(t.Context(), google())
				require.NoError(t, err)
				requirePair(t, p, "id", "s3cret")
			})
		})
	}
}

func TestReadGoesPastTheCacheAndRefreshesIt(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "id", "old")
	_, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	b.put(t, "google", "id", "new")

	p, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, p, "id", "old")
	p, err = b.Read(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, p, "id", "new")
	p, err = b.Get(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, p, "id", "new")
	require.Equal(t, 2, b.reads("google/client_id"))
}

// A slow read that began before the value was changed must not put the old value
// back into the cache.
func TestSlowReadDoesNotOverwriteALaterOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "old")
		release := make(chan struct{})
		var first atomic.Bool
		b.vault.After(func(_ context.Context, c memory.Call) error {
			if c.Key == "google/client_secret" && first.CompareAndSwap(false, true) {
				<-release
			}
			return nil
		})
		slow := make(chan credentials.Pair, 1)
		go func() {
			p, _ := b.Get(t.Context(), google())
			slow <- p
		}()
		synctest.Wait()
		b.vault.After(nil)
		b.put(t, "google", "id", "new")
		_, err := b.Read(t.Context(), google())
		require.NoError(t, err)
		close(release)
		requirePair(t, <-slow, "id", "old")

		p, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
	})
}

// A read under way when Forget is called is neither cached nor joined afterwards.
func TestForgetCoversReadsUnderWay(t *testing.T) {
	for name, meanwhile := range map[string]bool{"somebody asks before it ends": true, "nobody asks before it ends": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t)
				b.put(t, "google", "id", "old")
				release := make(chan struct{})
				b.vault.After(func(context.Context, memory.Call) error { <-release; return nil })
				go func() { _, _ = b.Get(t.Context(), google()) }()
				synctest.Wait()
				b.vault.After(nil)
				b.put(t, "google", "id", "new")
				b.Forget(google())

				if meanwhile {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // who joins it waits for ever
					defer cancel()
					p, err := b.Get(ctx, google())
					require.NoError(t, err)
					requirePair(t, p, "id", "new")
				}
				close(release)
				synctest.Wait()
				p, err := b.Get(t.Context(), google())
				require.NoError(t, err)
				requirePair(t, p, "id", "new")
			})
		})
	}
}

// A change made through another replica is known by the generation in the row.
func TestNewGenerationIsAMiss(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "id", "old")
	ref := google()
	_, err := b.Get(t.Context(), ref)
	require.NoError(t, err)

	b.put(t, "google", "id", "new")
	ref.Generation++
	p, err := b.Get(t.Context(), ref)
	require.NoError(t, err)
	requirePair(t, p, "id", "new")

	// A flow that has read its row a moment earlier costs no further read.
	p, err = b.Get(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, p, "id", "new")
	require.Equal(t, 2, b.reads("google/client_id"))
}

func TestSuccessorOfTheSameNameIsAMiss(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "id", "old")
	predecessor := google()
	predecessor.Generation = 7
	_, err := b.Get(t.Context(), predecessor)
	require.NoError(t, err)

	b.put(t, "google", "id", "new")
	successor := google()
	successor.ProviderID = uuid.MustParse("01944444-4444-7444-8444-444444444444")
	p, err := b.Get(t.Context(), successor)
	require.NoError(t, err)
	requirePair(t, p, "id", "new")
}

// Where the provider is not known, only the very same generation will do.
func TestOtherGenerationOfAnUnknownProviderIsAMiss(t *testing.T) {
	for _, generation := range []int64{1, 9} {
		b := newBed(t)
		b.put(t, "google", "id", "old")
		ref := google()
		ref.ProviderID, ref.Generation = uuid.Nil, 7
		_, err := b.Get(t.Context(), ref)
		require.NoError(t, err)
		b.put(t, "google", "id", "new")
		ref.Generation = generation
		p, err := b.Get(t.Context(), ref)
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
	}
}

// A flow that has seen an expired pair, and is overtaken by another that reads it
// anew, does not read it once more.
func TestOvertakenFlowReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hold atomic.Bool
		release := make(chan struct{})
		b := newBed(t, func(o *credentials.Options) {
			o.Now = func() time.Time {
				now := time.Now()
				if hold.CompareAndSwap(true, false) {
					<-release
				}
				return now
			}
		})
		b.put(t, "google", "id", "s3cret")
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		time.Sleep(5*time.Minute + time.Second) // between two sweeps
		hold.Store(true)
		overtaken := make(chan error, 1)
		go func() { _, err := b.Get(t.Context(), google()); overtaken <- err }()
		synctest.Wait()
		_, err = b.Get(t.Context(), google())
		require.NoError(t, err)
		close(release)
		require.NoError(t, <-overtaken)
		require.Equal(t, 2, b.reads("google/client_id"))
	})
}

func TestTTLZeroTurnsTheCacheOffButNotSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, func(o *credentials.Options) { o.CacheTTL = 0 })
		b.put(t, "google", "id", "s3cret")
		for range 2 {
			_, err := b.Get(t.Context(), google())
			require.NoError(t, err)
		}
		require.Equal(t, 2, b.reads("google/client_id"))

		release := b.vault.Stall()
		var flows sync.WaitGroup
		for range 100 {
			flows.Go(func() { _, _ = b.Get(t.Context(), google()) })
		}
		synctest.Wait()
		release()
		flows.Wait()
		require.Equal(t, 3, b.reads("google/client_id"))

		// Nothing bridges an outage either, and a missing value is not remembered.
		b.vault.Fail(errOutage)
		_, err := b.Get(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrUnavailable)
	})
}

func TestCacheIsBounded(t *testing.T) {
	b := newBed(t, func(o *credentials.Options) { o.CacheSize = 10 })
	ref := google()
	for i := range 200 {
		ref.Key = fmt.Sprintf("p%d", i)
		b.put(t, ref.Key, "id", "s3cret")
		_, err := b.Get(t.Context(), ref)
		require.NoError(t, err)
	}
	b.vault.Fail(errOutage)
	served := func() (n int) {
		for i := range 200 {
			ref.Key = fmt.Sprintf("p%d", i)
			if _, err := b.Get(t.Context(), ref); err == nil {
				n++
			}
		}
		return n
	}
	require.Eventually(t, func() bool { return served() <= 10 }, 10*time.Second, 10*time.Millisecond)
}

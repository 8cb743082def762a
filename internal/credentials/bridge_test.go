package credentials_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// A provider in use is refreshed before its pair expires, so that nobody waits.
func TestRefreshedInTheBackgroundWhileInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "old")
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		b.put(t, "google", "id", "new")

		time.Sleep(3 * time.Minute)
		_, err = b.Get(t.Context(), google())
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 1, b.reads("google/client_id"), "refreshed too early")

		time.Sleep(time.Minute)
		release := b.vault.Stall() // who triggers the refresh does not wait for it
		for range 10 {
			at := time.Now()
			timer := time.AfterFunc(time.Minute, release)
			p, err := b.Get(t.Context(), google())
			timer.Stop()
			require.NoError(t, err)
			requirePair(t, p, "id", "old")
			require.Zero(t, time.Since(at), "it waited")
			time.Sleep(1500 * time.Millisecond)
		}
		release()
		synctest.Wait()
		require.Equal(t, 2, b.reads("google/client_id"), "one refresh at a time")
		p, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
		require.EqualValues(t, 1, b.lookups(t, "miss"))

		time.Sleep(4*time.Minute + 30*time.Second) // past the first pair's end
		_, err = b.Get(t.Context(), google())
		require.NoError(t, err)
		require.EqualValues(t, 1, b.lookups(t, "miss"))
	})
}

func TestUnusedPairIsNotRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		time.Sleep(4*time.Minute + 59*time.Second)
		require.Equal(t, 1, b.reads("google/client_id"))
	})
}

// A change made in the vault is seen within the TTL.
func TestExpiredPairIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "old")
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		b.put(t, "google", "id", "new")
		time.Sleep(5 * time.Minute)
		p, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
	})
}

func TestOutageIsBridgedForMaxStaleOnly(t *testing.T) {
	for name, outage := range map[string]error{
		"unavailable": errOutage,
		"throttled":   secret.Throttled("429", time.Second),
		"timeout":     fmt.Errorf("read: %w", context.DeadlineExceeded),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t)
				b.put(t, "google", "id", "s3cret")
				time.Sleep(time.Second) // the end comes between two sweeps of the memory
				_, err := b.Get(t.Context(), google())
				require.NoError(t, err)
				b.vault.Fail(outage)

				time.Sleep(5 * time.Minute)
				for range 5 {
					p, err := b.Get(t.Context(), google())
					require.NoError(t, err)
					requirePair(t, p, "id", "s3cret")
				}
				require.EqualValues(t, 5, b.lookups(t, "stale"))
				time.Sleep(time.Hour - time.Second)
				_, err = b.Get(t.Context(), google())
				require.NoError(t, err)
				time.Sleep(time.Second)
				_, err = b.Get(t.Context(), google())
				require.ErrorIs(t, err, outage)
			})
		})
	}
}

func TestMaxStaleZeroBridgesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, func(o *credentials.Options) { o.MaxStale = 0 })
		b.put(t, "google", "id", "s3cret")
		time.Sleep(time.Second) // the end comes between two sweeps of the memory
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		b.vault.Fail(errOutage)
		time.Sleep(5 * time.Minute)
		_, err = b.Get(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrUnavailable)
		require.Zero(t, b.lookups(t, "stale"))
	})
}

// Revoking in the vault takes effect: at the end of the TTL, and at a refresh.
func TestDenialAndMissingKeyAreNeverBridged(t *testing.T) {
	for _, refusal := range []error{secret.ErrDenied, secret.ErrNotFound, secret.ErrInvalid} {
		for _, after := range []time.Duration{4 * time.Minute, 5 * time.Minute} {
			t.Run(fmt.Sprint(refusal, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBed(t)
					b.put(t, "google", "id", "s3cret")
					_, err := b.Get(t.Context(), google())
					require.NoError(t, err)
					b.vault.Fail(refusal)
					time.Sleep(after)
					_, _ = b.Get(t.Context(), google()) // the background refresh, if it is time for that
					synctest.Wait()
					_, err = b.Get(t.Context(), google())
					require.ErrorIs(t, err, refusal)
					// And an outage afterwards does not bring the value back.
					b.vault.Fail(errOutage)
					time.Sleep(10 * time.Second)
					_, err = b.Get(t.Context(), google())
					require.ErrorIs(t, err, secret.ErrUnavailable)
				})
			})
		}
	}
}

// That one value is gone counts, also while the other cannot be read: the pair that was
// known is no longer true.
func TestHalfAnOutageDoesNotHideAMissingValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		require.NoError(t, b.vault.Delete(t.Context(), "google/client_secret"))
		b.vault.Before(func(_ context.Context, c memory.Call) error {
			if c.Key == "google/client_id" {
				return errOutage
			}
			return nil
		})
		time.Sleep(5 * time.Minute)
		_, err = b.Get(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrNotFound)
		b.vault.Fail(errOutage)
		_, err = b.Get(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrUnavailable, "the old pair does not come back")
	})
}

// During an outage that hangs, a provider in use never waits, and the backend is
// tried by one read at a time, not by every flow.
func TestKnownOutageMakesNobodyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		b.vault.Before(func(ctx context.Context, _ memory.Call) error { // SECRET_TIMEOUT of 10 s
			select {
			case <-time.After(10 * time.Second):
				return errOutage
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		time.Sleep(4 * time.Minute)
		b.vault.Reset()
		start := time.Now()
		for time.Since(start) < 10*time.Minute { // past the end of the TTL
			at := time.Now()
			_, err := b.Get(t.Context(), google())
			require.NoError(t, err)
			require.Zero(t, time.Since(at), "waited after %s", at.Sub(start))
			time.Sleep(100 * time.Millisecond)
		}
		tries := b.reads("google/client_id")
		require.LessOrEqual(t, tries, 61)
		require.Greater(t, tries, 30)

		// It recovers by itself.
		b.vault.Before(nil)
		b.put(t, "google", "id", "new")
		for range 120 {
			time.Sleep(100 * time.Millisecond)
			_, err = b.Get(t.Context(), google())
			require.NoError(t, err)
		}
		p, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
	})
}

// A backend that is out is tried by one of its providers a second, not by all.
func TestOutageOfManyProvidersIsTriedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		refs := make([]credentials.Ref, 50)
		for i := range refs {
			refs[i] = google()
			refs[i].Key = fmt.Sprintf("p%d", i)
			b.put(t, refs[i].Key, "id", "s3cret")
			_, err := b.Get(t.Context(), refs[i])
			require.NoError(t, err)
		}
		b.vault.Fail(errOutage)
		time.Sleep(5 * time.Minute)
		b.vault.Reset()
		for range 100 {
			for _, ref := range refs {
				_, err := b.Get(t.Context(), ref)
				require.NoError(t, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, b.vault.Count(memory.OpRead), 2*12)
	})
}

// What was learned of an outage long ago bridges nothing: the backend is asked first.
func TestOldOutageIsNotTakenForGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		b.vault.Fail(errOutage)
		_, err = b.Get(t.Context(), google())
		require.NoError(t, err)
		synctest.Wait()
		b.vault.Fail(secret.ErrDenied)
		time.Sleep(6 * time.Second)
		_, err = b.Get(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrDenied)
	})
}

// One log line of each kind an outage, and one audit event.
func TestOutageIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		ref := google()
		for _, key := range []string{"google", "github", "okta"} {
			b.put(t, key, "id", "s3cret")
			ref.Key = key
			_, err := b.Get(t.Context(), ref)
			require.NoError(t, err)
		}
		b.vault.Fail(errOutage)
		time.Sleep(5 * time.Minute)
		for range 50 {
			for _, key := range []string{"google", "github", "okta"} {
				ref.Key = key
				_, err := b.Get(t.Context(), ref)
				require.NoError(t, err)
			}
			time.Sleep(time.Second)
		}
		require.EqualValues(t, 150, b.lookups(t, "stale"))
		require.Equal(t, 1, strings.Count(b.log.String(), "serving expired client credentials"))
		require.Equal(t, 1, strings.Count(b.log.String(), `msg="secret backend is out"`))
		require.Len(t, b.recorder.of("credentials.unavailable"), 1)

		b.vault.Fail(nil)
		time.Sleep(2 * time.Second)
		for range 2 {
			_, err := b.Get(t.Context(), ref)
			require.NoError(t, err)
			synctest.Wait()
		}
		require.Equal(t, 1, strings.Count(b.log.String(), "answers again"))
	})
}

// Many pairs that were read together do not become a burst on the backend.
func TestBackgroundRefreshesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		ref := google()
		all := func() {
			for i := range 100 {
				ref.Key = fmt.Sprintf("p%d", i)
				_, err := b.Get(t.Context(), ref)
				require.NoError(t, err)
			}
		}
		for i := range 100 {
			b.put(t, fmt.Sprintf("p%d", i), "id", "s3cret")
		}
		all()
		time.Sleep(4 * time.Minute)
		var now, most atomic.Int32
		b.vault.Before(func(context.Context, memory.Call) error {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(100 * time.Millisecond)
			now.Add(-1)
			return nil
		})
		b.vault.Reset()
		for range 20 {
			all()
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, most.Load(), int32(32), "16 pairs of two keys")
		require.Equal(t, 200, b.vault.Count(memory.OpRead), "all of them, once")
	})
}

// Nothing is kept in memory longer than it may be served, even if nobody asks.
func TestExpiredValuesLeaveMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, func(o *credentials.Options) { o.MaxStale = time.Minute })
		b.put(t, "google", "id", "s3cret")
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		time.Sleep(6*time.Minute - time.Second)
		require.Equal(t, 1, credentials.Cached(b.Service))
		time.Sleep(30 * time.Second)
		require.Equal(t, 0, credentials.Cached(b.Service))
	})
}

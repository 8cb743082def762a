package credentials_test

import (
	"context"
	"errors"
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

func TestGetReadsBothKeysOnceAndThenFromMemory(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "id", "s3cret")
	for range 3 {
		p, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		requirePair(t, p, "id", "s3cret")
	}
	require.Equal(t, 1, b.reads("google/client_id"))
	require.Equal(t, 1, b.reads("google/client_secret"))
	require.EqualValues(t, 2, b.lookups(t, "hit"))
	require.EqualValues(t, 1, b.lookups(t, "miss"))
}

// Both reads must be under way before either may end.
func TestIDAndSecretAreReadInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		var waiting sync.WaitGroup
		waiting.Add(2)
		b.vault.Before(func(context.Context, memory.Call) error {
			waiting.Done()
			waiting.Wait()
			return nil
		})
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
	})
}

func TestTenThousandColdFlowsAreOneReadOfEachKey(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "id", "s3cret")
	start := make(chan struct{})
	var flows sync.WaitGroup
	var failed atomic.Int32
	for range 10_000 {
		flows.Go(func() {
			<-start
			if p, err := b.Get(t.Context(), google()); err != nil || p.ClientSecret.Reveal() != "s3cret" {
				failed.Add(1)
			}
		})
	}
	close(start)
	flows.Wait()
	require.Zero(t, failed.Load())
	require.Equal(t, 1, b.reads("google/client_id"))
	require.Equal(t, 1, b.reads("google/client_secret"))
	require.Len(t, b.recorder.of("credentials.read"), 2)
}

func TestPublicClientHasNoSecret(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "id", "left over")
	ref := google()
	ref.Public = true
	p, err := b.Get(t.Context(), ref)
	require.NoError(t, err)
	requirePair(t, p, "id", "")
	require.Zero(t, b.reads("google/client_secret"))

	// The same provider made confidential is not served what was cached without a secret.
	p, err = b.Get(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, p, "id", "left over")
}

func TestZeroRefHasNone(t *testing.T) {
	b := newBed(t)
	p, err := b.Get(t.Context(), credentials.Ref{})
	require.NoError(t, err)
	require.True(t, p.Equal(credentials.Pair{}))
	p, err = b.Read(t.Context(), credentials.Ref{})
	require.NoError(t, err)
	require.True(t, p.Equal(credentials.Pair{}))
	_, changed, err := b.Reload(t.Context(), credentials.Ref{}, pair("id", "s3cret"))
	require.NoError(t, err)
	require.False(t, changed)
	require.Zero(t, b.vault.Count())
}

func TestMissingValuesAreNamedByPath(t *testing.T) {
	b := newBed(t)
	_, err := b.Get(t.Context(), google())
	var missing *credentials.MissingError
	require.ErrorAs(t, err, &missing)
	require.ErrorIs(t, err, secret.ErrNotFound)
	require.Equal(t, vault, missing.Backend)
	require.Equal(t, []string{"memory/google/client_id", "memory/google/client_secret"}, missing.Paths)
	require.Equal(t, missing.Paths, b.Paths(google()))
	require.Equal(t, "memory/google", b.Locate(google()))

	require.NoError(t, b.vault.Set(t.Context(), "google/client_id", "id"))
	_, err = b.Read(t.Context(), google())
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{"memory/google/client_secret"}, missing.Paths)
	require.ErrorContains(t, err, "memory/google/client_secret")
}

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

func TestOptionalCredentialsMayBeMissing(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.vault.Set(t.Context(), "google/client_id", "id"))
	optional := google()
	optional.Optional = true
	p, err := b.Get(t.Context(), optional)
	require.NoError(t, err)
	requirePair(t, p, "id", "")

	// Who needs them is not served the half that the cache holds now.
	_, err = b.Get(t.Context(), google())
	require.ErrorIs(t, err, secret.ErrNotFound)

	// A value that cannot be read is not one that is missing.
	b.vault.Fail(errOutage)
	_, err = b.Read(t.Context(), optional)
	require.ErrorIs(t, err, secret.ErrUnavailable)
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

		p, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
		close(release)
		synctest.Wait()
		p, err = b.Get(t.Context(), google())
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
	})
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

// The first caller's departure must not fail the others; each honours its own context.
func TestReadOutlivesTheCallerWhoBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		release := b.vault.Stall()
		first, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() { _, err := b.Get(first, google()); left <- err }()
		synctest.Wait()
		second := make(chan error, 1)
		go func() { _, err := b.Get(t.Context(), google()); second <- err }()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := b.Get(impatient, google())
		require.ErrorIs(t, err, context.DeadlineExceeded)

		leave()
		require.ErrorIs(t, <-left, context.Canceled)
		release()
		require.NoError(t, <-second)
		require.Equal(t, 1, b.reads("google/client_id"))
	})
}

func TestFailedReadTriesNoOtherBackend(t *testing.T) {
	other := memory.NewFaulty(memory.New())
	b := newBed(t, func(o *credentials.Options) {
		o.Backends = append(o.Backends, credentials.Backend{Name: credentials.Internal, Store: other})
	})
	for _, key := range []string{"google/client_id", "google/client_secret"} {
		require.NoError(t, other.Set(t.Context(), key, "elsewhere"))
	}
	other.Reset()
	for _, failure := range []error{errOutage, secret.ErrDenied, secret.ErrNotFound, secret.ErrInvalid} {
		b.vault.Fail(failure)
		_, err := b.Get(t.Context(), google())
		require.ErrorIs(t, err, failure)
		b.Forget(google())
	}
	require.Zero(t, other.Count())
}

func TestBackendThatIsNotConfiguredIsDenied(t *testing.T) {
	b := newBed(t)
	ref := google()
	ref.Backend = "aws-secrets-manager"
	_, err := b.Get(t.Context(), ref)
	require.ErrorIs(t, err, secret.ErrDenied)
	require.ErrorContains(t, err, "aws-secrets-manager")
	_, err = b.Read(t.Context(), ref)
	require.ErrorIs(t, err, secret.ErrDenied)
	_, _, err = b.Reload(t.Context(), ref, pair("id", "s3cret"))
	require.ErrorIs(t, err, secret.ErrDenied)
	require.ErrorIs(t, b.Create(t.Context(), ref, ownerOf(ref), pair("id", "s3cret")), secret.ErrDenied)
	require.ErrorIs(t, b.Replace(t.Context(), ref, ownerOf(ref), pair("id", "s3cret"), pair("id", "n3w")), secret.ErrDenied)
	require.ErrorIs(t, b.Erase(t.Context(), ref.Backend, ref.Key, ownerOf(ref), true), secret.ErrDenied)
	_, _, err = b.Marks(t.Context(), ref)
	require.ErrorIs(t, err, secret.ErrDenied)
	require.Equal(t, "google", b.Locate(ref))
}

// What one key tells for certain is not hidden by an outage of the other.
func TestDefiniteAnswerCountsMoreThanAnOutage(t *testing.T) {
	for want, failures := range map[error][2]error{
		secret.ErrDenied:   {errOutage, secret.ErrDenied},
		secret.ErrNotFound: {secret.ErrNotFound, errOutage},
		secret.ErrInvalid:  {secret.ErrInvalid, secret.ErrNotFound},
	} {
		for _, flip := range []bool{false, true} {
			t.Run(fmt.Sprint(want, flip), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBed(t)
					b.put(t, "google", "id", "s3cret")
					_, err := b.Get(t.Context(), google())
					require.NoError(t, err)
					time.Sleep(6 * time.Minute)
					b.vault.Before(func(_ context.Context, c memory.Call) error {
						if (c.Key == "google/client_id") != flip {
							return failures[0]
						}
						return failures[1]
					})
					for range 2 { // the second is not bridged by the first's value either
						_, err = b.Get(t.Context(), google())
						require.ErrorIs(t, err, want)
					}
				})
			})
		}
	}
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

func TestOptionsAreChecked(t *testing.T) {
	store := memory.New()
	good := credentials.Options{
		Backends: []credentials.Backend{{Name: vault, Store: store}}, WriteTo: vault, Audit: &recorder{},
	}
	s, err := credentials.New(good)
	require.NoError(t, err)
	s.Close()
	for name, spoil := range map[string]func(*credentials.Options){
		"write to nowhere": func(o *credentials.Options) { o.WriteTo = "internal" },
		"no audit":         func(o *credentials.Options) { o.Audit = nil },
		"negative TTL":     func(o *credentials.Options) { o.CacheTTL = -1 },
		"two of a name": func(o *credentials.Options) {
			o.Backends = append(o.Backends, o.Backends[0])
		},
		"no store": func(o *credentials.Options) { o.Backends = []credentials.Backend{{Name: vault}} },
	} {
		o := good
		spoil(&o)
		_, err := credentials.New(o)
		require.Error(t, err, name)
	}
}

func TestCloseEndsReadsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.vault.Stall()
		done := make(chan error, 1)
		go func() { _, err := b.Get(t.Context(), google()); done <- err }()
		synctest.Wait()
		b.Close()
		require.ErrorIs(t, <-done, context.Canceled)
		_, err := b.Get(t.Context(), google())
		require.True(t, errors.Is(err, secret.ErrUnavailable), "%v", err)
	})
}

package credentials_test

import (
	"context"
	"fmt"
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
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		release := b.vault.Stall() // or the first flow is over before the last one begins
		var flows sync.WaitGroup
		var failed atomic.Int32
		for range 10_000 {
			flows.Go(func() {
				if p, err := b.Get(t.Context(), google()); err != nil || p.ClientSecret.Reveal() != "s3cret" {
					failed.Add(1)
				}
			})
		}
		synctest.Wait()
		release()
		flows.Wait()
		require.Zero(t, failed.Load())
		require.Equal(t, 1, b.reads("google/client_id"))
		require.Equal(t, 1, b.reads("google/client_secret"))
		require.Len(t, b.recorder.of("credentials.read"), 2)
	})
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

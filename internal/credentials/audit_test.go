package credentials_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

func TestEveryReadFromTheBackendIsAudited(t *testing.T) {
	b := newBed(t)
	b.put(t, "google", "id", "s3cret")
	ctx := audit.WithRequest(t.Context(), audit.Request{ID: "req-1", IPAddress: "192.0.2.1"})
	for range 3 {
		_, err := b.Get(ctx, google())
		require.NoError(t, err)
	}
	events := b.recorder.of(audit.CredentialsRead)
	require.Len(t, events, 2, "none for what comes from the cache")
	keys := make(map[any]any)
	for _, e := range events {
		keys[e.Data["key"]] = e.Data["version"]
		require.Equal(t, vault, e.Data["backend"])
		require.Equal(t, google().ProviderID.String(), e.Data["provider_id"])
		require.Equal(t, "req-1", e.Data["request_id"], "the request that caused it")
		require.Equal(t, "192.0.2.1", e.IPAddress)
	}
	require.Equal(t, map[any]any{"google/client_id": "1", "google/client_secret": "2"}, keys)

	_, err := b.Read(ctx, google())
	require.NoError(t, err)
	_, _, err = b.Reload(ctx, google(), pair("id", "s3cret"))
	require.NoError(t, err)
	require.Len(t, b.recorder.of(audit.CredentialsRead), 6)
}

// Of a pair that is only half there, the half that was read is audited.
func TestHalfAPairIsAudited(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.vault.Set(t.Context(), "google/client_id", "id"))
	_, err := b.Get(t.Context(), google())
	require.ErrorIs(t, err, secret.ErrNotFound)
	require.Len(t, b.recorder.of(audit.CredentialsRead), 1)
}

func TestWhatCannotBeAuditedIsNotHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		b.recorder.fail(fmt.Errorf("database down: %w", errors.Join(secret.ErrUnavailable, secret.ErrNotFound)))
		calls := map[string]func() (credentials.Pair, error){
			"get":  func() (credentials.Pair, error) { return b.Get(t.Context(), google()) },
			"read": func() (credentials.Pair, error) { return b.Read(t.Context(), google()) },
			"reload": func() (credentials.Pair, error) {
				p, _, err := b.Reload(t.Context(), google(), pair("id", "old"))
				return p, err
			},
		}
		for name, call := range calls {
			p, err := call()
			require.ErrorIs(t, err, credentials.ErrNotAudited, name)
			for _, sentinel := range []error{secret.ErrNotFound, secret.ErrDenied, secret.ErrUnavailable, secret.ErrThrottled, secret.ErrInvalid} {
				require.NotErrorIs(t, err, sentinel, name)
			}
			require.True(t, p.Equal(credentials.Pair{}), name)
		}
		require.Equal(t, 0, credentials.Cached(b.Service))

		// What was audited when it was read stays, and a refresh that cannot be is not used.
		b.recorder.fail(nil)
		_, err := b.Get(t.Context(), google())
		require.NoError(t, err)
		b.recorder.fail(errors.New("database down"))
		time.Sleep(4 * time.Minute)
		b.put(t, "google", "id", "new")
		for range 2 {
			p, err := b.Get(t.Context(), google())
			require.NoError(t, err)
			requirePair(t, p, "id", "s3cret")
			synctest.Wait()
		}
		// It is no outage of the backend, so nothing is bridged.
		time.Sleep(time.Minute)
		_, err = b.Get(t.Context(), google())
		require.ErrorIs(t, err, credentials.ErrNotAudited)
	})
}

// A denial is recorded once a minute and place, and no more than a hundred are.
func TestDenialsDoNotFloodTheAuditLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.vault.Fail(secret.ErrDenied)
		for range 30 {
			_, err := b.Get(t.Context(), google())
			require.ErrorIs(t, err, secret.ErrDenied)
			time.Sleep(time.Second)
		}
		events := b.recorder.of(audit.CredentialsDenied)
		require.Len(t, events, 2)
		require.Equal(t, vault, events[0].Data["backend"])
		require.Equal(t, "read", events[0].Data["operation"])

		time.Sleep(time.Minute)
		_, _ = b.Get(t.Context(), google())
		require.Len(t, b.recorder.of(audit.CredentialsDenied), 4)
		for i := range 1000 {
			ref := google()
			ref.Key = fmt.Sprintf("p%d", i)
			_, _ = b.Get(t.Context(), ref)
		}
		require.Len(t, b.recorder.of(audit.CredentialsDenied), 102)
	})
}

// That a failure cannot be recorded does not change which failure it was.
func TestFailureThatCannotBeAuditedStaysWhatItWas(t *testing.T) {
	b := newBed(t)
	b.recorder.fail(errors.New("database down"))
	b.vault.Fail(secret.ErrDenied)
	_, err := b.Get(t.Context(), google())
	require.ErrorIs(t, err, secret.ErrDenied)
}

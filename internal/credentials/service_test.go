package credentials_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

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

package credentials_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// A backend that is not configured from the start is opened when a row names it, and
// tried again, not at once, if that fails.
func TestAFurtherBackendIsOpenedWhenARowNamesIt(t *testing.T) {
	now, opened := time.Now(), 0
	failure := errors.New("AWS_REGION is not set")
	further := memory.New()
	b := newBed(t, func(o *credentials.Options) {
		o.Now = func() time.Time { return now }
		o.Further = func(name string) (credentials.Backend, error) {
			require.Equal(t, "aws-secrets-manager", name)
			opened++
			return credentials.Backend{Name: name, Store: further, External: true}, failure
		}
	})
	require.NoError(t, further.Set(t.Context(), "google/client_id", "the id"))
	require.NoError(t, further.Set(t.Context(), "google/client_secret", "the secret"))
	ref := credentials.Ref{Backend: "aws-secrets-manager", Key: "google"}
	for range 3 {
		_, err := b.Get(t.Context(), ref)
		require.ErrorIs(t, err, credentials.ErrNotConfigured)
		require.ErrorIs(t, err, secret.ErrDenied)
		require.ErrorContains(t, err, "AWS_REGION is not set")
	}
	require.Equal(t, 1, opened, "not at every flow")
	require.False(t, b.Configured(ref.Backend))
	for range 3 {
		all := b.Health(t.Context())
		require.Len(t, all, 2, "readiness tells of it from here on")
		require.Equal(t, ref.Backend, all[1].Name)
		require.Equal(t, credentials.StatusDenied, all[1].Status)
		require.NotContains(t, all[1].Message, "AWS_REGION", "health is public")
	}
	require.Equal(t, 1, opened)
	now, failure = now.Add(time.Minute), nil
	for range 3 {
		p, err := b.Get(t.Context(), ref)
		require.NoError(t, err)
		require.Equal(t, "the id", p.ClientID.Reveal())
	}
	require.Equal(t, 2, opened)
	require.Len(t, b.Health(t.Context()), 2)
	require.Equal(t, credentials.StatusOK, b.Health(t.Context())[1].Status)
}

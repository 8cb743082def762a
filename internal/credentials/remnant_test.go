package credentials_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// bedOn is a bed whose vault is at hand too.
func bedOn(t *testing.T) (*bed, *memory.Backend) {
	t.Helper()
	m := memory.New()
	faulty := memory.NewFaulty(m)
	b := newBed(t, func(o *credentials.Options) {
		o.Backends = []credentials.Backend{{Name: vault, Store: faulty, External: true}}
	})
	b.vault = faulty
	return b, m
}

// What a Create that was cut off has begun goes with its provider, and nobody else's does.
func TestWhatACutOffCreateHasBegunGoes(t *testing.T) {
	owner := ownerOf(google())
	later := credentials.Owner{ProviderID: owner.ProviderID, Generation: owner.Generation + 1}
	stranger := credentials.Owner{ProviderID: uuid.MustParse("01944444-4444-7444-8444-444444444444"), Generation: 1}
	for mark, gone := range map[string]bool{owner.String(): true, later.String(): false, stranger.String(): false, "terraform": false} {
		b, m := bedOn(t)
		m.Abandon(secretKey, mark)
		require.NoError(t, b.Erase(t.Context(), vault, "google", owner, false))
		require.Equal(t, !gone, m.Abandoned(secretKey), mark)
		require.Equal(t, gone, len(b.recorder.of(audit.CredentialsDeleted)) == 1, mark)
	}
}

// A failure to remove it can be repeated.
func TestWhatACutOffCreateHasBegunIsTriedAgain(t *testing.T) {
	b, m := bedOn(t)
	m.Abandon(idKey, ownerOf(google()).String())
	b.vault.Fail(errOutage, memory.OpRemoveRemnant)
	require.ErrorIs(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), false), secret.ErrUnavailable)
	b.vault.Fail(nil)
	require.NoError(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), false))
	require.False(t, m.Abandoned(idKey))
}

// Whoever undoes a Create removes what it has begun, or says that it is left.
func TestAFailedCreateRemovesWhatItHasBegun(t *testing.T) {
	for _, answers := range []bool{true, false} {
		b, m := bedOn(t)
		b.vault.Before(func(_ context.Context, c memory.Call) error {
			switch {
			case c.Op == memory.OpCreate && c.Key == secretKey:
				m.Abandon(secretKey, ownerOf(google()).String())
				return errOutage
			case c.Op == memory.OpRemoveRemnant && !answers:
				return errOutage
			}
			return nil
		})
		err := b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"))
		require.ErrorIs(t, err, secret.ErrUnavailable)
		require.Equal(t, !answers, m.Abandoned(secretKey))
		require.Equal(t, !answers, errors.Is(err, credentials.ErrLeftBehind))
	}
}

package credentials_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

func TestEraseDeletesOnlyWhatIsProved(t *testing.T) {
	owner := credentials.Owner{ProviderID: google().ProviderID, Generation: 5}
	mark := func(id uuid.UUID, generation int64) string {
		return credentials.Owner{ProviderID: id, Generation: generation}.String()
	}
	stranger := uuid.MustParse("01944444-4444-7444-8444-444444444444")
	for _, c := range []struct {
		name, mark string
		published  bool
		gone       bool
	}{
		{"its own", mark(owner.ProviderID, 5), false, true},
		{"its own, of an earlier generation", mark(owner.ProviderID, 3), false, true},
		{"its own, of a later generation", mark(owner.ProviderID, 6), true, false},
		{"a successor's", mark(stranger, 1), true, false},
		{"somebody else's mark", "terraform", true, false},
		{"another spelling of a mark", "nexus-broker/" + owner.ProviderID.String() + "/05", true, false},
		{"unmarked, published: rotated by a person", "", true, true},
		{"unmarked, never published", "", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			for _, key := range []string{idKey, secretKey} {
				if c.mark == "" {
					require.NoError(t, b.vault.Set(t.Context(), key, "value"))
					continue
				}
				_, err := b.vault.Replace(t.Context(), key, "value", c.mark, "")
				require.NoError(t, err)
			}
			err := b.Erase(t.Context(), vault, "google", owner, c.published)
			if c.gone {
				require.NoError(t, err)
				requireStored(t, b, "", "")
				require.Len(t, b.recorder.of(audit.CredentialsDeleted), 2)
				return
			}
			var kept *credentials.NotOursError
			require.ErrorAs(t, err, &kept)
			require.Equal(t, []string{"memory/" + idKey, "memory/" + secretKey}, kept.Paths)
			requireStored(t, b, "value", "value")
			require.Zero(t, b.vault.Count(memory.OpDelete))
		})
	}
}

func TestEraseDeletesWhatItCanProveBesideWhatItCannot(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "")))
	require.NoError(t, b.vault.Set(t.Context(), secretKey, "theirs"))
	err := b.Erase(t.Context(), vault, "google", ownerOf(google()), false)
	var kept *credentials.NotOursError
	require.ErrorAs(t, err, &kept)
	require.Equal(t, []string{"memory/" + secretKey}, kept.Paths)
	requireStored(t, b, "", "theirs")
}

func TestEraseCanBeRepeated(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")))
	b.vault.Before(at(memory.OpRemoveVersion, secretKey, failing(errOutage)))
	require.ErrorIs(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), false), secret.ErrUnavailable)
	b.vault.Before(at(memory.OpRead, secretKey, failing(errOutage)))
	require.ErrorIs(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), false), secret.ErrUnavailable)
	b.vault.Before(nil)
	for range 2 {
		require.NoError(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), false))
	}
	requireStored(t, b, "", "")
}

func TestEraseTakesThePairOutOfTheCache(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")))
	_, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	require.NoError(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), true))
	_, err = b.Get(t.Context(), google())
	require.ErrorIs(t, err, secret.ErrNotFound)
}

// A value that is in nobody's form cannot be proved to be the broker's. Where the
// provider had been published, the place was the broker's: what lies below goes too.
func TestEraseOfWhatCannotBeRead(t *testing.T) {
	for _, cause := range []error{secret.ErrInvalid, secret.ErrNotFound} {
		b := newBed(t)
		b.vault.Fail(cause, memory.OpRead)
		err := b.Erase(t.Context(), vault, "google", ownerOf(google()), false)
		var kept *credentials.NotOursError
		require.Equal(t, errors.Is(cause, secret.ErrInvalid), errors.As(err, &kept), "%v", err)
		require.Zero(t, b.vault.Count(memory.OpDelete))
		require.NoError(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), true))
		require.Equal(t, 2, b.vault.Count(memory.OpDelete))
	}
}

func TestMarksTellAnOutageFromNoMark(t *testing.T) {
	b := newBed(t)
	id, sec, err := b.Marks(t.Context(), google())
	require.NoError(t, err)
	require.Zero(t, id)
	require.Zero(t, sec)
	b.vault.Fail(errOutage)
	_, _, err = b.Marks(t.Context(), google())
	require.ErrorIs(t, err, secret.ErrUnavailable)
}

// bare hides everything but the three methods that every backend has.
type bare struct{ secret.SecretBackend }

// A backend without marks works too; what it holds is proved by nothing.
func TestBackendWithoutMarks(t *testing.T) {
	inner := memory.NewFaulty(memory.New())
	b := newBed(t, func(o *credentials.Options) {
		o.Backends = []credentials.Backend{{Name: vault, Store: bare{inner}, External: true}}
	})
	get := func(key string) string {
		value, _ := inner.Get(t.Context(), key)
		return value
	}
	ref, owner := google(), ownerOf(google())
	require.Equal(t, "google", b.Locate(ref), "a backend that cannot tell")
	require.NoError(t, b.Create(t.Context(), ref, owner, pair("id", "s3cret")))
	p, err := b.Get(t.Context(), ref)
	require.NoError(t, err)
	requirePair(t, p, "id", "s3cret")
	require.ErrorIs(t, b.Create(t.Context(), ref, owner, pair("id", "s3cret")), secret.ErrExists)
	require.NoError(t, b.Replace(t.Context(), ref, owner, pair("id", "s3cret"), pair("id", "new")))
	require.Equal(t, "new", get(secretKey))

	var kept *credentials.NotOursError
	require.ErrorAs(t, b.Erase(t.Context(), vault, "google", owner, false), &kept)
	require.NoError(t, b.Erase(t.Context(), vault, "google", owner, true))
	require.Empty(t, get(idKey)+get(secretKey))

	// A create whose answer was lost is undone, since the value is the one it wrote.
	inner.After(at(memory.OpSet, secretKey, failing(errOutage)))
	err = b.Create(t.Context(), ref, owner, pair("id", "s3cret"))
	require.ErrorIs(t, err, secret.ErrUnavailable)
	require.NotErrorIs(t, err, credentials.ErrLeftBehind)
	inner.After(nil)
	require.Empty(t, get(idKey)+get(secretKey))
}

func TestOwner(t *testing.T) {
	o := credentials.Owner{ProviderID: google().ProviderID, Generation: 12}
	require.Equal(t, "nexus-broker/01933333-3333-7333-8333-333333333333/12", o.String())
	require.NoError(t, secret.CheckOwner(o.String()))
	parsed, ok := credentials.ParseOwner(o.String())
	require.True(t, ok)
	require.Equal(t, o, parsed)
	for _, mark := range []string{
		"", "nexus-broker/", "nexus-broker//1", "nexus-broker/01933333-3333-7333-8333-333333333333",
		"nexus-broker/01933333-3333-7333-8333-333333333333/", "nexus-broker/01933333-3333-7333-8333-333333333333/x",
		"nexus-broker/01933333-3333-7333-8333-333333333333/+1", "nexus-broker/01933333-3333-7333-8333-333333333333/01",
		"nexus-broker/01933333-3333-7333-8333-333333333333/1/2", "Nexus-broker/01933333-3333-7333-8333-333333333333/1",
		"nexus-broker/01933333333373338333333333333333/1", "nexus-broker/99999999999999999999/1",
	} {
		_, ok := credentials.ParseOwner(mark)
		require.False(t, ok, mark)
	}
}

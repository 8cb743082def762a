package credentials_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// withPair returns a bed with a pair of the broker's, and the reference of its change.
func withPair(t *testing.T, change ...func(*credentials.Options)) (*bed, credentials.Ref) {
	b := newBed(t, change...)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "old")))
	next := google()
	next.Generation++
	return b, next
}

// over puts a backend between the service and the bed's vault.
func over(store func(secret.OwnedBackend) secret.SecretBackend) func(*credentials.Options) {
	return func(o *credentials.Options) {
		o.Backends[0].Store = store(o.Backends[0].Store.(secret.OwnedBackend))
	}
}

func TestReplaceOfAPairThatHasChangedWritesNothing(t *testing.T) {
	for _, key := range []string{idKey, secretKey} { // whichever it is to change
		b, next := withPair(t)
		require.NoError(t, b.vault.Set(t.Context(), key, "theirs"))
		b.vault.Reset()
		err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id", "new"))
		require.ErrorIs(t, err, credentials.ErrChanged)
		require.NotErrorIs(t, err, credentials.ErrTorn)
		for _, sentinel := range []error{secret.ErrNotFound, secret.ErrDenied, secret.ErrUnavailable, secret.ErrThrottled, secret.ErrInvalid} {
			require.NotErrorIs(t, err, sentinel)
		}
		require.Zero(t, b.vault.Count(memory.Writes...))
		require.Equal(t, credentials.StatusOK, b.Health(t.Context())[0].Status, "no outage")
	}
	b, next := withPair(t)
	require.NoError(t, b.vault.Delete(t.Context(), secretKey))
	err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id", "new"))
	require.ErrorIs(t, err, credentials.ErrChanged)
}

// What somebody writes between the reading and the writing is not overwritten.
func TestReplaceDoesNotOverwriteWhatItHasNotRead(t *testing.T) {
	for key, want := range map[string][2]string{idKey: {"theirs", "old"}, secretKey: {"id", "theirs"}} {
		b, next := withPair(t)
		b.vault.Before(at(memory.OpReplace, key, func(ctx context.Context) error {
			b.vault.Before(nil)
			return b.vault.Set(ctx, key, "theirs")
		}))
		err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id2", "new"))
		require.ErrorIs(t, err, credentials.ErrChanged)
		require.NotErrorIs(t, err, credentials.ErrTorn)
		requireStored(t, b, want[0], want[1])
	}
}

// late is a store one of whose writes is given up, and lands when it is told to.
type late struct {
	secret.OwnedBackend
	key  string
	land func() error
}

func (l *late) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	if key != l.key || l.land != nil {
		return l.OwnedBackend.Replace(ctx, key, value, owner, ifVersion)
	}
	l.land = func() error {
		_, err := l.OwnedBackend.Replace(context.WithoutCancel(ctx), key, value, owner, ifVersion)
		return err
	}
	return "", errOutage
}

func TestAWriteThatWasGivenUpCannotLandLater(t *testing.T) {
	for _, key := range []string{idKey, secretKey} {
		slow := &late{key: key}
		b, next := withPair(t, over(func(store secret.OwnedBackend) secret.SecretBackend {
			slow.OwnedBackend = store
			return slow
		}))
		err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id2", "new"))
		require.ErrorIs(t, err, secret.ErrUnavailable)
		require.NotErrorIs(t, err, credentials.ErrTorn)
		require.ErrorIs(t, slow.land(), secret.ErrChanged)
		requireStored(t, b, "id", "old")
	}
}

// twice sends every write again, as a client does whose answer was lost.
type twice struct{ secret.OwnedBackend }

func (s twice) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	if version, err := s.OwnedBackend.Replace(ctx, key, value, owner, ifVersion); err != nil {
		return version, err
	}
	return s.OwnedBackend.Replace(ctx, key, value, owner, ifVersion)
}

func TestARepeatedWriteIsNoChangeBySomebodyElse(t *testing.T) {
	b, next := withPair(t, over(func(store secret.OwnedBackend) secret.SecretBackend { return twice{store} }))
	require.NoError(t, b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id2", "new")))
	requireStored(t, b, "id2", "new")
}

// versionless is a store that keeps marks and no versions.
type versionless struct{ secret.OwnedBackend }

func (s versionless) Read(ctx context.Context, key string) (secret.Item, error) {
	item, err := s.OwnedBackend.Read(ctx, key)
	item.Version = ""
	return item, err
}

func (s versionless) Create(ctx context.Context, key, value, owner string) (string, error) {
	_, err := s.OwnedBackend.Create(ctx, key, value, owner)
	return "", err
}

func (s versionless) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	if ifVersion != "" {
		return "", errors.New("a version that this store has not given")
	}
	_, err := s.OwnedBackend.Replace(ctx, key, value, owner, "")
	return "", err
}

func noVersions(store secret.OwnedBackend) secret.SecretBackend { return versionless{store} }

// Another replica's newer value, written while this one was held up, outlives the undo.
func TestUndoLeavesWhatOthersHaveWrittenSince(t *testing.T) {
	for name, change := range map[string]func(*credentials.Options){
		"versions": func(*credentials.Options) {}, "no versions": over(noVersions),
	} {
		t.Run(name, func(t *testing.T) {
			b, next := withPair(t, change)
			newer := ownerOf(next)
			newer.Generation++
			takeOver := func(ctx context.Context) error {
				b.vault.Before(nil)
				_, err := b.vault.Replace(ctx, idKey, "newer", newer.String(), "")
				return errors.Join(err, secret.ErrDenied)
			}
			b.vault.Before(at(memory.OpReplace, secretKey, takeOver))
			err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id2", "new"))
			require.ErrorIs(t, err, secret.ErrDenied)
			require.ErrorIs(t, err, credentials.ErrTorn)
			requireStored(t, b, "newer", "old")

			b = newBed(t, change)
			b.vault.Before(at(memory.OpCreate, secretKey, takeOver))
			err = b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"))
			require.ErrorIs(t, err, secret.ErrDenied)
			require.NotErrorIs(t, err, credentials.ErrLeftBehind)
			requireStored(t, b, "newer", "")
		})
	}
}

func TestAStoreWithoutVersionsIsUndoneToo(t *testing.T) {
	for name, after := range map[string]memory.Hook{
		"done, answer lost": once(at(memory.OpReplace, secretKey, failing(errOutage))),
		"refused":           nil,
	} {
		b, next := withPair(t, over(noVersions))
		b.vault.After(after)
		if after == nil {
			b.vault.Before(once(at(memory.OpReplace, secretKey, failing(secret.ErrDenied))))
		}
		err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id2", "new"))
		require.Error(t, err, name)
		require.NotErrorIs(t, err, credentials.ErrTorn, name)
		requireStored(t, b, "id", "old")
	}
	b := newBed(t, over(noVersions))
	b.vault.Before(at(memory.OpCreate, secretKey, failing(secret.ErrDenied)))
	require.ErrorIs(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")), secret.ErrDenied)
	requireStored(t, b, "", "")
}

// Versions that a person can still undelete outlive a failed Create.
func TestCreateTakesBackOnlyItsOwnVersion(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.vault.Set(t.Context(), secretKey, "theirs"))
	require.ErrorIs(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")), secret.ErrExists)
	requireStored(t, b, "", "theirs")
	b = newBed(t)
	b.vault.After(at(memory.OpCreate, secretKey, failing(errOutage)))
	require.ErrorIs(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")), secret.ErrUnavailable)
	requireStored(t, b, "", "")
	require.Equal(t, 2, b.vault.Count(memory.OpRemoveVersion))
	require.Zero(t, b.vault.Count(memory.OpDelete))

	// The same later, if the process has died in between.
	require.NoError(t, b.vault.Set(t.Context(), idKey, "id"))
	b.vault.After(nil)
	_, err := b.vault.Replace(t.Context(), idKey, "id", ownerOf(google()).String(), "")
	require.NoError(t, err)
	require.NoError(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), false))
	requireStored(t, b, "", "")
	require.Zero(t, b.vault.Count(memory.OpDelete))
}

// A process that was suspended for longer than its claim lives undoes nothing.
func TestNothingIsUndoneLongAfterTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, next := withPair(t)
		for suspended, torn := range map[time.Duration]bool{2 * time.Second: false, 6 * time.Second: true} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			b.vault.Before(once(at(memory.OpReplace, secretKey, func(context.Context) error {
				time.Sleep(suspended)
				return secret.ErrDenied
			})))
			err := b.Replace(ctx, next, ownerOf(next), pair("id", "old"), pair("id2", "new"))
			cancel()
			require.ErrorIs(t, err, secret.ErrDenied)
			require.Equal(t, torn, errors.Is(err, credentials.ErrTorn), suspended)
			if torn {
				requireStored(t, b, "id2", "old")
				_, err := b.vault.Replace(t.Context(), idKey, "id", ownerOf(google()).String(), "")
				require.NoError(t, err)
			}
		}
	})
}

// The same where the undo has to look first, because an answer was lost.
func TestUndoDoesNotOverwriteWhatItHasNotRead(t *testing.T) {
	b, next := withPair(t)
	b.vault.After(at(memory.OpReplace, secretKey, func(context.Context) error {
		b.vault.After(at(memory.OpRead, secretKey, func(ctx context.Context) error {
			b.vault.After(nil)
			return b.vault.Set(ctx, secretKey, "newer")
		}))
		return errOutage
	}))
	err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id", "new"))
	require.ErrorIs(t, err, secret.ErrUnavailable)
	require.ErrorIs(t, err, credentials.ErrTorn)
	requireStored(t, b, "id", "newer")
}

package credentials_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

const (
	idKey     = "google/client_id"
	secretKey = "google/client_secret"
)

// at returns a hook that does something at one call.
func at(op memory.Op, key string, do func(context.Context) error) memory.Hook {
	return func(ctx context.Context, c memory.Call) error {
		if c.Op == op && c.Key == key {
			return do(ctx)
		}
		return nil
	}
}

func failing(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

func TestCreateStoresBothWithTheOwnersMark(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")))
	for key, want := range map[string]string{idKey: "id", secretKey: "s3cret"} {
		value, mark := b.stored(t, key)
		require.Equal(t, want, value)
		require.Equal(t, "nexus-broker/01933333-3333-7333-8333-333333333333/1", mark)
	}
	events := b.recorder.of(audit.CredentialsWritten)
	require.Len(t, events, 2)
	require.Equal(t, idKey, events[0].Data["key"])
	require.Equal(t, "1", events[0].Data["version"])
	require.Equal(t, vault, events[0].Data["backend"])

	p, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, p, "id", "s3cret")
	id, sec, err := b.Marks(t.Context(), google())
	require.NoError(t, err)
	require.Equal(t, ownerOf(google()), id)
	require.Equal(t, ownerOf(google()), sec)
}

func TestCreateStoresNoZeroValue(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "")))
	require.Equal(t, 1, b.vault.Count(memory.Writes...))
	_, sec, err := b.Marks(t.Context(), google())
	require.NoError(t, err)
	require.Equal(t, credentials.Owner{}, sec)
}

// A value of somebody else is named, stays as it is, and what was written beside it
// is removed.
func TestCreateNeverOverwrites(t *testing.T) {
	for _, taken := range []string{idKey, secretKey} {
		t.Run(taken, func(t *testing.T) {
			b := newBed(t)
			require.NoError(t, b.vault.Set(t.Context(), taken, "theirs"))
			err := b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"))
			var exists *credentials.ExistsError
			require.ErrorAs(t, err, &exists)
			require.ErrorIs(t, err, secret.ErrExists)
			require.NotErrorIs(t, err, credentials.ErrLeftBehind)
			require.Equal(t, "memory/"+taken, exists.Path)
			require.ErrorContains(t, err, "memory/"+taken)

			value, mark := b.stored(t, taken)
			require.Equal(t, "theirs", value)
			require.Empty(t, mark)
			for _, key := range []string{idKey, secretKey} {
				if value, _ := b.stored(t, key); key != taken {
					require.Empty(t, value)
				}
			}
		})
	}
}

// Another provider's value, or an older one of the same, is not overwritten either,
// even if it is the same.
func TestCreateDoesNotTakeOtherMarksForItsOwn(t *testing.T) {
	other := ownerOf(google())
	other.Generation = 0
	for _, mark := range []string{other.String(), "terraform", "nexus-broker/01944444-4444-7444-8444-444444444444/1"} {
		b := newBed(t)
		_, err := b.vault.Replace(t.Context(), idKey, "id", mark, "")
		require.NoError(t, err)
		require.ErrorIs(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")), secret.ErrExists)
		_, found := b.stored(t, idKey)
		require.Equal(t, mark, found)
	}
}

// A request that the store's client has repeated finds its own value there.
func TestCreateAcceptsItsOwnValue(t *testing.T) {
	b := newBed(t)
	_, err := b.vault.Replace(t.Context(), idKey, "id", ownerOf(google()).String(), "")
	require.NoError(t, err)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")))
	requireStored(t, b, "id", "s3cret")
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	outage := errOutage
	for name, hook := range map[string]struct{ before, after memory.Hook }{
		"first refused":                      {before: at(memory.OpCreate, idKey, failing(secret.ErrDenied))},
		"second refused":                     {before: at(memory.OpCreate, secretKey, failing(secret.ErrDenied))},
		"second out":                         {before: at(memory.OpCreate, secretKey, failing(outage))},
		"first written, its answer lost":     {after: at(memory.OpCreate, idKey, failing(outage))},
		"second written, its answer lost":    {after: at(memory.OpCreate, secretKey, failing(outage))},
		"second written, answer a timeout":   {after: at(memory.OpCreate, secretKey, failing(context.DeadlineExceeded))},
		"second throttled after a repeat":    {after: at(memory.OpCreate, secretKey, failing(secret.Throttled("429", 0)))},
		"second unknown, breaking the rules": {after: at(memory.OpCreate, secretKey, failing(errors.New("?")))},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.vault.Before(hook.before)
			b.vault.After(hook.after)
			err := b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"))
			require.Error(t, err)
			require.NotErrorIs(t, err, credentials.ErrLeftBehind)
			b.vault.Before(nil)
			b.vault.After(nil)
			for _, key := range []string{idKey, secretKey} {
				_, err := b.vault.Get(t.Context(), key)
				require.ErrorIs(t, err, secret.ErrNotFound, key)
			}
			require.Len(t, b.recorder.of(audit.CredentialsWritten), b.vault.Count(memory.OpCreate)-1,
				"what was surely written is audited, undone or not")
		})
	}
}

func TestCreateSaysWhatItCouldNotRemove(t *testing.T) {
	b := newBed(t)
	b.vault.Before(func(_ context.Context, c memory.Call) error {
		if c.Key == secretKey && c.Op == memory.OpCreate {
			b.vault.Fail(errOutage)
			return secret.ErrDenied
		}
		return nil
	})
	err := b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"))
	require.ErrorIs(t, err, secret.ErrDenied, "the cause stays")
	require.NotErrorIs(t, err, secret.ErrUnavailable)
	require.ErrorIs(t, err, credentials.ErrLeftBehind)
	require.ErrorContains(t, err, "memory/"+idKey)
	require.NotContains(t, err.Error(), "memory/"+secretKey)
	// The same if the backend was out all along: nobody can tell whether it was written.
	err = b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"))
	require.ErrorIs(t, err, secret.ErrUnavailable)
	require.ErrorIs(t, err, credentials.ErrLeftBehind)
}

// Removing what was written does not depend on the caller still being there.
func TestCreateCleansUpAfterACallerWhoHasGone(t *testing.T) {
	b := newBed(t)
	ctx, leave := context.WithCancel(t.Context())
	b.vault.Before(at(memory.OpCreate, secretKey, func(ctx context.Context) error { leave(); return ctx.Err() }))
	err := b.Create(ctx, google(), ownerOf(google()), pair("id", "s3cret"))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, credentials.ErrLeftBehind)
	value, _ := b.stored(t, idKey)
	require.Empty(t, value)
}

// ... and does not take for ever.
func TestUndoingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.vault.Before(func(ctx context.Context, c memory.Call) error {
			if c.Key == secretKey {
				b.vault.Stall()
				return errOutage
			}
			return nil
		})
		start := time.Now()
		err := b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"))
		require.ErrorIs(t, err, credentials.ErrLeftBehind)
		require.LessOrEqual(t, time.Since(start), 30*time.Second)
	})
}

func TestNothingIllegalIsWrittenInPart(t *testing.T) {
	b := newBed(t)
	for _, p := range []credentials.Pair{
		pair("id", "not \xff UTF-8"), pair("id", strings.Repeat("x", secret.MaxValueBytes+1)),
	} {
		err := b.Create(t.Context(), google(), ownerOf(google()), p)
		require.ErrorIs(t, err, secret.ErrInvalid)
		require.NotContains(t, err.Error(), p.ClientSecret.Reveal())
		require.ErrorIs(t, b.Replace(t.Context(), google(), ownerOf(google()), pair("a", "b"), p), secret.ErrInvalid)
	}
	bad := google()
	bad.Key = "../google"
	require.ErrorIs(t, b.Create(t.Context(), bad, ownerOf(bad), pair("id", "s3cret")), secret.ErrInvalid)
	require.Zero(t, b.vault.Count())
}

func TestWritesThatCannotBeAuditedAreUndone(t *testing.T) {
	b := newBed(t)
	b.recorder.fail(errors.New("database down"))
	err := b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"))
	require.ErrorIs(t, err, credentials.ErrNotAudited)
	require.NotErrorIs(t, err, credentials.ErrLeftBehind)
	value, _ := b.stored(t, idKey)
	require.Empty(t, value)

	b.put(t, "google", "id", "old")
	err = b.Replace(t.Context(), google(), ownerOf(google()), pair("id", "old"), pair("id2", "new"))
	require.ErrorIs(t, err, credentials.ErrNotAudited)
	require.NotErrorIs(t, err, credentials.ErrTorn)
	requireStored(t, b, "id", "old")
}

func requireStored(t *testing.T, b *bed, id, clientSecret string) {
	t.Helper()
	value, _ := b.stored(t, idKey)
	require.Equal(t, id, value)
	value, _ = b.stored(t, secretKey)
	require.Equal(t, clientSecret, value)
}

func TestReadOnlyMakesNoCallThatWrites(t *testing.T) {
	b := newBed(t, func(o *credentials.Options) { o.ReadOnly = true })
	b.put(t, "google", "id", "s3cret")
	b.vault.Reset()
	ref, owner := google(), ownerOf(google())
	require.True(t, b.ReadOnly())
	require.ErrorIs(t, b.Create(t.Context(), ref, owner, pair("id", "s3cret")), credentials.ErrReadOnly)
	require.ErrorIs(t, b.Replace(t.Context(), ref, owner, pair("id", "s3cret"), pair("id", "n3w")), credentials.ErrReadOnly)
	require.ErrorIs(t, b.Erase(t.Context(), vault, "google", owner, true), credentials.ErrReadOnly)
	_, err := b.Get(t.Context(), ref)
	require.NoError(t, err)
	b.Health(t.Context())
	require.Zero(t, b.vault.Count(memory.Writes...))
}

package credentials_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

func TestReplaceTouchesOnlyWhatDiffers(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "old")))
	_, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	b.vault.Reset()
	next := google()
	next.Generation++

	require.NoError(t, b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id", "old")))
	require.Zero(t, b.vault.Count(), "values that are stored already are a no-op for the vault")

	require.NoError(t, b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id", "new")))
	require.Equal(t, 1, b.vault.Count(memory.Writes...))
	require.Contains(t, b.vault.Calls(), memory.Call{Op: memory.OpReplace, Key: secretKey})
	id, sec, err := b.Marks(t.Context(), next)
	require.NoError(t, err)
	require.Equal(t, ownerOf(google()), id)
	require.Equal(t, ownerOf(next), sec)

	// It is effective at once in this process, whatever the flow's row said.
	for _, ref := range []credentials.Ref{google(), next} {
		p, err := b.Get(t.Context(), ref)
		require.NoError(t, err)
		requirePair(t, p, "id", "new")
	}
}

// A flow that reads while the values are being changed leaves nothing old behind.
func TestChangeIsEffectiveForReadsDuringIt(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "old")))
	reading := func(context.Context) error {
		_, err := b.Get(t.Context(), google())
		return err
	}
	b.vault.Before(at(memory.OpReplace, secretKey, reading))
	require.NoError(t, b.Replace(t.Context(), google(), ownerOf(google()), pair("id", "old"), pair("id", "new")))
	p, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, p, "id", "new")

	b.vault.Before(at(memory.OpDelete, idKey, reading))
	require.NoError(t, b.Erase(t.Context(), vault, "google", ownerOf(google()), true))
	_, err = b.Get(t.Context(), google())
	require.ErrorIs(t, err, secret.ErrNotFound)
}

func TestReplaceDeletesAndCreates(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "s3cret")))
	require.NoError(t, b.Replace(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"), pair("id", "")))
	_, err := b.vault.Get(t.Context(), secretKey)
	require.ErrorIs(t, err, secret.ErrNotFound)
	require.Len(t, b.recorder.of(audit.CredentialsDeleted), 1)

	// What was not there before must not be there: somebody else has put it there.
	require.NoError(t, b.vault.Set(t.Context(), secretKey, "theirs"))
	err = b.Replace(t.Context(), google(), ownerOf(google()), pair("id", ""), pair("id", "ours"))
	require.ErrorIs(t, err, secret.ErrExists)
	require.NotErrorIs(t, err, credentials.ErrTorn)
	requireStored(t, b, "id", "theirs")
}

func TestFailedReplacePutsTheOldPairBack(t *testing.T) {
	for name, hook := range map[string]struct{ before, after memory.Hook }{
		"second refused":             {before: once(at(memory.OpReplace, secretKey, failing(secret.ErrDenied)))},
		"second out":                 {before: once(at(memory.OpReplace, secretKey, failing(errOutage)))},
		"second done, answer lost":   {after: once(at(memory.OpReplace, secretKey, failing(errOutage)))},
		"first done, answer lost":    {after: once(at(memory.OpReplace, idKey, failing(errOutage)))},
		"first refused, second kept": {before: once(at(memory.OpReplace, idKey, failing(secret.ErrDenied)))},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "old")))
			next := google()
			next.Generation++
			b.vault.Before(hook.before)
			b.vault.After(hook.after)
			err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id2", "new"))
			require.Error(t, err)
			require.NotErrorIs(t, err, credentials.ErrTorn)
			requireStored(t, b, "id", "old")
			// The marks are those of the generation that is still the row's.
			for _, key := range []string{idKey, secretKey} {
				_, mark := b.stored(t, key)
				require.Equal(t, ownerOf(google()).String(), mark)
			}
		})
	}
}

// once makes a hook fail the first time only.
func once(h memory.Hook) memory.Hook {
	var done atomic.Bool
	return func(ctx context.Context, c memory.Call) error {
		if done.Load() {
			return nil
		}
		err := h(ctx, c)
		done.Store(err != nil)
		return err
	}
}

// A secret that the failed change had added is gone again, one that it had removed
// is back.
func TestFailedReplaceUndoesCreationAndDeletion(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "")))
	b.vault.After(once(at(memory.OpCreate, secretKey, failing(errOutage))))
	err := b.Replace(t.Context(), google(), ownerOf(google()), pair("id", ""), pair("id2", "new"))
	require.ErrorIs(t, err, secret.ErrUnavailable)
	require.NotErrorIs(t, err, credentials.ErrTorn)
	requireStored(t, b, "id", "")

	require.NoError(t, b.Replace(t.Context(), google(), ownerOf(google()), pair("id", ""), pair("id", "s3cret")))
	b.vault.After(once(at(memory.OpDelete, secretKey, failing(errOutage))))
	err = b.Replace(t.Context(), google(), ownerOf(google()), pair("id", "s3cret"), pair("id2", ""))
	require.NotErrorIs(t, err, credentials.ErrTorn)
	requireStored(t, b, "id", "s3cret")
}

// A first pair that is refused half way leaves nothing.
func TestFailedReplaceOfNothingLeavesNothing(t *testing.T) {
	b := newBed(t)
	b.vault.Before(at(memory.OpCreate, secretKey, failing(secret.ErrDenied)))
	err := b.Replace(t.Context(), google(), ownerOf(google()), credentials.Pair{}, pair("id", "s3cret"))
	require.ErrorIs(t, err, secret.ErrDenied)
	require.NotErrorIs(t, err, credentials.ErrTorn)
	requireStored(t, b, "", "")
}

func TestReplaceSaysWhenThePairIsTorn(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "old")))
	b.vault.Before(func(_ context.Context, c memory.Call) error {
		if c.Key == secretKey && c.Op == memory.OpReplace {
			b.vault.Fail(errOutage)
			return secret.ErrDenied
		}
		return nil
	})
	next := google()
	next.Generation++
	err := b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id2", "new"))
	require.ErrorIs(t, err, credentials.ErrTorn)
	require.ErrorIs(t, err, secret.ErrDenied)
	b.vault.Fail(nil)
	requireStored(t, b, "id2", "old")
	id, sec, err := b.Marks(t.Context(), next)
	require.NoError(t, err)
	require.Equal(t, ownerOf(next), id, "the marks tell which value is the new one")
	require.Equal(t, ownerOf(google()), sec)
}

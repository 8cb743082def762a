package credentials_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// batching makes the bed's vault read several keys in one request.
func batching(o *credentials.Options) {
	faulty := o.Backends[0].Store.(*memory.Faulty)
	can := secret.CapabilitiesOf(faulty)
	can.Batch = faulty.Batch()
	o.Backends[0].Store = can
}

const bothKeys = idKey + " " + secretKey

func TestAPairIsReadInOneRequest(t *testing.T) {
	b := newBed(t, batching)
	b.put(t, "google", "id", "s3cret")
	b.vault.Reset()
	p, err := b.Get(t.Context(), google())
	require.NoError(t, err)
	requirePair(t, p, "id", "s3cret")
	require.Equal(t, []memory.Call{{Op: memory.OpReadBatch, Key: bothKeys}}, b.vault.Calls())

	events := b.recorder.of(audit.CredentialsRead)
	require.Len(t, events, 2)
	for i, key := range []string{idKey, secretKey} {
		require.Equal(t, key, events[i].Data["key"])
		require.NotEmpty(t, events[i].Data["version"])
	}

	// A public client has one value: there is nothing to put together.
	public := google()
	public.Public = true
	b.vault.Reset()
	_, err = b.Read(t.Context(), public)
	require.NoError(t, err)
	require.Equal(t, []memory.Call{{Op: memory.OpRead, Key: idKey}}, b.vault.Calls())
}

func TestABatchFailsLikeTwoReads(t *testing.T) {
	b := newBed(t, batching)
	require.NoError(t, b.vault.Set(t.Context(), idKey, "id"))
	_, err := b.Get(t.Context(), google())
	var missing *credentials.MissingError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, []string{"memory/" + secretKey}, missing.Paths)

	b.Forget(google())
	b.vault.Fail(secret.ErrDenied, memory.OpReadBatch)
	_, err = b.Get(t.Context(), google())
	require.ErrorIs(t, err, secret.ErrDenied)
	b.vault.Fail(nil)

	require.NoError(t, b.vault.Set(t.Context(), secretKey, "s3cret"))
	b.recorder.fail(errors.New("the database is down"))
	p, err := b.Read(t.Context(), google())
	require.ErrorIs(t, err, credentials.ErrNotAudited)
	require.Zero(t, p, "what is not audited is not handed out")
}

// What is decided by the owner of a value is read with its owner.
func TestOwnershipIsNotReadInABatch(t *testing.T) {
	b := newBed(t, batching)
	require.NoError(t, b.Create(t.Context(), google(), ownerOf(google()), pair("id", "old")))
	next := google()
	next.Generation++
	b.vault.Before(func(_ context.Context, c memory.Call) error {
		require.NotEqual(t, memory.OpReadBatch, c.Op)
		return nil
	})
	require.NoError(t, b.Replace(t.Context(), next, ownerOf(next), pair("id", "old"), pair("id", "new")))
	id, _, err := b.Marks(t.Context(), next)
	require.NoError(t, err)
	require.Equal(t, ownerOf(google()), id)
	require.NoError(t, b.Erase(t.Context(), vault, "google", ownerOf(next), true))
	for _, key := range []string{idKey, secretKey} {
		value, _ := b.stored(t, key)
		require.Empty(t, value)
	}
}

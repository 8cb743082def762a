package seal_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/seal"
)

func TestCurrentTellsTheFirstKeyFromTheOthers(t *testing.T) {
	older, newer := bytes.Repeat([]byte{1}, seal.KeyBytes), bytes.Repeat([]byte{2}, seal.KeyBytes)
	before, err := seal.NewKeyring(older)
	require.NoError(t, err)
	after, err := seal.NewKeyring(newer, older)
	require.NoError(t, err)
	envelope := before.Seal("secret/k", []byte("v"))
	require.True(t, before.Current(envelope))
	require.False(t, after.Current(envelope))
	_, err = after.Open("secret/k", envelope)
	require.NoError(t, err, "it opens all the same")
	require.True(t, after.Current(after.Seal("secret/k", []byte("v"))))
	require.False(t, after.Current("AAAA"), "the old format names no key")
}

func TestTheKeyOfAnEnvelopeIsKnownWithoutOpeningIt(t *testing.T) {
	older, newer := bytes.Repeat([]byte{1}, seal.KeyBytes), bytes.Repeat([]byte{2}, seal.KeyBytes)
	before, err := seal.NewKeyring(older)
	require.NoError(t, err)
	after, err := seal.NewKeyring(newer, older)
	require.NoError(t, err)
	envelope := before.Seal("secret/k", []byte("v"))
	require.Equal(t, before.CurrentID(), seal.KeyID(envelope))
	require.NotEqual(t, after.CurrentID(), seal.KeyID(envelope))
	require.True(t, after.Has(before.CurrentID()))
	require.False(t, before.Has(after.CurrentID()))
	for _, none := range []string{"", "AAAA", "plain text", "nb1.", "nb1." + before.CurrentID(), envelope + "="} {
		require.Empty(t, seal.KeyID(none), none)
	}
}

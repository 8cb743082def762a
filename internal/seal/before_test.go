package seal_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// openAsTheExistingBroker is what the existing broker does with a token.
func openAsTheExistingBroker(t *testing.T, key []byte, envelope string) string {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(envelope)
	require.NoError(t, err)
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	plain, err := aead.Open(nil, data[:12], data[12:], nil)
	require.NoError(t, err)
	return string(plain)
}

func TestWhatIsSealedAsBeforeIsTheExistingBrokers(t *testing.T) {
	for _, v := range golden(t) {
		if v.Format == 0 {
			require.Equal(t, v.Plaintext, openAsTheExistingBroker(t, v.Key, v.Envelope), "the golden vector is of the same form")
		}
	}
	r := ring(t, key(2), key(1))
	const plain = `{"access_token":"a \u00e9 🙂"}`
	envelope := r.SealAsBefore([]byte(plain))
	require.Equal(t, plain, openAsTheExistingBroker(t, key(2), envelope), "under the first key")
	require.NotEqual(t, envelope, r.SealAsBefore([]byte(plain)))
	opened, err := r.Open(token, envelope)
	require.NoError(t, err)
	require.Equal(t, plain, string(opened))
	_, err = r.Open(verifier, envelope)
	require.ErrorIs(t, err, seal.ErrFormat, "nothing but a token is ever opened so")
	require.False(t, seal.Sealed(envelope))
	require.True(t, seal.Sealed(r.Seal(verifier, nil)))
}

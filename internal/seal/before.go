package seal

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
)

// SealAsBefore encrypts a token under the first key in the format of version 0, which
// the existing broker reads. Nothing binds the envelope to its place: it is for the
// tokens of a database that the existing broker still uses, and for nothing else.
func (r *Keyring) SealAsBefore(plaintext []byte) string {
	k := r.keys[0]
	nonce := make([]byte, k.aead.NonceSize(), k.aead.NonceSize()+len(plaintext)+k.aead.Overhead())
	_, _ = rand.Read(nonce) // crypto/rand.Read never fails: it ends the program instead
	return base64.StdEncoding.EncodeToString(k.aead.Seal(nonce, nonce, plaintext, nil))
}

// Sealed reports whether a text says that it is an envelope of version 1. Where the
// existing broker writes plaintext, this tells whose it is.
func Sealed(text string) bool { return strings.HasPrefix(text, prefix) }

package oauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"

	"github.com/nexus-broker/nexus-broker/secret"
)

// NewCodeVerifier returns a fresh code verifier: 32 random bytes in base64url, 43
// characters (RFC 7636 §4.1).
func NewCodeVerifier() secret.Value {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails; the process ends if the system has no randomness
	return secret.NewValue(base64.RawURLEncoding.EncodeToString(b[:]))
}

// CodeChallenge returns the verifier's S256 code challenge (RFC 7636 §4.2).
func CodeChallenge(v secret.Value) string {
	sum := sha256.Sum256([]byte(v.Reveal()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

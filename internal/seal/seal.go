// Package seal encrypts what the broker keeps in its database: AES-256-GCM in
// envelopes that name their format and key, each bound to the place it is stored
// at. It does no I/O.
//
// # Formats
//
// Version 1, written by Seal:
//
//	"nb1." key id "." base64url(nonce ‖ ciphertext ‖ tag)
//
// with a random nonce of 12 bytes, a tag of 16 bytes, unpadded base64url (RFC 4648
// §5), and "nb1" ‖ 0x00 ‖ purpose as associated data. The key id is the first 8
// bytes, in hex, of HKDF-SHA256 (RFC 5869) of the key with the info "nexus-broker
// key id": it tells keys apart and tells nothing of them. With random nonces one key
// is good for 2³² envelopes (NIST SP 800-38D §8.3).
//
// Version 0, the existing broker's, written by SealAsBefore while that broker uses the
// same database:
//
//	base64(nonce ‖ ciphertext ‖ tag)
//
// in padded standard base64, without associated data. Since nothing binds it to a
// place it is opened for tokens only, the one thing that was ever stored so.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// KeyBytes is the length of an encryption key.
const KeyBytes = 32

const (
	prefix     = "nb1."
	keyIDInfo  = "nexus-broker key id"
	keyIDBytes = 8

	legacyPurpose = "token/"
)

var (
	// ErrOpen: no key of the ring opens the envelope at this place: it was sealed
	// under another key, for another purpose, or has been altered.
	ErrOpen = errors.New("sealed data does not open with the configured ENCRYPTION_KEY")
	// ErrFormat: not an envelope.
	ErrFormat = errors.New("not a sealed envelope")
)

// Keyring seals under its first key and opens under all. It is safe for concurrent
// use and shows no key when printed.
type Keyring struct{ keys []*key }

type key struct {
	id   string
	aead cipher.AEAD
}

// NewKeyring returns a ring of keys of 32 bytes each. The first seals, all open.
func NewKeyring(keys ...[]byte) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("an encryption key ring needs at least one key")
	}
	ring := &Keyring{}
	for i, k := range keys {
		if len(k) != KeyBytes {
			return nil, fmt.Errorf("encryption key %d of the ring has %d instead of %d bytes", i+1, len(k), KeyBytes)
		}
		built, err := newKey(k)
		if err != nil {
			return nil, fmt.Errorf("encryption key %d of the ring: %w", i+1, err)
		}
		ring.keys = append(ring.keys, built)
	}
	return ring, nil
}

func newKey(k []byte) (*key, error) {
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	id, err := hkdf.Key(sha256.New, k, nil, keyIDInfo, keyIDBytes)
	if err != nil {
		return nil, err
	}
	return &key{id: hex.EncodeToString(id), aead: aead}, nil
}

// First returns a ring of the first key alone.
func (r *Keyring) First() *Keyring { return &Keyring{keys: r.keys[:1:1]} }

// Seal encrypts plaintext under the first key, bound to purpose: only Open with
// the same purpose gives it back. Two envelopes of one plaintext never are equal.
func (r *Keyring) Seal(purpose string, plaintext []byte) string {
	k := r.keys[0]
	nonce := make([]byte, k.aead.NonceSize(), k.aead.NonceSize()+len(plaintext)+k.aead.Overhead())
	_, _ = rand.Read(nonce) // crypto/rand.Read never fails: it ends the program instead
	sealed := k.aead.Seal(nonce, nonce, plaintext, associated(purpose))
	return prefix + k.id + "." + base64.RawURLEncoding.EncodeToString(sealed)
}

// Open decrypts an envelope of any known format. It returns an error wrapping
// ErrFormat or ErrOpen, which never holds any of the data.
func (r *Keyring) Open(purpose, envelope string) ([]byte, error) {
	if !strings.HasPrefix(envelope, prefix) {
		if !strings.HasPrefix(purpose, legacyPurpose) {
			return nil, ErrFormat
		}
		return r.openLegacy(envelope)
	}
	id, data, err := parse(envelope[len(prefix):])
	if err != nil {
		return nil, err
	}
	for _, k := range r.keys {
		if k.id == id {
			return k.open(data, associated(purpose))
		}
	}
	return nil, fmt.Errorf("%w: it was sealed under key %q, which is not in the ring", ErrOpen, id)
}

// parse reads what follows the prefix of version 1. There is one way to write an
// envelope: what Seal would write differently is refused.
func parse(envelope string) (keyID string, data []byte, err error) {
	keyID, body, ok := strings.Cut(envelope, ".")
	if id, err := hex.DecodeString(keyID); !ok || err != nil || len(id) != keyIDBytes || strings.ToLower(keyID) != keyID {
		return "", nil, ErrFormat
	}
	data, err = base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || strings.ContainsAny(body, "\r\n") { // which the decoder would skip
		return "", nil, ErrFormat
	}
	return keyID, data, nil
}

func (r *Keyring) openLegacy(envelope string) ([]byte, error) {
	data, err := base64.StdEncoding.DecodeString(envelope)
	if err != nil {
		return nil, ErrFormat
	}
	var plain []byte
	for _, k := range r.keys {
		if plain, err = k.open(data, nil); err == nil {
			return plain, nil
		}
	}
	return nil, err
}

func (k *key) open(data, associated []byte) ([]byte, error) {
	n := k.aead.NonceSize()
	if len(data) < n+k.aead.Overhead() {
		return nil, ErrFormat
	}
	plain, err := k.aead.Open(nil, data[:n], data[n:], associated)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func associated(purpose string) []byte { return append([]byte("nb1\x00"), purpose...) }

// String shows how many keys the ring holds.
func (r *Keyring) String() string { return fmt.Sprintf("keyring of %d keys", len(r.keys)) }

// GoString implements fmt.GoStringer like String.
func (r *Keyring) GoString() string { return r.String() }

// LogValue implements slog.LogValuer.
func (r *Keyring) LogValue() slog.Value { return slog.StringValue(r.String()) }

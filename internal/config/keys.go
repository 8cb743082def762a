package config

import (
	"encoding/base64"
	"fmt"

	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/secret"
)

// Keys are the broker's own keys.
type Keys struct {
	// Encryption seals what is kept in the database.
	Encryption *seal.Keyring
	// State signs the state of a consent flow: 32 raw bytes.
	State secret.Value

	ring []secret.Value // of Encryption
}

const wantKey = "give the base64 of 32 random bytes: openssl rand -base64 32"

func keyVariables() []variable {
	return append(encryptionVariables(), variable{
		name: "STATE_KEY", secret: true, required: true, want: wantKey, set: setStateKey,
	})
}

func encryptionVariables() []variable {
	return []variable{{name: "ENCRYPTION_KEY", secret: true, required: true, want: wantKey, set: setEncryptionKey}}
}

func setEncryptionKey(c *Config, text string) *Problem {
	var ring [][]byte
	for i, entry := range splitList(text) {
		key, wrong := decodeKey(entry)
		if wrong != "" {
			return invalid(fmt.Sprintf("%s (key %d of the list)", wrong, i+1), "")
		}
		ring = append(ring, key)
		c.Keys.ring = append(c.Keys.ring, secret.NewValue(string(key)))
	}
	keyring, err := seal.NewKeyring(ring...)
	if err != nil {
		return invalid("holds no key", "")
	}
	c.Keys.Encryption = keyring
	return nil
}

func setStateKey(c *Config, text string) *Problem {
	key, wrong := decodeKey(text)
	if wrong != "" {
		return invalid(wrong, "")
	}
	c.Keys.State = secret.NewValue(string(key))
	return nil
}

// decodeKey returns the key, or what is wrong with it.
func decodeKey(text string) (key []byte, wrong string) {
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, "is not base64"
	}
	if len(key) != seal.KeyBytes {
		return nil, fmt.Sprintf("has %d instead of %d bytes", len(key), seal.KeyBytes)
	}
	return key, ""
}

func (l *loader) checkKeys() {
	k := l.cfg.Keys
	for _, key := range k.ring {
		if !k.State.IsZero() && key.Equal(k.State) {
			l.warn("STATE_KEY is also in ENCRYPTION_KEY: whoever verifies a state can decrypt the database")
		}
	}
}

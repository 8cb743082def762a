package gcpsecretmanager

import (
	"fmt"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// MaxIDBytes is the longest id that a secret may have
// (https://cloud.google.com/secret-manager/docs/reference/rpc/google.cloud.secretmanager.v1#createsecretrequest).
const MaxIDBytes = 255

// An id may have letters, digits, "_" and "-" only. What a key has beyond them, and what
// could be read in two ways, is escaped:
//
//	/   __
//	.   _--
//	_   _-_   unless a letter or a digit follows it: then it stays as it is
//
// So "_" before a letter or digit is itself, before "_" a separator, before "-" an
// escape, and at the end of an id nothing that we write.
const (
	separator         = "__"
	escapedDot        = "_--"
	escapedUnderscore = "_-_"
)

// encode returns the part of an id that stands for key. Different keys have different
// parts, and decode returns the key.
func encode(key string) string {
	var id strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case c == '/':
			id.WriteString(separator)
		case c == '.':
			id.WriteString(escapedDot)
		case c == '_' && !(i+1 < len(key) && alphanumeric(key[i+1])):
			id.WriteString(escapedUnderscore)
		default:
			id.WriteByte(c)
		}
	}
	return id.String()
}

// decode reverses encode. It is false for what encode never returns.
func decode(id string) (key string, ok bool) {
	var k strings.Builder
	for rest := id; rest != ""; {
		switch {
		case rest[0] != '_':
			k.WriteByte(rest[0])
			rest = rest[1:]
		case strings.HasPrefix(rest, separator):
			k.WriteByte('/')
			rest = rest[len(separator):]
		case strings.HasPrefix(rest, escapedDot):
			k.WriteByte('.')
			rest = rest[len(escapedDot):]
		case strings.HasPrefix(rest, escapedUnderscore):
			k.WriteByte('_')
			rest = rest[len(escapedUnderscore):]
		default:
			k.WriteByte('_')
			rest = rest[1:]
		}
	}
	key = k.String()
	return key, encode(key) == id
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// legalID reports whether id has none but the characters of an id, and at least one.
func legalID(id string) bool {
	for i := range len(id) {
		if c := id[i]; !alphanumeric(c) && c != '_' && c != '-' {
			return false
		}
	}
	return id != ""
}

// ID returns the id of the secret that holds key, without the project:
// "nexus-providers__google__client_id". The error wraps secret.ErrInvalid: the key is
// not legal, or its id would be longer than MaxIDBytes. Only keys with very many dots,
// or a long prefix, come to that.
func (b *GCPBackend) ID(key string) (string, error) {
	if err := secret.CheckKey(key); err != nil {
		return "", err
	}
	id := b.prefix + separator + encode(key)
	if len(id) > MaxIDBytes {
		return "", fmt.Errorf("%w: key %q: its secret id would be %d characters long, the limit is %d: shorten the key or the prefix",
			secret.ErrInvalid, key, len(id), MaxIDBytes)
	}
	return id, nil
}

// Key returns the key that the secret with this id holds; false if it is none of ours.
func (b *GCPBackend) Key(id string) (key string, ok bool) {
	rest, below := strings.CutPrefix(id, b.prefix+separator)
	if !below {
		return "", false
	}
	key, ok = decode(rest)
	return key, ok && secret.CheckKey(key) == nil
}

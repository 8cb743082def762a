package secret

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The limits of keys and values, the same for every backend. They are the lowest
// common denominator of the stores: what they allow, every store can hold.
const (
	MaxKeySegments  = 8         // segments of a key, separated by "/"
	MaxSegmentBytes = 128       // bytes of one segment
	MaxKeyBytes     = 200       // bytes of a whole key, separators included
	MaxValueBytes   = 32 * 1024 // bytes of a value
	MaxOwnerBytes   = 200       // bytes of an owner
)

// CheckKey returns nil if key is legal, else an error wrapping ErrInvalid that
// quotes the key unless it is too long. A legal key has 1 to 8 segments separated
// by "/", each of 1 to 128 of the characters A-Z a-z 0-9 _ . - and neither "." nor
// "..", and is at most 200 bytes long.
func CheckKey(key string) error {
	if len(key) > MaxKeyBytes {
		return fmt.Errorf("%w: the key is %d bytes long, the limit is %d", ErrInvalid, len(key), MaxKeyBytes)
	}
	segments := strings.Split(key, "/")
	if len(segments) > MaxKeySegments {
		return fmt.Errorf("%w: key %q has %d segments, the limit is %d", ErrInvalid, key, len(segments), MaxKeySegments)
	}
	for _, s := range segments {
		if err := checkSegment(s); err != nil {
			return fmt.Errorf("%w: key %q: %s", ErrInvalid, key, err.Error())
		}
	}
	return nil
}

func checkSegment(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("a segment is empty")
	case s == "." || s == "..":
		return fmt.Errorf("a segment is %q", s)
	case len(s) > MaxSegmentBytes:
		return fmt.Errorf("a segment is %d bytes long, the limit is %d", len(s), MaxSegmentBytes)
	}
	for i := range len(s) {
		if !legalByte(s[i]) {
			return fmt.Errorf("byte %q is not one of A-Z a-z 0-9 _ . -", s[i])
		}
	}
	return nil
}

func legalByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '_' || c == '.' || c == '-'
}

// CheckValue returns nil if value can be stored: 1 byte to 32 KiB of valid UTF-8.
// Else it returns an error wrapping ErrInvalid, which never contains the value.
func CheckValue(value string) error {
	switch {
	case value == "":
		return fmt.Errorf("%w: the value is empty", ErrInvalid)
	case len(value) > MaxValueBytes:
		return fmt.Errorf("%w: the value is longer than %d bytes", ErrInvalid, MaxValueBytes)
	case !utf8.ValidString(value):
		return fmt.Errorf("%w: the value is not valid UTF-8", ErrInvalid)
	}
	return nil
}

// CheckOwner returns nil if owner can be stored beside a value: 1 to 200 bytes of
// the characters of a key, "/" included. Else it returns an error wrapping ErrInvalid.
func CheckOwner(owner string) error {
	if owner == "" || len(owner) > MaxOwnerBytes {
		return fmt.Errorf("%w: an owner has 1 to %d bytes", ErrInvalid, MaxOwnerBytes)
	}
	for i := range len(owner) {
		if owner[i] != '/' && !legalByte(owner[i]) {
			return fmt.Errorf("%w: owner %q: byte %q is not one of A-Z a-z 0-9 _ . - /", ErrInvalid, owner, owner[i])
		}
	}
	return nil
}

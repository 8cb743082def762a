package secret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxReferenceBytes is the most bytes that a reference has, its version and field
// included.
const MaxReferenceBytes = 1024

// Reference names a value that lies where somebody else has put it, and not under a
// key of ours: a field of a KV secret, or a member of a JSON object, at a path of the
// store. Its written form is "path[@version][#field]", as in
// "team-a/salesforce@3#client_secret".
type Reference struct {
	// Path is the path below the mount (Vault), or the full name of the secret (AWS,
	// GCP).
	Path string
	// Version is a version of the store, "" for the current one: a KV version 2 number,
	// a version id or staging label of AWS, a version number or alias of GCP.
	Version string
	// Field is a field of the KV secret, or a top-level member of the JSON object that
	// the value is; "" for the value itself.
	Field string
}

// ParseReference reads the written form. What follows the first "#" is the field, and
// what follows the last "@" before it the version. The error is a BadReference. Whether
// the store can hold such a path is for ReferenceReader.ReferenceSegments to say.
func ParseReference(s string) (Reference, error) {
	if len(s) > MaxReferenceBytes {
		return Reference{}, BadReference(fmt.Sprintf("the reference is %d bytes long, the limit is %d", len(s), MaxReferenceBytes))
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return Reference{}, BadReference("the reference has a character that is not printable")
	}
	rest, field, hasField := strings.Cut(s, "#")
	path, version := rest, ""
	at := strings.LastIndexByte(rest, '@')
	if at >= 0 {
		path, version = rest[:at], rest[at+1:]
	}
	switch {
	case path == "":
		return Reference{}, BadReference("the reference has no path: it reads path[@version][#field]")
	case at >= 0 && version == "", hasField && field == "":
		return Reference{}, BadReference(fmt.Sprintf("reference %q: nothing follows @ or #: it reads path[@version][#field]", s))
	}
	return Reference{Path: path, Version: version, Field: field}, nil
}

// String returns the written form.
func (r Reference) String() string {
	s := r.Path
	if r.Version != "" {
		s += "@" + r.Version
	}
	if r.Field != "" {
		s += "#" + r.Field
	}
	return s
}

// BadReference returns an error wrapping ErrInvalid, for what is no reference in a store,
// whatever lies there: a path or a version that it cannot have. The reason says to whoever
// has written the reference what is wrong; it may quote it.
func BadReference(reason string) error { return &referenceError{reason} }

// ReferenceReason returns the reason of a BadReference, if err carries one.
func ReferenceReason(err error) (reason string, ok bool) {
	var e *referenceError
	if errors.As(err, &e) {
		return e.reason, true
	}
	return "", false
}

type referenceError struct{ reason string }

func (e *referenceError) Error() string { return ErrInvalid.Error() + ": " + e.reason }
func (e *referenceError) Unwrap() error { return ErrInvalid }

// ReferenceReader is implemented by backends that can read values which lie outside
// of their keys. It never writes there.
type ReferenceReader interface {
	// ReadReference returns the value that ref names, and the version it has. Its
	// limits are those of every value. A secret or a version that is not there is an
	// error wrapping ErrNotFound; a secret without the field, or whose field is no
	// text, one wrapping ErrInvalid that names the fields that are there, and no value.
	// A version that is none in the store, and in a store that keeps no versions every one,
	// is a BadReference.
	// A path that ReferenceSegments refuses is ErrInvalid before anything is sent. For
	// all else the errors of SecretBackend apply; the message has the written form of
	// ref in place of the key.
	ReadReference(ctx context.Context, ref Reference) (Item, error)

	// ReferenceSegments returns the path in the store's own segments, cleaned: two paths
	// that mean the same secret have the same segments, and a path lies below another if
	// its segments begin with the other's. A path that the store could take for another
	// one (an empty, "." or ".." segment inside, a character that is read in a special
	// way) is a BadReference. Nothing is sent.
	ReferenceSegments(path string) ([]string, error)

	// ReferencePrefix returns, as segments, the place below which all keys of the
	// backend lie.
	ReferencePrefix() []string

	// LocateReference tells a person where the value lies.
	LocateReference(ref Reference) string
}

// ReferencePlaces returns, as segments, the places below which references may lie that
// need rights of their own: those of prefixes which lie neither below r's own place nor
// below another one of prefixes, in their order. For prefixes that are no path in r's
// store there is an error too, wrapping ErrInvalid.
func ReferencePlaces(r ReferenceReader, prefixes []string) (places [][]string, err error) {
	var all [][]string
	var wrong []error
	for _, prefix := range prefixes {
		segments, err := r.ReferenceSegments(strings.TrimSuffix(prefix, "/"))
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		all = append(all, segments)
	}
	for i, place := range all {
		covers := func(other []string) bool {
			return len(other) <= len(place) && slices.Equal(place[:len(other)], other)
		}
		covered := covers(r.ReferencePrefix())
		for j, other := range all {
			// Of two that are the same the first one counts.
			covered = covered || covers(other) && (len(other) < len(place) || j < i)
		}
		if !covered {
			places = append(places, place)
		}
	}
	return places, errors.Join(wrong...)
}

// JSONMember returns the text of a top-level member of the JSON object that value is.
// The error wraps ErrInvalid and names the members that are there, never a value.
func JSONMember(value, member string) (string, error) {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(value), &object) != nil || object == nil {
		return "", fmt.Errorf("%w: the value is not a JSON object, so it has no member %q", ErrInvalid, member)
	}
	raw, there := object[member]
	if !there {
		return "", fmt.Errorf("%w: the JSON object has no member %q; it has %s", ErrInvalid, member, quotedNames(object))
	}
	var text *string
	if json.Unmarshal(raw, &text) != nil || text == nil {
		return "", fmt.Errorf("%w: the member %q of the JSON object is no text", ErrInvalid, member)
	}
	return *text, nil
}

// maxNames bounds how many names a message lists.
const maxNames = 20

func quotedNames(object map[string]json.RawMessage) string {
	if len(object) == 0 {
		return "none"
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, fmt.Sprintf("%.60q", name))
	}
	slices.Sort(names)
	if len(names) > maxNames {
		return strings.Join(names[:maxNames], ", ") + fmt.Sprintf(" and %d more", len(names)-maxNames)
	}
	return strings.Join(names, ", ")
}

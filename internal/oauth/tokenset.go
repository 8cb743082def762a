package oauth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// TokenSet is a token endpoint's answer, or the credentials a user has entered:
// JSON members, each kept exactly as it came. Printed in any way it shows nothing;
// only Encode gives the members.
type TokenSet struct {
	// Behind a pointer for the same reason as secret.Value.
	fields *map[string]json.RawMessage
}

// NewTokenSet returns a TokenSet of fields, which it copies.
func NewTokenSet(fields map[string]json.RawMessage) TokenSet {
	f := maps.Clone(fields)
	return TokenSet{fields: &f}
}

// DecodeTokenSet reads a JSON object. Its errors quote nothing of the input.
func DecodeTokenSet(b []byte) (TokenSet, error) {
	var f map[string]json.RawMessage
	if err := json.Unmarshal(b, &f); err != nil || f == nil {
		return TokenSet{}, fmt.Errorf("not a JSON object")
	}
	return TokenSet{fields: &f}, nil
}

// Encode returns the members as a JSON object, in clear.
func (t TokenSet) Encode() ([]byte, error) { return json.Marshal(t.all()) }

// Fields returns a copy of the members, in clear.
func (t TokenSet) Fields() map[string]json.RawMessage { return maps.Clone(t.all()) }

func (t TokenSet) all() map[string]json.RawMessage {
	if t.fields == nil {
		return map[string]json.RawMessage{}
	}
	return *t.fields
}

// Text returns a member that is a JSON string, "" if it is absent or no string.
func (t TokenSet) Text(name string) secret.Value {
	var s string
	if json.Unmarshal(t.all()[name], &s) != nil {
		return secret.Value{}
	}
	return secret.NewValue(s)
}

// Has reports whether the member is there and not null.
func (t TokenSet) Has(name string) bool {
	v, ok := t.all()[name]
	return ok && string(v) != "null"
}

// ExpiresIn returns the numeric expires_in (RFC 6749 §5.1), in seconds on the
// wire. ok is false if there is none, or it is not a number that fits.
func (t TokenSet) ExpiresIn() (lifetime time.Duration, ok bool) {
	const century = 100 * 365 * 24 * 3600
	n, err := strconv.ParseFloat(string(t.all()["expires_in"]), 64)
	if err != nil || n != n || n < 0 || n > century {
		return 0, false
	}
	return time.Duration(n * float64(time.Second)), true
}

// Merge returns the set after a refresh that answered update: what update leaves
// out is kept, the refresh token among it (RFC 6749 §6). A null or empty
// refresh_token counts as left out.
func (t TokenSet) Merge(update TokenSet) TokenSet {
	merged := maps.Clone(t.all())
	for name, v := range update.all() {
		if name == "refresh_token" && update.Text(name).IsZero() {
			continue
		}
		merged[name] = v
	}
	return TokenSet{fields: &merged}
}

// WithoutAtAnyDepth returns the set without the named members, also those of objects
// within: Slack, for one, puts a user's refresh token below authed_user. What holds
// none of them is kept exactly as it came.
func (t TokenSet) WithoutAtAnyDepth(names ...string) TokenSet {
	rest := maps.Clone(t.all())
	for _, n := range names {
		delete(rest, n)
	}
	for name, raw := range rest {
		if stripped, changed := stripMembers(raw, names); changed {
			rest[name] = stripped
		}
	}
	return TokenSet{fields: &rest}
}

// stripMembers returns raw without the named members of its objects, and whether it
// had any.
func stripMembers(raw json.RawMessage, names []string) (stripped json.RawMessage, changed bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // numbers stay as written
	var v any
	if d.Decode(&v) != nil || !deleteMembers(v, names) {
		return raw, false
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return json.RawMessage("null"), true // cannot happen: v was JSON
	}
	return bytes.TrimSpace(out.Bytes()), true
}

// deleteMembers deletes the named members of every object in v, and reports whether
// there were any.
func deleteMembers(v any, names []string) (deleted bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, n := range names {
			if _, ok := v[n]; ok {
				delete(v, n)
				deleted = true
			}
		}
		for _, inner := range v {
			deleted = deleteMembers(inner, names) || deleted
		}
	case []any:
		for _, inner := range v {
			deleted = deleteMembers(inner, names) || deleted
		}
	}
	return deleted
}

// String shows nothing of the set.
func (t TokenSet) String() string { return "[redacted]" }

// GoString is String.
func (t TokenSet) GoString() string { return t.String() }

// Format writes String for every verb.
func (t TokenSet) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

// LogValue implements slog.LogValuer.
func (t TokenSet) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements encoding.TextMarshaler: a TokenSet that is encoded by
// accident shows nothing.
func (t TokenSet) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

package secret

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Value holds a secret string and does not show it: every fmt verb, slog and
// encoding/json print "[redacted]", also when the Value is a field of a struct
// that is printed. Only Reveal gives the string. The zero Value holds "".
type Value struct {
	// A pointer, because fmt prints unexported fields without asking their methods:
	// of a pointer it shows the address only.
	s *string
}

// NewValue returns a Value that holds s.
func NewValue(s string) Value { return Value{s: &s} }

// Reveal returns the string.
func (v Value) Reveal() string {
	if v.s == nil {
		return ""
	}
	return *v.s
}

// IsZero reports whether v holds the empty string.
func (v Value) IsZero() bool { return v.Reveal() == "" }

// Equal reports whether both hold the same string. It is not constant-time.
func (v Value) Equal(w Value) bool { return v.Reveal() == w.Reveal() }

// String returns "[redacted]", or "" for the zero Value.
func (v Value) String() string {
	if v.IsZero() {
		return ""
	}
	return redacted
}

// GoString is String.
func (v Value) GoString() string { return v.String() }

// Format writes String for every verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(v.String())) }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(v.String()) }

// MarshalText implements encoding.TextMarshaler, and with it JSON, YAML and map keys.
func (v Value) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

package relational

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// textOrNull returns nil for "": what is absent is NULL.
func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func idOrNull(id uuid.UUID) any {
	if id == uuid.Nil {
		return nil
	}
	return id
}

// at returns a time as it is stored: in UTC, with microseconds.
func at(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Truncate(time.Microsecond)
}

// text scans a text that may be NULL, which is "".
func text[T ~string](into *T) sql.Scanner { return nullText[T]{into} }

type nullText[T ~string] struct{ into *T }

func (n nullText[T]) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*n.into = ""
	case string:
		*n.into = T(v)
	case []byte:
		*n.into = T(v)
	default:
		return fmt.Errorf("a %T where a text was expected", v)
	}
	return nil
}

// instant scans a time that may be NULL, which is the zero time. A number is in
// microseconds since 1970.
func instant(into *time.Time) sql.Scanner { return nullTime{into} }

type nullTime struct{ into *time.Time }

func (n nullTime) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*n.into = time.Time{}
	case time.Time:
		*n.into = v.UTC()
	case int64:
		*n.into = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("a %T where a time was expected", v)
	}
	return nil
}

// limited is a text that a caller chose, with the limit of its column.
type limited struct {
	what  string
	value string
	max   int // characters; 0: none
}

// The widths of the columns that have one.
const (
	maxName      = 255
	maxCategory  = 100
	maxWorkspace = 255
)

// storable returns an error wrapping broker.ErrUnstorable if a text cannot be held.
func storable(texts ...limited) error {
	for _, t := range texts {
		switch {
		case strings.ContainsRune(t.value, 0):
			return fmt.Errorf("%w: %s contains a NUL character", broker.ErrUnstorable, t.what)
		case !utf8.ValidString(t.value):
			return fmt.Errorf("%w: %s is not valid UTF-8", broker.ErrUnstorable, t.what)
		case t.max > 0 && utf8.RuneCountInString(t.value) > t.max:
			return fmt.Errorf("%w: %s is longer than %d characters", broker.ErrUnstorable, t.what, t.max)
		}
	}
	return nil
}

func storableList(what string, list []string) error {
	for _, s := range list {
		if err := storable(limited{what: what, value: s}); err != nil {
			return err
		}
	}
	return nil
}

// storableJSON checks an object of a caller's. Text with a NUL character is legal
// JSON and yet nothing that PostgreSQL's jsonb can hold.
func storableJSON(what string, object []byte) error {
	if object == nil {
		return nil
	}
	v, err := decodeJSON(object)
	if err != nil {
		return fmt.Errorf("%w: %s is not valid JSON", broker.ErrUnstorable, what)
	}
	clean := true
	replaceTexts(v, func(s string) string {
		clean = clean && !strings.ContainsRune(s, 0)
		return s
	})
	if !clean {
		return fmt.Errorf("%w: %s contains a NUL character", broker.ErrUnstorable, what)
	}
	return nil
}

// recordable returns a text that is only recorded, without what a database cannot
// hold.
func recordable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// recordableJSON is recordable for a JSON value.
func recordableJSON(value string) (string, error) {
	if !strings.Contains(value, `\u`) {
		return value, nil // nothing is escaped that would need to be replaced
	}
	v, err := decodeJSON([]byte(value))
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(replaceTexts(v, recordable))
	return string(b), err
}

// decodeJSON keeps numbers as they are written.
func decodeJSON(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("more than one JSON value")
	}
	return v, nil
}

// replaceTexts applies f to every string of a decoded JSON value, names of members
// included.
func replaceTexts(v any, f func(string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		for i := range v {
			v[i] = replaceTexts(v[i], f)
		}
		return v
	case map[string]any:
		replaced := make(map[string]any, len(v))
		for name, member := range v {
			replaced[f(name)] = replaceTexts(member, f)
		}
		return replaced
	}
	return v
}

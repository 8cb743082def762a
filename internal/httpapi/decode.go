package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// decodeBody reads the request's body and decodes it.
func decodeBody(r *http.Request, v any, structs int) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	return decode(body, v, structs)
}

// decode decodes one JSON object into v, a pointer to a struct. Objects down to the
// depth structs (1: the object itself) are those that are decoded into structs.
//
// A member that is there twice is refused wherever it is: two readers of such a
// body, a proxy that checks it and this broker, may each believe another value.
// Where members are found without regard to case, they are compared so too.
func decode(body []byte, v any, structs int) error {
	if !utf8.Valid(body) || !json.Valid(body) || !startsObject(body) {
		return failure(codeInvalidJSON, "the request's body is not one JSON object")
	}
	if err := newMembers(body, structs).value(0); err != nil {
		return failure(codeInvalidJSON, "the request's body has a member twice in one object")
	}
	return decodeObject(body, v)
}

// startsObject reports whether body can only be a JSON object, if it is JSON.
func startsObject(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{"))
}

// decodeObject decodes a valid JSON object into v, a pointer to a struct. Members
// that v does not know are ignored.
func decodeObject(object []byte, v any) error {
	if err := json.Unmarshal(object, v); err != nil {
		return failure(codeInvalidJSON, fmt.Sprintf("the member %q has a value of the wrong type", wrongMember(object, v)))
	}
	return nil
}

// readBody reads the whole body. The size is limited by ServeHTTP.
func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &tooLarge):
		return nil, errBodyTooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, failure(codeRequestTimeout, "the request's body did not arrive in time")
	}
	return nil, failure(codeInvalidJSON, "the request's body could not be read to its end")
}

// members walks through a JSON value and looks for members that are there twice.
type members struct {
	dec     *json.Decoder
	structs int // objects less deep than this have members without regard to case
}

var errTwice = errors.New("a member is there twice")

func newMembers(valid []byte, structs int) members {
	dec := json.NewDecoder(bytes.NewReader(valid))
	dec.UseNumber()
	return members{dec: dec, structs: structs}
}

func (m members) value(depth int) error {
	token, err := m.dec.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		return m.object(depth)
	case json.Delim('['):
		for m.dec.More() {
			if err := m.value(depth + 1); err != nil {
				return err
			}
		}
		_, err = m.dec.Token()
	}
	return err
}

func (m members) object(depth int) error {
	seen := map[string]bool{}
	for m.dec.More() {
		token, err := m.dec.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if depth < m.structs {
			name = strings.Map(foldRune, name)
		}
		if seen[name] {
			return errTwice
		}
		seen[name] = true
		if err := m.value(depth + 1); err != nil {
			return err
		}
	}
	_, err := m.dec.Token()
	return err
}

// foldRune returns the smallest of the runes that equal c without regard to case,
// which is how encoding/json finds a struct's field.
func foldRune(c rune) rune {
	smallest := c
	for next := unicode.SimpleFold(c); next != c; next = unicode.SimpleFold(next) {
		smallest = min(smallest, next)
	}
	return smallest
}

// wrongMember names the member of object that v's type cannot hold. The decoder's
// own error would quote the value. The name is always that of a field: other members
// are ignored and never fail.
func wrongMember(object []byte, v any) string {
	var all map[string]json.RawMessage
	if json.Unmarshal(object, &all) != nil {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		alone, err := json.Marshal(map[string]json.RawMessage{name: all[name]})
		if err == nil && json.Unmarshal(alone, reflect.New(reflect.TypeOf(v).Elem()).Interface()) != nil {
			return name
		}
	}
	return ""
}

// pathID reads the id in the request's path.
func pathID(r *http.Request, code broker.Code) (uuid.UUID, error) {
	return parseID(r.PathValue("id"), code, "the id in the path is not a UUID")
}

// parseID reads a UUID in its usual form of 36 characters.
func parseID(s string, code broker.Code, message string) (uuid.UUID, error) {
	const usual = 36
	id, err := uuid.Parse(s)
	if err != nil || len(s) != usual {
		return uuid.Nil, failure(code, message)
	}
	return id, nil
}

package hashicorpvault

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The fields of a KV secret.
const (
	valueField = "value"
	ownerField = "managed_by" // what Create or Replace was given
)

// fields is what is written.
type fields map[string]string

func newFields(value, owner string) fields {
	f := fields{valueField: value}
	if owner != "" {
		f[ownerField] = owner
	}
	return f
}

// stored is what was found at a path.
type stored struct {
	exists bool
	fields map[string]json.RawMessage
	// version is the newest version, also if that one is deleted; 0 if the engine keeps
	// none or there is none.
	version int
}

// item reads the value out of the fields, for a secret whose path ends with the last
// segment of at. Its errors name fields, and hold nothing of what is in them.
func (s stored) item(at string) (secret.Item, error) {
	segments := strings.Split(at, "/")
	name, alias := valueField, segments[len(segments)-1]
	if _, ok := s.fields[name]; !ok && alias != ownerField {
		name = alias
	}
	if _, ok := s.fields[name]; !ok {
		return secret.Item{}, fmt.Errorf("%w: there is no field %q or %q but %s: store the value in one of the two",
			secret.ErrInvalid, valueField, alias, s.names())
	}
	item, err := s.field(name)
	if err != nil {
		return secret.Item{}, err
	}
	var owner string
	if json.Unmarshal(s.fields[ownerField], &owner) == nil && secret.CheckOwner(owner) == nil {
		item.Owner = owner
	}
	return item, nil
}

// field reads one field, without the owner.
func (s stored) field(name string) (secret.Item, error) {
	raw, ok := s.fields[name]
	if !ok {
		return secret.Item{}, fmt.Errorf("%w: there is no field %q but %s: name one of them", secret.ErrInvalid, name, s.names())
	}
	var value string
	if raw[0] != '"' || json.Unmarshal(raw, &value) != nil {
		return secret.Item{}, fmt.Errorf("%w: the field %q is not a string: store the value itself, in quotes", secret.ErrInvalid, name)
	}
	if err := secret.CheckValue(value); err != nil {
		return secret.Item{}, fmt.Errorf("the field %q: %w: store a usable value", name, err)
	}
	item := secret.Item{Value: secret.NewValue(value)}
	if s.version != 0 {
		item.Version = strconv.Itoa(s.version)
	}
	return item, nil
}

// maxNames bounds how many field names an error lists, maxName how much of one.
const (
	maxNames = 16
	maxName  = 64
)

// names lists the names of the fields for a person.
func (s stored) names() string {
	if len(s.fields) == 0 {
		return "no field at all"
	}
	names := slices.Sorted(maps.Keys(s.fields))
	more := ""
	if len(names) > maxNames {
		more = fmt.Sprintf(" and %d more", len(names)-maxNames)
		names = names[:maxNames]
	}
	for i, n := range names {
		if len(n) > maxName {
			n = n[:maxName] + "…"
		}
		names[i] = strconv.QuoteToASCII(n)
	}
	return strings.Join(names, ", ") + more
}

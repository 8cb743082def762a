package httpapi

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// formSchema is what a form shows of a JSON Schema of type object: its properties
// that are strings, numbers, booleans or enumerations of those. The values are
// validated by the domain, against the whole schema.
type formSchema struct {
	Title, Description string
	Fields             []formField
}

// formField is one property, as the template shows it.
type formField struct {
	Name        string // of the form's field
	ID          string // in the page
	Label, Hint string
	Kind        string // "text", "password", "email", "url", "number", "select", "checkbox"
	Options     []string
	Required    bool

	property string
	values   []json.RawMessage // of Options
}

// fieldPrefix keeps a property apart from the form's own fields.
const fieldPrefix = "credentials."

// property is what a form needs of a property's schema.
type property struct {
	Type        json.RawMessage   `json:"type"` // a string, or a list of them
	Title       string            `json:"title"`
	Description string            `json:"description"`
	Format      string            `json:"format"`
	Enum        []json.RawMessage `json:"enum"`
	WriteOnly   bool              `json:"writeOnly"`
}

// readSchema reads a JSON Schema; ok is false if it describes no field.
func readSchema(schema json.RawMessage) (form formSchema, ok bool) {
	var object struct {
		Title       string          `json:"title"`
		Description string          `json:"description"`
		Properties  json.RawMessage `json:"properties"`
		Required    []string        `json:"required"`
	}
	if json.Unmarshal(schema, &object) != nil {
		return form, false
	}
	form.Title, form.Description = object.Title, object.Description
	var properties map[string]json.RawMessage
	if json.Unmarshal(object.Properties, &properties) != nil {
		return form, false
	}
	for i, name := range memberNames(object.Properties) {
		var p property
		_ = json.Unmarshal(properties[name], &p) // true is a schema too: anything goes
		f := newField(name, p)
		f.ID = "field-" + strconv.Itoa(i)
		f.Required = slices.Contains(object.Required, name)
		form.Fields = append(form.Fields, f)
	}
	return form, len(form.Fields) > 0
}

// memberNames returns the names of a JSON object in the order in which they stand:
// the author of the schema chose it, and the form keeps it.
func memberNames(object json.RawMessage) []string {
	var names []string
	dec := json.NewDecoder(bytes.NewReader(object))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil
		}
		name, _ := token.(string)
		var skipped json.RawMessage
		if dec.Decode(&skipped) != nil {
			return nil
		}
		names = append(names, name)
	}
	return names
}

func newField(name string, p property) formField {
	f := formField{
		Name: fieldPrefix + name, Label: p.Title, Hint: p.Description,
		Kind: kindOf(p), property: name, values: p.Enum,
	}
	if f.Label == "" {
		f.Label = name
	}
	for _, v := range p.Enum {
		f.Options = append(f.Options, plainText(v))
	}
	return f
}

func kindOf(p property) string {
	switch {
	case len(p.Enum) > 0:
		return "select"
	case p.is("boolean"):
		return "checkbox"
	case p.is("number"), p.is("integer"):
		return "number"
	case p.Format == "password", p.WriteOnly:
		return "password"
	case p.Format == "email":
		return "email"
	case p.Format == "uri":
		return "url"
	}
	return "text"
}

// is reports whether the property's type is t, or a list with t in it.
func (p property) is(t string) bool {
	var one string
	var many []string
	_ = json.Unmarshal(p.Type, &one)
	_ = json.Unmarshal(p.Type, &many)
	return one == t || slices.Contains(many, t)
}

// plainText returns a JSON string's text, and any other JSON as it is.
func plainText(v json.RawMessage) string {
	var s *string
	if json.Unmarshal(v, &s) == nil && s != nil {
		return *s
	}
	return string(v)
}

// credentialsOf turns a posted form into the JSON values that its schema asks for.
// Fields that were left empty are left out.
func credentialsOf(schema json.RawMessage, posted url.Values) map[string]json.RawMessage {
	values := map[string]json.RawMessage{}
	form, _ := readSchema(schema)
	for _, f := range form.Fields {
		if v := f.value(posted.Get(f.Name)); v != nil {
			values[f.property] = v
		}
	}
	return values
}

// value returns what was entered as JSON, nil if nothing was. What does not fit the
// field's type stays a string: the schema will refuse it with a better message.
func (f formField) value(entered string) json.RawMessage {
	switch {
	case f.Kind == "checkbox":
		if entered == "" {
			return json.RawMessage("false")
		}
		return json.RawMessage("true")
	case entered == "":
		return nil
	case f.Kind == "select":
		if i := slices.Index(f.Options, entered); i >= 0 {
			return f.values[i]
		}
	case f.Kind == "number" && isNumber(entered):
		return json.RawMessage(strings.TrimSpace(entered))
	}
	text, err := json.Marshal(entered)
	if err != nil {
		return nil
	}
	return text
}

func isNumber(s string) bool {
	var n json.Number
	return json.Unmarshal([]byte(s), &n) == nil && !strings.HasPrefix(strings.TrimSpace(s), `"`)
}

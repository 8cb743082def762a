package manifest

import (
	"encoding/json"
	"math"
	"regexp"

	"go.yaml.in/yaml/v3"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/secret"
)

// provider reads a provider. What is wrong with it has been reported.
func (r *reader) provider(n *yaml.Node) Provider {
	var p Provider
	members := r.members(n, "a provider", Fields()...)
	if members == nil {
		return p
	}
	before := len(r.problems)
	for _, t := range append(p.texts(), text{fieldName, &p.Name}, text{fieldPreviousName, &p.PreviousName}) {
		*t.value = r.text(members[t.name], t.name)
	}
	p.ClientID = secret.NewValue(r.text(members[fieldClientID], fieldClientID))
	p.ClientSecret = secret.NewValue(r.text(members[fieldClientSecret], fieldClientSecret))
	p.EnableDiscovery = r.boolean(members[fieldEnableDiscovery], fieldEnableDiscovery)
	if list := members[fieldScopes]; list != nil {
		for _, item := range r.items(list, fieldScopes, 2) {
			p.Scopes = append(p.Scopes, r.text(item, "a scope"))
		}
	}
	if params := members[fieldParams]; params != nil {
		p.Params = r.params(params)
	}
	if ref := members[fieldCredentialsRef]; ref != nil {
		p.CredentialsRef = r.reference(ref)
	}
	if len(r.problems) == before { // what could not be read would be missed too
		for _, wrong := range p.check() {
			r.problem(n.Line, "%s", wrong)
		}
	}
	return p
}

func (r *reader) reference(n *yaml.Node) *apiclient.Reference {
	members := r.members(n, fieldCredentialsRef, fieldClientID, fieldClientSecret)
	return &apiclient.Reference{
		ClientID:     r.text(members[fieldClientID], fieldCredentialsRef+"."+fieldClientID),
		ClientSecret: r.text(members[fieldClientSecret], fieldCredentialsRef+"."+fieldClientSecret),
	}
}

// text reads a scalar that must be a text, and expands the variables in it. n may be
// nil: the member is left out.
func (r *reader) text(n *yaml.Node, name string) string {
	if n == nil {
		return ""
	}
	if n = r.enter(n, 2); n == nil {
		return ""
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		r.problem(n.Line, "%s must be a text", name)
	case n.Tag == "!!null":
		r.problem(n.Line, "%s has no value: give one, or leave the member out", name)
	case n.Tag != "!!str":
		r.problem(n.Line, "%s must be a text: put the value into quotes", name)
	default:
		s, _ := r.expand(n, name)
		return s
	}
	return ""
}

// expand returns a scalar with its variables expanded, and whether there were any.
func (r *reader) expand(n *yaml.Node, name string) (s string, used bool) {
	s, used, unset, err := expand(n.Value, r.lookup)
	if err != nil {
		r.problem(n.Line, "%s: %v", name, err)
	}
	for _, v := range unset {
		r.problem(n.Line, "%s: the environment variable %s is not set", name, v)
	}
	return s, used
}

// boolean reads true or false, written so or come from a variable.
func (r *reader) boolean(n *yaml.Node, name string) bool {
	if n == nil {
		return false
	}
	if n = r.enter(n, 2); n == nil {
		return false
	}
	value := n.Value
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str":
		before := len(r.problems)
		expanded, used := r.expand(n, name)
		if len(r.problems) > before {
			return false
		}
		if value = expanded; !used {
			value = "" // a text in quotes
		}
	case n.Kind != yaml.ScalarNode || n.Tag != "!!bool":
		value = ""
	}
	switch value {
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	}
	r.problem(n.Line, "%s must be true or false", name)
	return false
}

func (r *reader) params(n *yaml.Node) map[string]any {
	if n = r.enter(n, 2); n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.problem(n.Line, "params must be a mapping")
		return nil
	}
	object, _ := r.value(n, fieldParams, 2).(map[string]any)
	return object
}

// value reads a free-form value as what its JSON form decodes to.
func (r *reader) value(n *yaml.Node, path string, depth int) any {
	if n = r.enter(n, depth); n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, r.value(item, path+"[]", depth+1))
		}
		return list
	case yaml.MappingNode:
		return r.object(n, path, depth)
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		var b bool
		_ = n.Decode(&b) // the parser has seen that it is one
		return b
	case "!!int", "!!float":
		return r.number(n, path)
	case "!!str", "!!timestamp": // JSON has no time: it stays the text that it is
		s, _ := r.expand(n, path)
		return s
	}
	r.problem(n.Line, "%s has a YAML tag that JSON cannot express", path)
	return nil
}

func (r *reader) object(n *yaml.Node, path string, depth int) map[string]any {
	object := map[string]any{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			r.problem(key.Line, "%s has a member whose name is not a text: put it into quotes", path)
			continue
		}
		if _, twice := object[key.Value]; twice {
			r.problem(key.Line, "%s.%s is there twice", path, oneLine(key.Value))
			continue
		}
		object[key.Value] = r.value(value, path+"."+oneLine(key.Value), depth+1)
	}
	return object
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// number returns a number with the digits that it was written with, if JSON writes
// numbers so.
func (r *reader) number(n *yaml.Node, path string) any {
	if jsonNumber.MatchString(n.Value) {
		return json.Number(n.Value)
	}
	var v any
	if n.Decode(&v) == nil {
		if f, isFloat := v.(float64); !isFloat || !math.IsInf(f, 0) && !math.IsNaN(f) {
			if b, err := json.Marshal(v); err == nil {
				return json.Number(b)
			}
		}
	}
	r.problem(n.Line, "%s is a number that JSON cannot express", path)
	return nil
}

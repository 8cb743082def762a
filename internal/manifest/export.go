package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
)

// Exported is a manifest of what a broker has.
type Exported struct {
	Providers []Provider // by name
	// Variables are the environment variables that stand in it for credentials.
	Variables []string
	// LeftOut are providers of older brokers whose names a manifest cannot hold.
	LeftOut []string
	// Unreadable are providers that the broker cannot show, because the credentials that
	// it has for them do not open. They are not in the manifest.
	Unreadable []Unreadable

	variables map[string]bool
	nodes     []*yaml.Node
}

// Unreadable is a provider that the broker cannot show.
type Unreadable struct {
	Name   string
	Reason error // an *apiclient.Error
}

// Export reads every provider. It takes no credential along: a variable of the
// environment stands in the place of each that the broker itself keeps.
func Export(ctx context.Context, broker *apiclient.Client) (*Exported, error) {
	listed, err := broker.Providers(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(listed))
	for i, s := range listed {
		ids[i] = s.ID
	}
	found, failed := profiles(ctx, broker, ids)
	slices.SortFunc(listed, func(a, b apiclient.Summary) int { return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID) })
	e := &Exported{variables: map[string]bool{}}
	for _, s := range listed {
		b := found[s.ID]
		switch err := failed[s.ID]; {
		case unreadable(err):
			e.Unreadable = append(e.Unreadable, Unreadable{s.Name, err})
		case err != nil:
			return nil, err
		case b == nil: // it has been deleted since
		case !legalName(b.Name):
			e.LeftOut = append(e.LeftOut, b.Name)
		default:
			p, err := fromBroker(*b)
			if err != nil {
				return nil, err
			}
			e.Providers = append(e.Providers, p)
			e.nodes = append(e.nodes, e.provider(p, b))
		}
	}
	return e, nil
}

// unreadable reports whether err is about one provider's credentials, and says nothing of
// the others'.
func unreadable(err error) bool {
	var e *apiclient.Error
	return errors.As(err, &e) && e.Code == "credentials_invalid"
}

// variable returns a name for the environment that nothing else has.
func (e *Exported) variable(parts ...string) string {
	name := strings.ToUpper(regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(strings.Join(parts, "_"), "_"))
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	for e.variables[name] {
		name += "_2"
	}
	e.variables[name] = true
	e.Variables = append(e.Variables, name)
	return "${" + name + "}"
}

func scalar(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s) // quoted where it would be read as something else
	if strings.ContainsFunc(s, invisible) {
		n.Style = yaml.DoubleQuotedStyle // the only one that has escapes
	}
	return n
}

// invisible: whoever reviews the manifest would not see what it does, such as turning the
// direction of the text. New lines and tabs show.
func invisible(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }

// showInvisible writes as escapes what is left of invisible characters in YAML: they stand
// in double quotes, and those above U+FFFF the encoder has escaped already.
func showInvisible(text []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(text) {
		if invisible(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}

func plain(tag, s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: s} }

func add(mapping *yaml.Node, name string, value *yaml.Node) {
	mapping.Content = append(mapping.Content, scalar(name), value)
}

// provider returns a provider in YAML. What is the broker's default is left out.
func (e *Exported) provider(p Provider, b *apiclient.Profile) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	add(m, fieldName, scalar(p.Name))
	texts := p.texts()
	for _, t := range texts[:2] { // auth_type, auth_header
		e.addText(m, t)
	}
	e.addCredentials(m, p, b)
	for _, t := range texts[2:] {
		e.addText(m, t)
	}
	if p.EnableDiscovery {
		add(m, fieldEnableDiscovery, plain("!!bool", "true"))
	}
	if len(p.Scopes) > 0 {
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, s := range p.Scopes {
			list.Content = append(list.Content, scalar(escape(s)))
		}
		add(m, fieldScopes, list)
	}
	if len(p.Params) > 0 {
		add(m, fieldParams, e.value(p.Params, p.Name))
	}
	return m
}

func (e *Exported) addText(m *yaml.Node, t text) {
	if *t.value != "" {
		add(m, t.name, scalar(escape(*t.value)))
	}
}

// addCredentials adds variables for the credentials that the broker keeps, and
// references. What others keep (external) needs neither.
func (e *Exported) addCredentials(m *yaml.Node, p Provider, b *apiclient.Profile) {
	if ref := p.CredentialsRef; ref != nil {
		r := &yaml.Node{Kind: yaml.MappingNode}
		add(r, fieldClientID, scalar(escape(ref.ClientID)))
		if ref.ClientSecret != "" {
			add(r, fieldClientSecret, scalar(escape(ref.ClientSecret)))
		}
		add(m, fieldCredentialsRef, r)
		return
	}
	managed := b.Credentials != nil && b.Credentials.Managed
	if managed || !p.ClientID.IsZero() {
		add(m, fieldClientID, scalar(e.variable(p.Name, fieldClientID)))
	}
	if managed && !p.public() || !p.ClientSecret.IsZero() {
		add(m, fieldClientSecret, scalar(e.variable(p.Name, fieldClientSecret)))
	}
}

// value returns a decoded JSON value in YAML, with variables in the place of what may
// be a credential.
func (e *Exported) value(v any, path string) *yaml.Node {
	switch v := v.(type) {
	case nil:
		return plain("!!null", "null")
	case bool:
		return plain("!!bool", fmt.Sprint(v))
	case json.Number:
		if strings.ContainsAny(string(v), ".eE") {
			return plain("!!float", string(v))
		}
		return plain("!!int", string(v))
	case string:
		return scalar(escape(v))
	case []any:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range v {
			list.Content = append(list.Content, e.value(item, path))
		}
		return list
	}
	m := &yaml.Node{Kind: yaml.MappingNode}
	object, _ := v.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(object)) {
		text, isText := object[name].(string)
		if isText && text != "" && credentialLike(name) {
			add(m, name, scalar(e.variable(path, name)))
			continue
		}
		add(m, name, e.value(object[name], path+"_"+name))
	}
	return m
}

// Write writes the manifest.
func (e *Exported) Write(w io.Writer) error {
	var b bytes.Buffer
	list := &yaml.Node{Kind: yaml.SequenceNode, Content: e.nodes}
	if len(e.nodes) == 0 {
		list.Style = yaml.FlowStyle
	}
	root := &yaml.Node{Kind: yaml.MappingNode}
	add(root, "version", plain("!!int", fmt.Sprint(Version)))
	add(root, "providers", list)
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return err
	}
	if err := encoder.Close(); err != nil {
		return err
	}
	_, err := w.Write(showInvisible(b.Bytes()))
	return err
}

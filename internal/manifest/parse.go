package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxBytes is the size of the largest file that is read.
	MaxBytes = 4 << 20
	// maxNodes and maxDepth bound what aliases may blow a file up to.
	maxNodes = 200_000
	maxDepth = 64
)

// File is a manifest that has been read. It may hold several YAML documents.
type File struct {
	Name    string
	Content []byte
}

// Parse returns what the files say together. lookup returns the value of an
// environment variable, "" if it is not set.
//
// Everything that is wrong is reported together: the error is of type Problems.
func Parse(files []File, lookup func(string) string) (Manifest, error) {
	var (
		m     Manifest
		wrong Problems
		named = map[string]string{} // name → where
	)
	for _, f := range files {
		r := &reader{file: f.Name, lookup: lookup}
		for _, found := range r.read(f.Content) {
			where := fmt.Sprintf("%s:%d", f.Name, found.line)
			switch before, twice := named[found.Name]; {
			case found.Name == "": // which has been reported
			case twice:
				r.problem(found.line, "the provider %q is there already, at %s", found.Name, before)
			default:
				named[found.Name] = where
			}
			m.Providers = append(m.Providers, found.Provider)
		}
		wrong = append(wrong, r.problems...)
	}
	if len(wrong) > 0 {
		return Manifest{}, wrong
	}
	return m, nil
}

// reader reads one file.
type reader struct {
	file     string
	lookup   func(string) string
	problems Problems
	nodes    int
	tooLarge bool
}

// located is a provider and the line on which it begins.
type located struct {
	Provider
	line int
}

func (r *reader) problem(line int, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

func (r *reader) read(content []byte) (all []located) {
	switch {
	case len(content) > MaxBytes:
		r.problem(0, "the file is larger than %d MiB", MaxBytes>>20)
		return nil
	case !utf8.Valid(content):
		r.problem(0, "the file is not UTF-8")
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(content))
	documents := 0
	for {
		var document yaml.Node
		err := d.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.problem(syntaxError(err))
			return nil
		}
		documents++
		if len(document.Content) == 1 {
			all = append(all, r.document(document.Content[0])...)
		}
	}
	if documents == 0 {
		r.problem(0, "the file is empty: it begins with \"version: %d\"", Version)
	}
	return all
}

var lineOf = regexp.MustCompile(`line (\d+): `)

// syntaxError returns where and what the YAML parser did not understand, without the
// piece of the file that it may quote.
func syntaxError(err error) (line int, format string, reason any) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := lineOf.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = strings.Replace(message, m[0], "", 1)
	}
	if before, _, quotes := strings.Cut(message, "'"); quotes {
		message = strings.TrimSpace(before)
	}
	return line, "not YAML: %s", message
}

func (r *reader) document(root *yaml.Node) (all []located) {
	members := r.members(root, "the manifest", "version", "providers")
	if members == nil {
		return nil
	}
	version := members["version"]
	switch {
	case version == nil:
		r.problem(root.Line, "version is missing: write \"version: %d\"", Version)
	case version.Kind != yaml.ScalarNode || version.Tag != "!!int" || version.Value != strconv.Itoa(Version):
		r.problem(version.Line, "this program reads version %d of the format", Version)
	}
	list := members["providers"]
	if list == nil {
		r.problem(root.Line, "providers is missing: write \"providers: []\" for none")
		return nil
	}
	for _, item := range r.items(list, "providers", 1) {
		all = append(all, located{r.provider(item), item.Line})
	}
	return all
}

// enter counts a node and resolves an alias. It returns nil, having reported it, if a
// limit is passed: aliases can make a small file very large.
func (r *reader) enter(n *yaml.Node, depth int) *yaml.Node {
	if r.nodes++; r.nodes > maxNodes || depth > maxDepth {
		if !r.tooLarge { // it is said once
			r.tooLarge = true
			r.problem(n.Line, "the manifest is nested too deeply or holds too much")
		}
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return r.enter(n.Alias, depth+1)
	}
	return n
}

// members returns the members of a mapping, of which only the known are allowed; nil
// if n is none.
func (r *reader) members(n *yaml.Node, what string, known ...string) map[string]*yaml.Node {
	n = r.enter(n, 0)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.problem(n.Line, "%s must be a mapping, with members such as %q", what, known[0])
		return nil
	}
	all := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case !slices.Contains(known, key.Value) || key.Kind != yaml.ScalarNode:
			r.problem(key.Line, "%s has no member %q%s", what, oneLine(key.Value), meant(key.Value, known))
		case all[key.Value] != nil:
			r.problem(key.Line, "%s is there twice, first on line %d", key.Value, all[key.Value].Line)
		default:
			all[key.Value] = value
		}
	}
	return all
}

// items returns the items of a list.
func (r *reader) items(n *yaml.Node, name string, depth int) []*yaml.Node {
	if n = r.enter(n, depth); n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.problem(n.Line, "%s must be a list", name)
		return nil
	}
	return n.Content
}

// meant returns a hint if name is almost one of the known.
func meant(name string, known []string) string {
	simple := func(s string) string {
		return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
	}
	for _, k := range known {
		if a, b := simple(name), simple(k); a == b || a == b+"s" || a+"s" == b {
			return ": is " + k + " meant?"
		}
	}
	return ""
}

// oneLine returns the beginning of a text as it can stand in a message.
func oneLine(s string) string {
	const most = 40
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Print writes the plan for a person.
func (p Plan) Print(w io.Writer) error {
	var b bytes.Buffer
	unknown := 0
	for _, c := range p.Changes {
		c.print(&b)
		if len(c.Unknown) > 0 {
			unknown++
		}
	}
	if len(p.Changes) > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "Plan: %d to create, %d to update, %d to delete, %d unchanged, %d not in the manifest\n",
		p.Count(Create), p.Count(Update), p.Count(Delete), p.Count(Unchanged), p.Count(Orphan))
	if unknown > 0 {
		whose := "1 provider"
		if unknown > 1 {
			whose = fmt.Sprintf("%d providers", unknown)
		}
		fmt.Fprintf(&b, "The credentials of %s are unknown: the broker does not show them. --set-credentials sends them;\n"+
			"where they are stored already that changes nothing.\n", whose)
	}
	_, err := b.WriteTo(w)
	return err
}

func (c Change) print(b *bytes.Buffer) {
	name := printable(c.Name)
	switch c.Action {
	case Create:
		fmt.Fprintf(b, "+ %s\n", name)
	case Update:
		fmt.Fprintf(b, "~ %s\n", name)
	case Delete:
		fmt.Fprintf(b, "- %s (not in the manifest)\n", name)
	case Orphan:
		if !legalName(c.Name) {
			fmt.Fprintf(b, "? %s (a manifest cannot hold its name: left alone)\n", name)
			break
		}
		fmt.Fprintf(b, "? %s (not in the manifest; --prune deletes it)\n", name)
	case Unchanged:
		fmt.Fprintf(b, "  %s\n", name)
	}
	for _, f := range c.Fields {
		switch {
		case f.Masked != "":
			fmt.Fprintf(b, "    %s: %s\n", printable(f.Field), f.Masked)
		case c.Action == Create:
			fmt.Fprintf(b, "    %s: %s\n", printable(f.Field), show(f.New))
		default:
			fmt.Fprintf(b, "    %s: %s -> %s\n", printable(f.Field), show(f.Old), show(f.New))
		}
	}
	if len(c.Unknown) > 0 {
		fmt.Fprintf(b, "    %s: unknown\n", strings.Join(c.Unknown, ", "))
	}
	if c.Note != "" {
		fmt.Fprintf(b, "    (%s)\n", printable(c.Note))
	}
}

// show returns a value as JSON on one line, without what a terminal would obey.
func show(v any) string {
	if v == nil {
		return "(none)"
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // decoded JSON always encodes
	return printable(strings.TrimSuffix(b.String(), "\n"))
}

// printable writes what cannot be printed as an escape.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

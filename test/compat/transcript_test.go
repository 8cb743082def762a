package compat_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// transcript is a conversation with one broker, as a file of testdata holds it:
//
//	# a comment
//	= NAME=value        of the broker's environment; before the first section
//	## a sentence       begins a section, which becomes a subtest
//	* verb argument     something that happens beside the conversation: see actions
//	> METHOD path       a request; the lines > after it are its headers, then its body
//	< 200               the answer: its status; the lines < after it are the headers that
//	                    must be there, then the whole body. No body: it must be empty
//	<+ a line           instead of a body: one line of it
//	<# 50               instead of a body: it is a list of so many elements
//
// In requests, answers, arguments and the environment {{name}} stands for what is known under the name.
// In answers <kind> stands for anything of a kind, and <kind name> makes it known; a
// name that is known already must be the same again. Everything else is compared byte
// for byte, but for the line feed at the end of a JSON body.
type transcript struct {
	name     string
	env      map[string]string
	sections []section
}

type section struct {
	title string
	steps []step
}

// step is an exchange, or with a verb an action.
type step struct {
	line           int // in its file
	verb, argument string
	request        message
	answer         message
	lines          []string // of the answer's body, one by one
	elements       string   // how many the answer's list has
}

// message is the first line, the headers and the body of either direction.
type message struct {
	first   string
	headers []string
	body    []string
}

var headerLine = regexp.MustCompile(`^[A-Z][A-Za-z-]*: `)

func (m *message) add(line string) {
	switch {
	case m.first == "":
		m.first = line
	case len(m.body) == 0 && headerLine.MatchString(line):
		m.headers = append(m.headers, line)
	default:
		m.body = append(m.body, line)
	}
}

func readTranscript(t *testing.T, path string) transcript {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	tr := transcript{name: path, env: map[string]string{}}
	for i, line := range strings.Split(string(text), "\n") {
		mark, rest, _ := strings.Cut(line, " ")
		if mark == "" || mark == "#" {
			continue
		}
		require.NoError(t, tr.add(i+1, mark, rest), "%s:%d", path, i+1)
	}
	return tr
}

func (tr *transcript) add(number int, mark, rest string) error {
	if mark == "=" {
		name, value, _ := strings.Cut(rest, "=")
		tr.env[name] = value
		return nil
	}
	if mark == "##" {
		tr.sections = append(tr.sections, section{title: rest})
		return nil
	}
	if len(tr.sections) == 0 {
		return fmt.Errorf("before the first section")
	}
	s := &tr.sections[len(tr.sections)-1]
	last := func() (*step, error) {
		if len(s.steps) == 0 || s.steps[len(s.steps)-1].verb != "" {
			return nil, fmt.Errorf("an answer without a request")
		}
		return &s.steps[len(s.steps)-1], nil
	}
	switch mark {
	case "*":
		verb, argument, _ := strings.Cut(rest, ": ")
		s.steps = append(s.steps, step{line: number, verb: verb, argument: argument})
	case ">":
		if n := len(s.steps); n == 0 || s.steps[n-1].verb != "" || s.steps[n-1].answer.first != "" {
			s.steps = append(s.steps, step{line: number})
		}
		s.steps[len(s.steps)-1].request.add(rest)
	case "<", "<+", "<#":
		st, err := last()
		if err != nil {
			return err
		}
		switch mark {
		case "<":
			st.answer.add(rest)
		case "<+":
			st.lines = append(st.lines, rest)
		case "<#":
			st.elements = rest
		}
	default:
		return fmt.Errorf("no line begins with %q", mark)
	}
	return nil
}

// kinds are what a placeholder may stand for.
var kinds = map[string]string{
	"uuid":      `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
	"time":      `[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z`,
	"text":      `(?:[^"\\]|\\.)+`, // within a JSON string
	"number":    `[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?`,
	"token":     `[A-Za-z0-9._~-]+`,
	"challenge": `[A-Za-z0-9_-]{43}`,
	"state":     `[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}`,
}

var (
	reference   = regexp.MustCompile(`\{\{([^{}]+)\}\}`)
	placeholder = regexp.MustCompile(`<(` + strings.Join([]string{"uuid", "time", "text", "number", "token", "challenge", "state"}, "|") + `)(?: ([^<>]+))?>`)
)

// names are what a conversation has made known.
type names map[string]string

// fill puts what is known into a text that is sent.
func (n names) fill(text string) (string, error) {
	var unknown []string
	filled := reference.ReplaceAllStringFunc(text, func(ref string) string {
		value, ok := n[ref[2:len(ref)-2]]
		if !ok {
			unknown = append(unknown, ref)
		}
		return value
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("%v is not known yet", unknown)
	}
	return filled, nil
}

// match compares what came with what was expected, and keeps what that makes known.
func (n names) match(want, got string) error {
	for _, made := range placeholder.FindAllStringSubmatch(want, -1) {
		if _, known := n[made[2]]; made[2] != "" && !known { // it may be there more than once
			want = strings.ReplaceAll(want, "{{"+made[2]+"}}", made[0])
		}
	}
	filled, err := n.fill(want)
	if err != nil {
		return err
	}
	var pattern strings.Builder
	var captured []string
	rest := filled
	for {
		at := placeholder.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		pattern.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		kind, name := rest[at[2]:at[3]], ""
		if at[4] >= 0 {
			name = rest[at[4]:at[5]]
		}
		captured = append(captured, name)
		pattern.WriteString("(" + kinds[kind] + ")")
		rest = rest[at[1]:]
	}
	pattern.WriteString(regexp.QuoteMeta(rest))
	found := regexp.MustCompile(`\A(?s:` + pattern.String() + `)\z`).FindStringSubmatch(got)
	if found == nil {
		return fmt.Errorf("\nexpected %s\ngot      %s", filled, got)
	}
	for i, name := range captured {
		value := found[i+1]
		if known, ok := n[name]; ok && name != "" && known != value {
			return fmt.Errorf("%s was %q and is %q", name, known, value)
		}
		if name != "" {
			n[name] = value
		}
	}
	return nil
}

package docs_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// documents are those whose every shell block is run or skipped for a reason.
var documents = []string{"README.md", "docs/vault.md", "docs/keys.md", "docs/manifests.md", "docs/migrating.md", "docs/presets.md", "docs/upgrading.md", "docs/writing-a-backend.md"}

// A fenced block is taken into a test by a comment on the line before it, which no
// reader sees:
//
//	<!-- test: scenario -->              run in the scenario's shell
//	<!-- test: scenario inputs -->       assignments of what only the reader knows: run
//	                                     with the test's values
//	<!-- test: scenario background -->   run in the background: the broker
//	<!-- test: scenario browser -->      run, and a user opens the address it prints
//	<!-- test: scenario output -->       not run: what the block before it prints, where
//	                                     "…" stands for anything
//	<!-- test: scenario policy -->       not run: a policy of Vault
//	<!-- test: skip, the reason -->      not run
type block struct {
	document string
	line     int // of its first line
	language string
	text     string
	scenario string // "skip" if it is skipped
	kind     string // "" is a block to run
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.document, b.line) }

var (
	directive = regexp.MustCompile(`^<!-- test: (.+) -->$`)
	fence     = regexp.MustCompile("^\\s*```([a-z]*)$")
	kinds     = []string{"inputs", "background", "browser", "output", "policy"}
)

func read(t *testing.T, document string) string {
	t.Helper()
	b, err := os.ReadFile("../../" + document)
	require.NoError(t, err)
	return string(b)
}

// blocks returns the fenced blocks of a document.
func blocks(document, text string) ([]block, error) {
	var (
		list   []block
		open   *block
		marked string
	)
	for i, line := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case open != nil && m != nil:
			list = append(list, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case m != nil:
			open = &block{document: document, line: i + 2, language: m[1]}
			if err := open.mark(marked); err != nil {
				return nil, err
			}
		}
		if d := directive.FindStringSubmatch(line); open == nil {
			marked = ""
			if d != nil {
				marked = d[1]
			}
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block is not closed", open)
	}
	return list, nil
}

// mark reads what the comment before a block says.
func (b *block) mark(comment string) error {
	if reason, ok := strings.CutPrefix(comment, "skip, "); ok && reason != "" {
		b.scenario = "skip"
		return nil
	}
	words := strings.Fields(comment)
	switch {
	case len(words) == 0 && b.language == "sh":
		return fmt.Errorf("%s: a shell block that no test runs: put <!-- test: … --> on the line before it", b)
	case len(words) == 2 && slices.Contains(kinds, words[1]):
		b.scenario, b.kind = words[0], words[1]
	case len(words) == 1 && b.language == "sh":
		b.scenario = words[0]
	case len(words) > 0:
		return fmt.Errorf("%s: the comment %q is not understood", b, comment)
	}
	return nil
}

// scenario returns the blocks of a scenario, of all documents.
func scenario(t *testing.T, name string) []block {
	t.Helper()
	var found []block
	for _, document := range documents {
		all, err := blocks(document, read(t, document))
		require.NoError(t, err)
		found = append(found, slices.DeleteFunc(all, func(b block) bool { return b.scenario != name })...)
	}
	require.NotEmpty(t, found, "no block belongs to %s", name)
	return found
}

// Every shell block is either run by a test or says why not.
func TestEveryShellBlockIsTested(t *testing.T) {
	t.Parallel()
	for _, document := range documents {
		all, err := blocks(document, read(t, document))
		require.NoError(t, err)
		for _, b := range all {
			known := b.scenario == "" || b.scenario == "skip" || b.kind == "policy" || slices.Contains(scenarios(), b.scenario)
			require.True(t, known, "%s: no test runs the scenario %q", b, b.scenario)
		}
	}
}

func TestBlocksAreRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"```sh\nx\n```\n":                     "doc:2: a shell block that no test runs: put <!-- test: … --> on the line before it",
		"<!-- test: a -->\n\n```sh\nx\n```\n": "doc:4: a shell block that no test runs: put <!-- test: … --> on the line before it",
		"<!-- test: a b -->\n```sh\nx\n```\n": `doc:3: the comment "a b" is not understood`,
		"<!-- test: a -->\n```sh\nx\n":        "doc:3: the block is not closed",
	} {
		_, err := blocks("doc", text)
		require.EqualError(t, err, want)
	}
	found, err := blocks("doc", "```\nfree\n```\n<!-- test: a -->\n```sh\none\n\ntwo\n```\n<!-- test: a output -->\n```json\n{}\n```\n<!-- test: skip, it waits -->\n```sh\nx\n```\n")
	require.NoError(t, err)
	require.Equal(t, []block{
		{"doc", 2, "", "free\n", "", ""},
		{"doc", 6, "sh", "one\n\ntwo\n", "a", ""},
		{"doc", 12, "json", "{}\n", "a", "output"},
		{"doc", 16, "sh", "x\n", "skip", ""},
	}, found)
}

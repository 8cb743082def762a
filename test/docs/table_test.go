package docs_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// table returns the rows of the table of a document whose header begins as given: the
// other cells by the first one.
func table(t *testing.T, document, header string) map[string][]string {
	t.Helper()
	_, rest, found := strings.Cut("\n"+read(t, document), "\n"+header)
	require.True(t, found, "%s has no table that begins %q", document, header)
	rows := map[string][]string{}
	for i, line := range strings.Split(rest, "\n") {
		if i < 2 { // the rest of the header, and the rule below it
			continue
		}
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i, c := range cells {
			cells[i] = strings.TrimSpace(c)
		}
		require.NotContains(t, rows, cells[0])
		rows[cells[0]] = cells[1:]
	}
	require.NotEmpty(t, rows)
	return rows
}

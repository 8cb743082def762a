package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
)

// pages are the documents whose links and names are checked.
var pages = []string{"README.md", "SECURITY.md", "CHANGELOG.md", "docs/vault.md", "docs/upgrading.md", "docs/writing-a-backend.md", "docs/reliability.md", "docs/backends.md", "docs/aws.md", "docs/gcp.md", "docs/manifests.md"}

// sources returns the text of all Go files but the tests', with unescaped quotes.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, folder := range []string{"cmd", "internal", "secret"} {
		require.NoError(t, filepath.WalkDir("../../"+folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		}))
	}
	return all.String()
}

// Metrics and log lines that docs/vault.md names are in the program.
func TestMetricsAndLogLinesExist(t *testing.T) {
	t.Parallel()
	program := sources(t)
	for cell := range table(t, "docs/vault.md", "| metric |") {
		m := regexp.MustCompile("^`([a-z_]+)\\{([a-z,]+)\\}`$").FindStringSubmatch(cell)
		require.NotNil(t, m, cell)
		for name := range strings.SplitSeq(m[1]+","+m[2], ",") {
			require.True(t, strings.Contains(program, `"`+name+`"`), "%s: no %s in the program", cell, name)
		}
	}
	for cell, rest := range table(t, "docs/vault.md", "| log line |") {
		level := map[string]string{"WARN": "Warn", "INFO": "Info"}[rest[0]]
		line := regexp.QuoteMeta(strings.Trim(cell, "`"))
		logged := regexp.MustCompile(`(` + level + `(Context)?\((ctx, )?|LogAttrs\(r.Context\(\), level, )"` + line + `"`)
		require.True(t, logged.MatchString(program), "the program does not log %s as %s", cell, rest[0])
	}
}

// Links lead to files and headings that exist.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, heading, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			_, err := os.Stat("../../" + target)
			require.NoError(t, err, "%s: %s", page, m[1])
			if heading != "" {
				require.Contains(t, headings(read(t, target)), heading, "%s: %s", page, m[1])
			}
		}
	}
}

// headings returns what links call a document's headings.
func headings(text string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// The routes that the README lists are those of openapi.yaml, all of them.
func TestRoutesAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	contract, err := openapi3.NewLoader().LoadFromFile("../../openapi.yaml")
	require.NoError(t, err)
	var want []string
	for path, item := range contract.Paths.Map() {
		for method := range item.Operations() {
			want = append(want, method+" "+path)
		}
	}
	_, section, found := strings.Cut(read(t, "README.md"), "\n## The API\n")
	require.True(t, found)
	var documented []string
	for _, m := range regexp.MustCompile("`((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)`").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(want)
	slices.Sort(documented)
	require.Equal(t, want, slices.Compact(documented))
}

// Every defence that a document lists names tests, and they exist where it says.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	for _, list := range []struct{ document, header string }{
		{"SECURITY.md", "| defence |"}, {"docs/reliability.md", "| promise |"}, {"docs/reliability.md", "| attack |"},
	} {
		for defence, cells := range table(t, list.document, list.header) {
			requireTests(t, defence, cells[0])
		}
	}
}

// requireTests checks that every test that a cell names is in the package before it.
func requireTests(t *testing.T, defence, cell string) {
	t.Helper()
	places := regexp.MustCompile("`([a-z0-9_/]+)`: ((?:`(?:Test|Fuzz)[A-Za-z0-9]+`(?:, )?)+)")
	names := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")
	found := 0
	for _, m := range places.FindAllStringSubmatch(cell, -1) {
		tests := testsOf(t, m[1])
		for _, name := range names.FindAllStringSubmatch(m[2], -1) {
			found++
			require.True(t, strings.Contains(tests, "func "+name[1]+"("), "%s has no %s", m[1], name[1])
		}
	}
	require.NotZero(t, found, "no test is named for: %s", defence)
	require.Len(t, names.FindAllString(cell, -1), found, "a test without its package: %s", cell)
}

// testsOf returns the text of the tests of a package.
func testsOf(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob("../../" + folder + "/*_test.go")
	require.NoError(t, err)
	var text strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		text.Write(b)
	}
	return text.String()
}

// The variables that docs/vault.md lists are those of docs/configuration.md, with the
// same defaults, and none that concerns Vault is left out.
func TestVariablesAreThoseOfTheConfiguration(t *testing.T) {
	t.Parallel()
	configuration := read(t, "docs/configuration.md")
	row := regexp.MustCompile("(?m)^\\| `([A-Z0-9_]+)` \\| ([^|]*) \\| ([^|]*) \\|")
	defaults := map[string]string{}
	var ofVault []string
	for _, m := range row.FindAllStringSubmatch(configuration, -1) {
		defaults[m[1]] = m[2]
		if strings.HasPrefix(m[1], "VAULT_") && !strings.Contains(m[3], "*Not in this build.*") {
			ofVault = append(ofVault, m[1])
		}
	}
	name := regexp.MustCompile("`([A-Z0-9_]+)`")
	var listed []string
	for cell, cells := range table(t, "docs/vault.md", "| variable |") {
		found := name.FindAllStringSubmatch(cell, -1)
		for _, m := range found {
			require.Contains(t, defaults, m[1])
			listed = append(listed, m[1])
		}
		if documented := cells[0]; len(found) == 1 && !strings.HasPrefix(documented, "as ") && !strings.HasPrefix(documented, "the ") {
			require.Equal(t, defaults[found[0][1]], documented, cell)
		}
	}
	require.Subset(t, listed, ofVault)
}

// What the README says of a Vault that is down is a part of what docs/vault.md says.
func TestOutagesOfTheREADME(t *testing.T) {
	t.Parallel()
	var documented []string
	for _, cells := range table(t, "docs/vault.md", outageTable) {
		documented = append(documented, strings.Join(cells, " "))
	}
	all := strings.Join(documented, "\n")
	for _, cells := range table(t, "README.md", "| the Vault |") {
		codes := regexp.MustCompile("[0-9]{3} `[a-z_]+`").FindAllString(cells[1], -1)
		require.NotEmpty(t, codes)
		for _, code := range codes {
			require.Contains(t, all, code)
		}
	}
}

package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// files returns the blocks of a document that a comment on the line before them gives
// the name of a file.
func files(t *testing.T, document string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)<!-- file: (\\S+) -->\n```go\n(.*?)\n```\n").FindAllStringSubmatch(read(t, document), -1) {
		found[m[1]] = m[2] + "\n"
	}
	return found
}

// The example of docs/writing-a-backend.md compiles in a module of its own, with
// nothing but what it says, and passes the conformance suite.
func TestExampleBackendConforms(t *testing.T) {
	t.Parallel()
	needsPrograms(t, "go")
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	sources := files(t, "docs/writing-a-backend.md")
	require.Len(t, sources, 2)
	goMod := read(t, "go.mod")
	version := regexp.MustCompile(`(?m)^go .*$`).FindString(goMod)
	sources["go.mod"] = "module example.com/httpkv\n\n" + version + "\n\n" +
		"require github.com/nexus-broker/nexus-broker v0.0.0\n\nreplace github.com/nexus-broker/nexus-broker => " + root + "\n"
	dir := t.TempDir()
	for name, text := range sources {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	run := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off") // nothing is downloaded for it
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "go %s\n%s", strings.Join(args, " "), out)
		return string(out)
	}
	require.Empty(t, run("vet", "."))
	out := run("test", "-race", "-count=1", "-v", ".")
	for _, sentence := range []string{
		"GetReturnsTheValueByteForByte", "ADenialIsErrDenied", "LimitsAreCheckedBeforeTheNetwork",
		"ACallToAStalledStoreEndsWithItsContext", "RemoveVersionLeavesANewerOne", "ProbeOfAHealthyBackendIsNil",
	} {
		require.Contains(t, out, "--- PASS: TestConformance/"+sentence)
	}
	require.NotContains(t, out, "--- SKIP", "the example can do everything that is proved")

	for name, text := range files(t, "docs/writing-a-backend.md") {
		gofmt := exec.Command("gofmt")
		gofmt.Stdin = strings.NewReader(text)
		formatted, err := gofmt.Output()
		require.NoError(t, err)
		require.Equal(t, string(formatted), text, name)
	}
}

// The options and the interfaces that the page explains are all that there are.
func TestBackendGuideIsComplete(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile("^`([A-Za-z]+)")
	listed := func(header string) (names []string) {
		for cell := range table(t, "docs/writing-a-backend.md", header) {
			names = append(names, name.FindStringSubmatch(cell)[1])
		}
		return names
	}
	declared := func(pattern string, folders ...string) (names []string) {
		var all strings.Builder
		for _, folder := range folders {
			paths, err := filepath.Glob("../../" + folder + "/*.go")
			require.NoError(t, err)
			for _, p := range paths {
				text, err := os.ReadFile(p)
				require.NoError(t, err)
				all.Write(text)
			}
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(all.String(), -1) {
			names = append(names, m[1])
		}
		return names
	}
	require.ElementsMatch(t, declared(`(?m)^func (With\w+)\(`, "secret/secrettest"), listed("| option |"))
	require.ElementsMatch(t, append(listed("| interface |"), "SecretBackend"), declared(`(?m)^type (\w+) interface \{`, "secret"))
	require.Subset(t, declared(`(?m)^\t(Err\w+) = errors.New`, "secret"), listed("| sentinel |"))
}

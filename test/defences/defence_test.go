package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A patch that has gone stale is found by every run of the tests, not only by
// "make defences".
func TestEveryPatchAppliesAndNamesTestsThatThereAre(t *testing.T) {
	const root = "../.."
	all, err := load(".")
	require.NoError(t, err)
	tests := map[string]map[string]bool{}
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) {
			_, err := d.takeOut(t.Context(), root, t.TempDir())
			require.NoError(t, err)
			for _, test := range d.tests {
				if tests[test.pkg] == nil {
					tests[test.pkg] = testsOf(t, filepath.Join(root, test.pkg))
				}
				top, _, _ := strings.Cut(test.name, "/")
				require.True(t, tests[test.pkg][top], "%s has no test %s", test.pkg, top)
			}
		})
	}
}

// testsOf are the tests of the package in a folder.
func testsOf(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	require.NoError(t, err)
	names := map[string]bool{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, declared := range file.Decls {
			if f, isFunction := declared.(*ast.FuncDecl); isFunction && f.Recv == nil {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

const sample = `Without: what makes Sum add
Fails: . TestSum
Fails: . TestNothing

diff --git a/sum.go b/sum.go
--- a/sum.go
+++ b/sum.go
@@ -1,3 +1,3 @@
 package sum
 
-func Sum(a, b int) int { return a + b }
+func Sum(a, b int) int { return a - b }
`

// sampleOfProgram changes a program that the test builds, and that does not build then.
var sampleOfProgram = strings.NewReplacer("sum.go", "cmd/main.go", "package sum", "package main",
	"func Sum(a, b int) int { return a + b }", "func main() {}", "func Sum(a, b int) int { return a - b }", "func main() { return 1 }").Replace(sample)

func TestWhatBecomesOfATest(t *testing.T) {
	for name, c := range map[string]struct{ test, patch, want string }{
		"noticed":    {"TestSum", sample, noticed},
		"unnoticed":  {"TestNothing", sample, unnoticed},
		"skipped":    {"TestSkipped", sample, skipped},
		"missing":    {"TestMissing", sample, notRun},
		"no code":    {"TestSum", strings.ReplaceAll(sample, "return a - b", "return c"), unbuilt},
		"no program": {"TestProgram", sampleOfProgram, unbuilt},
		"no end":     {"TestSum", strings.ReplaceAll(sample, "{ return a - b", "{ panic(1); return 0"), noticed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for file, text := range map[string]string{
				"go.mod": "module sum\n\ngo 1.26\n",
				"sum.go": "package sum\n\nfunc Sum(a, b int) int { return a + b }\n",
				"sum_test.go": "package sum\n\nimport (\n\t\"os\"\n\t\"os/exec\"\n\t\"testing\"\n)\n\nfunc TestSum(t *testing.T) {\n\tif Sum(1, 2) != 3 {\n\t\tt.Error(\"no sum\")\n\t}\n}\n\n" +
					"func TestNothing(*testing.T) {}\n\nfunc TestSkipped(t *testing.T) {\n\tif os.Getenv(\"CI\") == \"true\" {\n\t\tt.Fatal(\"no server\")\n\t}\n\tt.Skip()\n}\n\n" +
					"func TestProgram(t *testing.T) {\n\tif out, err := exec.Command(\"go\", \"build\", \"-o\", \"/dev/null\", \"./cmd\").CombinedOutput(); err != nil {\n\t\tt.Fatalf(\"%s\", out)\n\t}\n}\n",
				"cmd/main.go": "package main\n\nfunc main() {}\n",
				"x.patch":     c.patch,
			} {
				require.NoError(t, os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o600))
			}
			d, err := parse(c.patch)
			require.NoError(t, err)
			require.Equal(t, []test{{".", "TestSum"}, {".", "TestNothing"}}, d.tests)
			d.patch = filepath.Join(root, "x.patch")
			overlay, err := d.takeOut(t.Context(), root, t.TempDir())
			require.NoError(t, err)
			verdict, output, err := test{".", c.test}.run(t.Context(), root, overlay)
			require.NoError(t, err)
			require.Equal(t, c.want, verdict, "%s", output)
		})
	}
}

func TestAPatchThatSaysTooLittle(t *testing.T) {
	for _, text := range []string{
		"", "Without: x\nFails: . TestX\n",
		strings.Replace(sample, "Without: ", "Whatever: ", 1),
		strings.Replace(sample, "Without: what makes Sum add\n", "", 1),
		strings.Replace(sample, "Fails: . TestSum", "Fails: TestSum", 1),
		strings.ReplaceAll(sample, "Fails: . TestSum\nFails: . TestNothing\n", ""),
	} {
		_, err := parse(text)
		require.Error(t, err, text)
	}
	_, err := load(t.TempDir())
	require.Error(t, err)
}

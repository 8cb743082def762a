package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// defence is one patch.
type defence struct {
	name    string // of the file, without its ending
	patch   string // the path of the file
	without string
	tests   []test
	files   []string // that it changes, relative to the root
}

// test is a test that fails without the defence.
type test struct{ pkg, name string }

// load reads the patches below dir, ordered by name.
func load(dir string) ([]*defence, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*.patch"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var all []*defence
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		d, err := parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		d.patch = path
		d.name = filepath.Base(filepath.Dir(path)) + "/" + strings.TrimSuffix(filepath.Base(path), ".patch")
		all = append(all, d)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no patch below %s", dir)
	}
	return all, nil
}

// parse reads a patch.
func parse(text string) (*defence, error) {
	d := &defence{}
	head, diff, found := strings.Cut(text, "\ndiff --git ")
	if !found {
		return nil, errors.New("no diff")
	}
	for line := range strings.Lines(head) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Without":
			d.without = value
		case "Fails":
			pkg, name, found := strings.Cut(value, " ")
			if !found {
				return nil, fmt.Errorf("%q does not name a package and a test", value)
			}
			d.tests = append(d.tests, test{pkg, name})
		case "":
		default:
			return nil, fmt.Errorf("%q is neither Without nor Fails", line)
		}
	}
	for line := range strings.Lines(diff) {
		if file, found := strings.CutPrefix(line, "+++ b/"); found {
			d.files = append(d.files, strings.TrimSpace(file))
		}
	}
	if d.without == "" || len(d.tests) == 0 || len(d.files) == 0 {
		return nil, errors.New("it must say without what, which test fails, and change a file")
	}
	return d, nil
}

// takeOut makes changed copies of the files in temp and returns the path of the
// overlay file for the go command.
func (d *defence) takeOut(ctx context.Context, root, temp string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	patch, err := filepath.Abs(d.patch)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for _, file := range d.files {
		original, changed := filepath.Join(root, file), filepath.Join(temp, file)
		text, err := os.ReadFile(original)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Dir(changed), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(changed, text, 0o600); err != nil {
			return "", err
		}
		replace[original] = changed
	}
	apply := exec.CommandContext(ctx, "git", "apply", patch)
	apply.Dir = temp
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(temp)) // temp is no repository, whatever lies above
	if out, err := apply.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the patch does not apply any more, make it anew: %w\n%s", err, out)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(temp, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// What can become of a test without the defence.
const (
	noticed   = "noticed"
	unnoticed = "PASSED"
	notRun    = "NOT RUN"
	unbuilt   = "NOT BUILT"
	unclear   = "UNCLEAR"
	skipped   = "SKIPPED"
)

// compilerError is in the output of a test that could not build the program that it
// runs: that is no defence missed.
var compilerError = regexp.MustCompile(`# \S+\n\s*\S+\.go:\d+:\d+: `)

// run runs the test without the defence.
func (t test) run(ctx context.Context, root, overlay string) (verdict string, output []byte, err error) {
	pattern := "^" + strings.ReplaceAll(t.name, "/", "$/^") + "$"
	cmd := exec.CommandContext(ctx, "go", "test", "-v", "-count=1", "-timeout", "10m", "-run", pattern, t.pkg)
	cmd.Dir = root
	// Without CI a test whose server is missing is skipped, and does not fail for that.
	cmd.Env = append(os.Environ(), "CI=", "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	output, err = cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", nil, ctx.Err()
	}
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		return "", nil, err
	}
	top, _, _ := strings.Cut(t.name, "/")
	contains := func(s string) bool { return bytes.Contains(output, []byte(s)) }
	switch {
	case contains("[build failed]"), contains("[setup failed]"), compilerError.Match(output):
		verdict = unbuilt
	case contains("[no tests to run]"):
		verdict = notRun
	case err == nil && contains("--- SKIP: "):
		verdict = skipped
	case err == nil:
		verdict = unnoticed
	case contains("--- FAIL: " + top), contains("panic: "), contains("fatal error: "):
		verdict = noticed
	default:
		verdict = unclear
	}
	return verdict, output, nil
}

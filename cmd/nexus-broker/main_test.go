package main

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run the command as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nexus-broker": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":   exits,
			"refuses": refuses,
		},
	})
}

// exits CODE PROGRAM ARG... runs a program that must end with the code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := exitStatus(ts, args[1], args[2:]...); got != want {
		ts.Fatalf("exit code %d instead of %d", got, want)
	}
}

// refuses NAME=VALUE... : VARIABLE... starts the broker with these settings on top
// of the script's. It must end with code 2 and name exactly these variables, one
// line each; "canary" in a value must not be seen again.
func refuses(ts *testscript.TestScript, _ bool, args []string) {
	settings, variables, _ := strings.Cut(strings.Join(args, "\x00"), "\x00:\x00")
	for _, setting := range strings.Split(settings, "\x00") {
		name, value, _ := strings.Cut(setting, "=")
		defer ts.Setenv(name, ts.Getenv(name))
		ts.Setenv(name, value)
	}
	if code := exitStatus(ts, "nexus-broker"); code != 2 {
		ts.Fatalf("exit code %d instead of 2", code)
	}
	if strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), "canary") {
		ts.Fatalf("a value is printed")
	}
	var named []string
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if problem, ok := strings.CutPrefix(line, "  "); ok {
			name, _, _ := strings.Cut(problem, " ")
			named = append(named, name)
		}
	}
	if want := strings.ReplaceAll(variables, "\x00", " "); strings.Join(named, " ") != want {
		ts.Fatalf("problems of %q instead of %q", named, want)
	}
}

func exitStatus(ts *testscript.TestScript, program string, args ...string) int {
	err := ts.Exec(program, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// Command nexus-broker is a self-hosted OAuth broker that keeps the providers'
// client credentials in the secret manager a company already trusts.
//
// It is configured by environment variables; "nexus-broker config" shows them. It
// exits with 0 after a success, 2 if the configuration is wrong, and 1 after any
// other failure.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, errChanges) { // the plan has said that
		fmt.Fprintln(os.Stderr, "nexus-broker:", err)
	}
	os.Exit(exitCode(err))
}

// run executes the command line args, which do not include the program's name.
// It touches nothing of the process but what it is given.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := newRootCommand(program{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr})
	root.SetArgs(withDefaultCommand(args))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// program is what the commands may use of the process.
type program struct {
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func exitCode(err error) int {
	var problems config.Problems
	var chosen exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &chosen):
		return chosen.code
	case errors.As(err, &problems):
		return 2
	}
	return 1
}

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

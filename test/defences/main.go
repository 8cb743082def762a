// Command defences takes the broker's defences out, one at a time, and wants the tests
// to notice. "make defences" runs it.
//
// Each file below faults and attacks is a patch in the form of "git diff" that takes one
// defence out. What stands before the diff says what it is, and which tests fail then:
//
//	Without: a callback claims its consent before it exchanges the code
//	Fails: ./internal/broker TestOneCallbackOfManyWins
//	Fails: ./test/e2e TestOneCallbackWinsAcrossReplicas
//
// A patch is applied to copies of the files, which the go command is given in place of
// the originals (-overlay): the working tree is not touched, and a test that builds the
// broker builds the one without the defence. It exits with 1 if a test passes then, or
// does not build.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "defences:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("defences", flag.ContinueOnError)
	root := flags.String("root", ".", "the root of the repository")
	only := flags.String("only", "", "only the patches whose names match this regular expression")
	if err := flags.Parse(args); err != nil {
		return err
	}
	names, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	all, err := load(filepath.Join(*root, "test", "defences"))
	if err != nil {
		return err
	}
	tried, unnoticed := 0, 0
	for _, d := range all {
		if !names.MatchString(d.name) {
			continue
		}
		fmt.Fprintf(out, "%s: without this: %s\n", d.name, d.without)
		missed, err := d.try(ctx, *root, out)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		tried += len(d.tests)
		unnoticed += missed
	}
	fmt.Fprintf(out, "%d tests were tried without what they test, %d noticed nothing\n", tried, unnoticed)
	switch {
	case tried == 0:
		return errors.New("no patch has such a name")
	case unnoticed > 0:
		return errors.New("a defence that no test misses is none")
	}
	return nil
}

// try runs the tests without the defence and returns how many notice nothing.
func (d *defence) try(ctx context.Context, root string, out io.Writer) (missed int, err error) {
	temp, err := os.MkdirTemp("", "defences-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(temp)
	overlay, err := d.takeOut(ctx, root, temp)
	if err != nil {
		return 0, err
	}
	for _, t := range d.tests {
		began := time.Now()
		verdict, output, err := t.run(ctx, root, overlay)
		if err != nil {
			return missed, err
		}
		fmt.Fprintf(out, "  %-10s %s %s (%.1fs)\n", verdict, t.pkg, t.name, time.Since(began).Seconds())
		if verdict != noticed {
			missed++
			fmt.Fprintf(out, "%s\n", output)
		}
	}
	return missed, nil
}

// Command bench measures the speed and the cost of the broker against their marks
// and prints the table of docs/benchmarks.md. "make bench" runs it, with the broker
// built and everything installed that it needs. It tunes nothing: a figure that is
// short of its mark stays in the table as it is.
//
// Everything it starts listens on loopback, keeps its files in one temporary folder,
// and is gone when it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line decides.
type options struct {
	binary string
	short  bool
	only   *regexp.Regexp
	update bool
}

// table is the file that keeps the last table.
const table = "docs/benchmarks.md"

func parseOptions(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.binary, "broker", "bin/nexus-broker", "the broker to be measured, as 'make build' makes it")
	flags.BoolVar(&o.short, "short", false, "a minute's try: the figures mean little")
	only := flags.String("only", "", "measure only what matches this regular expression: "+names())
	flags.BoolVar(&o.update, "update", false, "also write the table to "+table)
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.update && (o.short || *only != "") {
		return o, errors.New("-update wants all of the table, and figures that mean something")
	}
	o.only, err = regexp.Compile(*only)
	return o, err
}

// family measures rows of the table that belong together.
type family struct {
	name    string
	measure func(context.Context, *lab) ([]row, error)
}

func families() []family {
	return []family{
		{"throughput", throughput},
		{"warm", warmCredentials},
		{"cold", coldCredentials},
		{"stampede", stampede},
		{"storm", refreshStorm},
		{"footprint", footprint},
		{"growth", growth},
	}
}

func names() string {
	return strings.Join(each(families(), func(f family) string { return f.name }), ", ")
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	began := time.Now()
	l, err := openLab(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	machine, err := describe(ctx, l)
	if err != nil {
		return err
	}
	before := othersBusy(ctx)
	rows, failed := measureAll(ctx, l, o.only)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	machine = append(machine, busyFact(before, othersBusy(ctx)))
	text := report(machine, rows, began, time.Since(began))
	_, _ = io.WriteString(stdout, text)
	if o.update && failed == nil {
		failed = updateFile(table, text)
	}
	return failed
}

// measureAll returns what could be measured, with a line for what could not.
func measureAll(ctx context.Context, l *lab, only *regexp.Regexp) (rows []row, failed error) {
	for _, f := range families() {
		if !only.MatchString(f.name) || ctx.Err() != nil {
			continue
		}
		l.say("measuring %s", f.name)
		measured, err := l.guard(func() ([]row, error) { return f.measure(ctx, l) })
		rows = append(rows, measured...)
		if err != nil {
			rows = append(rows, row{what: f.name, mark: "–", measured: err.Error(), verdict: notMeasured})
			failed = errors.Join(failed, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	return rows, failed
}

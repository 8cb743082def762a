package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// effort is how much work a run puts into its figures.
type effort struct {
	rounds    int           // of measures that are compared with each other
	load      time.Duration // of one measure of a rate
	reads     int           // of single secrets
	starts    int           // of processes
	idle      time.Duration // before idle memory is read
	flows     int           // at once
	callers   int           // of a storm
	benchTime string        // of a Go benchmark, with its unit
	benchRuns int

	connections, providers int // of the grown database
}

func full() effort {
	return effort{
		rounds: 5, load: 4 * time.Second, reads: 1000, starts: 15, idle: 10 * time.Second, flows: 10_000, callers: 1000,
		benchTime: "0.3s", benchRuns: 5, connections: 1_000_000, providers: 10_000,
	}
}

func abridged() effort {
	return effort{
		rounds: 1, load: time.Second, reads: 100, starts: 3, idle: time.Second, flows: 1000, callers: 100,
		benchTime: "0.05s", benchRuns: 1, connections: 20_000, providers: 500,
	}
}

// lab is what the measures are made with. It is the servers.TB of the servers that
// it starts: what they would fail a test for ends the measure, see guard.
type lab struct {
	effort
	short    bool
	binary   string // of the broker
	dir      string
	progress io.Writer
	cluster  *servers.Cluster
	vault    *servers.VaultServer
	cleanups []func()
}

var _ servers.TB = (*lab)(nil)

func openLab(ctx context.Context, o options, progress io.Writer) (_ *lab, err error) {
	l := &lab{effort: full(), short: o.short, progress: progress}
	if o.short {
		l.effort = abridged()
	}
	if l.binary, err = filepath.Abs(o.binary); err == nil {
		_, err = os.Stat(l.binary)
	}
	if err != nil {
		return nil, fmt.Errorf("the broker to be measured: %w: 'make build' makes it", err)
	}
	if l.dir, err = os.MkdirTemp("", "nexus-bench-"); err != nil {
		return nil, err
	}
	// Who runs a benchmark wants its servers: there is nothing to be skipped.
	err = os.Setenv("NEXUS_TEST_SERVERS", "1")
	if err == nil {
		_, err = l.guard(func() ([]row, error) {
			l.say("starting PostgreSQL and Vault")
			l.cluster = servers.PostgresCluster(l, "fsync=on")
			l.vault = servers.Vault(l)
			return nil, ctx.Err()
		})
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// close stops what was started, the last first, and removes all files.
func (l *lab) close() error {
	for _, f := range slices.Backward(l.cleanups) {
		f()
	}
	l.cleanups = nil
	return os.RemoveAll(l.dir)
}

func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.progress, "  "+format+"\n", args...) }

// failure is what Fatalf ends a measure with.
type failure struct{ error }

// guard returns what a server has called Fatalf with as an error.
func (l *lab) guard(measure func() ([]row, error)) (rows []row, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			panic(p)
		}
	}()
	return measure()
}

// Helper implements servers.TB.
func (l *lab) Helper() {}

// Cleanup implements servers.TB.
func (l *lab) Cleanup(f func()) { l.cleanups = append(l.cleanups, f) }

// TempDir implements servers.TB.
func (l *lab) TempDir() string {
	dir, err := os.MkdirTemp(l.dir, "")
	if err != nil {
		l.Fatalf("%v", err)
	}
	return dir
}

// Fatalf implements servers.TB.
func (l *lab) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// Skipf implements servers.TB.
func (l *lab) Skipf(format string, args ...any) { l.Fatalf(format, args...) }

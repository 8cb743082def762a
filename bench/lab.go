package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	*servers.Program
	short    bool
	binary   string // of the broker
	progress io.Writer
	cluster  *servers.Cluster
	vault    *servers.VaultServer
}

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
	if l.Program, err = servers.NewProgram("nexus-bench"); err != nil {
		return nil, err
	}
	err = l.Guard(func() error {
		l.say("starting PostgreSQL and Vault")
		l.cluster = servers.PostgresCluster(l, "fsync=on")
		l.vault = servers.Vault(l)
		return ctx.Err()
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *lab) say(format string, args ...any) { fmt.Fprintf(l.progress, "  "+format+"\n", args...) }

// guard returns what a server has called Fatalf with as an error.
func (l *lab) guard(measure func() ([]row, error)) (rows []row, err error) {
	err = l.Guard(func() (err error) {
		rows, err = measure()
		return err
	})
	return rows, err
}

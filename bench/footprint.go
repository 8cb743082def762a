package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// footprint measures what an idle broker on SQLite costs.
func footprint(ctx context.Context, l *lab) ([]row, error) {
	startups, err := l.startups(ctx, true)
	if err != nil {
		return nil, err
	}
	restarts, err := l.startups(ctx, false)
	if err != nil {
		return nil, err
	}
	b, err := l.start(ctx, env{"DATABASE_URL": sqliteIn(l.TempDir())})
	if err != nil {
		return nil, err
	}
	defer b.stop()
	select {
	case <-time.After(l.idle):
	case <-ctx.Done():
	}
	rss, err := b.memory("VmRSS")
	if err != nil {
		return nil, err
	}
	binary, err := os.Stat(l.binary)
	if err != nil {
		return nil, err
	}
	fresh, again := median(startups), median(restarts)
	return []row{
		{"start to ready, SQLite", "≤ 150 ms", fmt.Sprintf("%s on a new database, %s on one that is there; medians of %d",
			millis(fresh), millis(again), l.starts), metIf(max(fresh, again) <= 150*time.Millisecond)},
		{fmt.Sprintf("memory, idle for %s", l.idle), "≤ 40 MB", megabytes(rss), metIf(rss <= 40e6)},
		{"binary, static and stripped", "≤ 60 MB", megabytes(binary.Size()), metIf(binary.Size() <= 60e6)},
	}, nil
}

func sqliteIn(dir string) string { return "sqlite:" + filepath.Join(dir, "broker.db") }

// startups starts brokers one after the other, each on a new database or all on the
// same, and returns how long each took to be ready.
func (l *lab) startups(ctx context.Context, fresh bool) (took []time.Duration, err error) {
	dir := l.TempDir()
	for i := range l.starts + 1 {
		if fresh {
			dir = l.TempDir()
		}
		b, err := l.start(ctx, env{"DATABASE_URL": sqliteIn(dir)})
		if err != nil {
			return nil, err
		}
		b.stop()
		if i > 0 { // the first one makes the database, and finds the binary on the disk
			took = append(took, b.startup)
		}
	}
	return took, nil
}

var statusLine = regexp.MustCompile(`(?m)^(\w+):\s+(\d+) kB$`)

// memory returns a figure of /proc/<pid>/status in bytes (proc(5)): VmRSS is the
// memory in use, VmHWM the most since the last forgetPeak.
func (b *instance) memory(name string) (int64, error) {
	status, err := os.ReadFile(b.proc("status"))
	if err != nil {
		return 0, err
	}
	for _, m := range statusLine.FindAllStringSubmatch(string(status), -1) {
		if m[1] == name {
			kilobytes, err := strconv.ParseInt(m[2], 10, 64)
			return kilobytes * 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, b.proc("status"))
}

// forgetPeak makes VmHWM begin anew.
func (b *instance) forgetPeak() error { return os.WriteFile(b.proc("clear_refs"), []byte("5"), 0) }

func (b *instance) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(b.cmd.Process.Pid), file)
}

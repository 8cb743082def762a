package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// fact is something about the machine that a reader of the table has to know.
type fact struct{ name, value string }

// describe gathers the facts before anything is measured.
func describe(ctx context.Context, l *lab) ([]fact, error) {
	database, err := l.databaseFacts(ctx)
	if err != nil {
		return nil, err
	}
	sync, err := l.syncTime()
	if err != nil {
		return nil, err
	}
	status, health := l.vault.Do(http.MethodGet, "sys/health", nil)
	if status != http.StatusOK {
		return nil, fmt.Errorf("health of Vault: %w %d", errStatus, status)
	}
	broker, err := output(ctx, l.binary, "version")
	if err != nil {
		return nil, err
	}
	command := "`make bench`"
	if l.short {
		command += " with `-short`: the figures mean little"
	}
	return []fact{
		{"Command", command},
		{"Broker", oneLine(broker)},
		{"Machine", fmt.Sprintf("%d cores (%s), %s of memory, %s", runtime.NumCPU(),
			firstMatch(`(?m)^model name\s*:\s*(.+)$`, "/proc/cpuinfo"), memorySize(),
			firstMatch(`^(\S+ \S+ \S+)`, "/proc/version"))},
		{"Database", database},
		{"Disk", fmt.Sprintf("writing 8 KiB and syncing it takes %s (median) where the database lies", millis(sync))},
		{"Vault", fmt.Sprintf("%v, storage in memory, on loopback without TLS", health["version"])},
		{"Load", "`wrk " + strings.Join(wrkFlags(l.load), " ") + " -s bench/load.lua`: closed loop, on the same cores as the broker and the database"},
		{"Yardstick", "`pgbench " + strings.Join(pgbenchFlags(l.load), " ") + " -f read_and_insert.sql` and `one_statement.sql`, on the same cores too; figures are medians of " +
			number(l.rounds) + " rounds"},
	}, nil
}

func (l *lab) databaseFacts(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, l.cluster.URL("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	var version string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return "", err
	}
	text := "PostgreSQL " + version
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "max_wal_size"} {
		var value string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", setting).Scan(&value); err != nil {
			return "", err
		}
		text += ", " + setting + "=" + value
	}
	return text, nil
}

// syncTime returns the median time to write a page and make it durable: with less
// than a tenth of a millisecond the disk most likely promises what it does not keep.
func (l *lab) syncTime() (time.Duration, error) {
	f, err := os.Create(filepath.Join(l.Dir(), "sync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var took []time.Duration
	page := make([]byte, 8<<10)
	for i := range 200 {
		began := time.Now()
		if _, err := f.WriteAt(page, int64(i%16)*int64(len(page))); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	return median(took), nil
}

// idleLook is for how long it is watched what else runs on the machine.
const idleLook = 2 * time.Second

// othersBusy returns how busy the cores are while the benchmark does nothing, in
// percent: what others take then they take from the figures too. -1 if it cannot
// be told.
func othersBusy(ctx context.Context) int {
	busy1, all1 := processorTime()
	select {
	case <-time.After(idleLook):
	case <-ctx.Done():
	}
	busy2, all2 := processorTime()
	if all2 == all1 {
		return -1
	}
	return int(100 * (busy2 - busy1) / (all2 - all1))
}

// processorTime reads the first line of /proc/stat (proc(5)): the time that all cores
// together were busy, and all of their time.
func processorTime() (busy, all int64) {
	const idle, iowait, guest = 3, 4, 8 // the time of guests is part of the others
	for i, field := range strings.Fields(firstMatch(`^cpu +(.+)`, "/proc/stat")) {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil || i >= guest {
			break
		}
		all += ticks
		if i != idle && i != iowait {
			busy += ticks
		}
	}
	return busy, all
}

// busyFact tells how much else was going on.
func busyFact(before, after int) fact {
	return fact{"Besides", fmt.Sprintf("other work kept the cores %d %% busy before the run and %d %% after it; load average at the end %s",
		before, after, firstMatch(`^(\S+ \S+ \S+)`, "/proc/loadavg"))}
}

func memorySize() string {
	kilobytes, err := strconv.Atoi(firstMatch(`(?m)^MemTotal:\s+(\d+) kB`, "/proc/meminfo"))
	if err != nil {
		return "an unknown amount"
	}
	return fmt.Sprintf("%.0f GiB", float64(kilobytes)/(1<<20))
}

// firstMatch returns what the first group of the pattern matches in a file, or
// "unknown".
func firstMatch(pattern, file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		return "unknown"
	}
	return strings.TrimSpace(string(m[1]))
}

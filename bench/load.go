package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// clients is how many connections make load at once, at the broker and in pgbench.
const clients = 64

// sample is what one measure of a rate has given.
type sample struct {
	rate   float64 // per second
	p99    time.Duration
	errors int // answers of 400 or above, and connections that broke
}

func rateOf(s sample) float64      { return s.rate }
func p99Of(s sample) time.Duration { return s.p99 }

func errorsIn(samples ...[]sample) (n int) {
	for _, list := range samples {
		for _, s := range list {
			n += s.errors
		}
	}
	return n
}

// failures says how many requests did not get what they asked for.
func failures(samples ...[]sample) string {
	if n := errorsIn(samples...); n > 0 {
		return fmt.Sprintf("; **%s requests failed**", number(n))
	}
	return ""
}

// measure adds one sample to a list.
type measure struct {
	into *[]sample
	take func() (sample, error)
}

func takeAll(measures []measure) error {
	for _, m := range measures {
		s, err := m.take()
		if err != nil {
			return err
		}
		*m.into = append(*m.into, s)
	}
	return nil
}

// comparison is how a figure relates to another that was taken in the same rounds.
type comparison struct {
	ratio           float64 // of the medians
	lowest, highest float64 // of the rounds: how noisy it was
}

func compare[T float64 | time.Duration](a, b []sample, get func(sample) T) comparison {
	rounds := make([]float64, len(a))
	for i := range a {
		rounds[i] = float64(get(a[i])) / float64(get(b[i]))
	}
	return comparison{
		ratio:  float64(median(each(a, get))) / float64(median(each(b, get))),
		lowest: slices.Min(rounds), highest: slices.Max(rounds),
	}
}

func (c comparison) String() string {
	return fmt.Sprintf("%.2f × (rounds: %.2f to %.2f)", c.ratio, c.lowest, c.highest)
}

//go:embed load.lua
var loadScript string

// wrk runs the load generator for d. args are those of load.lua after the API key.
func (l *lab) wrk(ctx context.Context, b *instance, d time.Duration, args ...string) (sample, error) {
	script := filepath.Join(l.Dir(), "load.lua")
	if err := os.WriteFile(script, []byte(loadScript), 0o644); err != nil {
		return sample{}, err
	}
	all := append(wrkFlags(d), "-s", script, b.url, "--", apiKey)
	out, err := output(ctx, "wrk", append(all, args...)...)
	if err != nil {
		return sample{}, err
	}
	return parseWrk(out)
}

func wrkFlags(d time.Duration) []string {
	return []string{
		"-t", strconv.Itoa(min(runtime.NumCPU(), clients)), "-c", strconv.Itoa(clients),
		"-d", strconv.Itoa(int(d/time.Second)) + "s", "--timeout", "10s",
	}
}

var errOutput = errors.New("output not understood")

// parseWrk reads the line that load.lua has printed last.
func parseWrk(out string) (sample, error) {
	var r struct{ Requests, Microseconds, P99, Refused, Broken int }
	i := strings.LastIndex(out, `{"requests"`)
	if i < 0 || json.Unmarshal([]byte(out[i:]), &r) != nil || r.Microseconds == 0 {
		return sample{}, fmt.Errorf("wrk: %w: %s", errOutput, oneLine(out))
	}
	return sample{
		rate:   float64(r.Requests) / float64(r.Microseconds) * 1e6,
		p99:    time.Duration(r.P99) * time.Microsecond,
		errors: r.Refused + r.Broken,
	}, nil
}

// pgbenchScript is a script of pgbench that reads and inserts what handing out a
// token does.
type pgbenchScript struct{ name, text string }

// readAndInsert does it as a transaction of two statements.
func readAndInsert(connections int) pgbenchScript {
	read := strings.ReplaceAll(relational.SelectTokenView, "$1", pgbenchID)
	return pgbenchScript{"read_and_insert.sql", choose(connections) + "BEGIN;\n" + read + ";\n" +
		"INSERT INTO audit_events (" + relational.EventColumns + ") VALUES (" + pgbenchEvent + ");\nEND;\n"}
}

// oneStatement does it as the broker does, in one statement and one round trip.
func oneStatement(connections int) pgbenchScript {
	read := strings.ReplaceAll(relational.SelectTokenView, "$1", pgbenchID)
	return pgbenchScript{"one_statement.sql", choose(connections) + "WITH found AS (" + read + "),\n" +
		"recorded AS (INSERT INTO audit_events (" + relational.EventColumns + ") SELECT " + pgbenchEvent + " FROM found)\n" +
		"SELECT * FROM found;\n"}
}

func choose(connections int) string { return fmt.Sprintf("\\set n random(1, %d)\n", connections) }

var (
	pgbenchID    = idSQL(":n::bigint", connectionKind)
	pgbenchEvent = "gen_random_uuid(), " + pgbenchID + ", 'token_retrieved', " +
		`'{"request_id":"00000000-0000-4000-8000-000000000000"}', '127.0.0.1', 'pgbench', now()`
)

// pgbench runs a script with as many clients as the broker has.
func (l *lab) pgbench(ctx context.Context, database string, d time.Duration, s pgbenchScript) (sample, error) {
	file := filepath.Join(l.Dir(), s.name)
	if err := os.WriteFile(file, []byte(s.text), 0o644); err != nil {
		return sample{}, err
	}
	out, err := output(ctx, l.cluster.Bin("pgbench"), append(pgbenchFlags(d), "-f", file, database)...)
	if err != nil {
		return sample{}, err
	}
	return parsePgbench(out)
}

func pgbenchFlags(d time.Duration) []string {
	return []string{
		"-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(runtime.NumCPU(), clients)),
		"-T", strconv.Itoa(int(d / time.Second)),
	}
}

var (
	pgbenchRate   = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)
	pgbenchFailed = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

func parsePgbench(out string) (s sample, err error) {
	m := pgbenchRate.FindStringSubmatch(out)
	if m == nil {
		return s, fmt.Errorf("pgbench: %w: %s", errOutput, oneLine(out))
	}
	if s.rate, err = strconv.ParseFloat(m[1], 64); err != nil {
		return s, fmt.Errorf("pgbench: %w: %w", errOutput, err)
	}
	if m := pgbenchFailed.FindStringSubmatch(out); m != nil { // from version 15 on
		s.errors, err = strconv.Atoi(m[1])
	}
	return s, err
}

// output runs a program and returns what it prints.
func output(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var printed, complained strings.Builder
	cmd.Stdout, cmd.Stderr = &printed, &complained
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(program), err, oneLine(complained.String()))
	}
	return printed.String(), nil
}

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// ledger counts calls by what they were and by what came of them.
type ledger struct {
	mu    sync.Mutex
	lines map[string]*line
	lost  []string // updates
	done  map[string]int
}

type line struct {
	calls   int
	slowest time.Duration
	classes map[string]int
}

func newLedger() *ledger { return &ledger{lines: map[string]*line{}, done: map[string]int{}} }

func (l *ledger) note(what, class string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lines[what]
	if at == nil {
		at = &line{classes: map[string]int{}}
		l.lines[what] = at
	}
	at.calls++
	at.slowest = max(at.slowest, took)
	if class != good {
		at.classes[class]++
	}
}

// lose notes that something which was acknowledged is not so.
func (l *ledger) lose(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = append(l.lost, time.Now().Format("15:04:05.000")+": "+fmt.Sprintf(format, args...))
}

// did counts a fault that was made.
func (l *ledger) did(fault string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[fault]++
}

func (l *ledger) losses() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lost)
}

// verdict is what must be so at the end.
type verdict struct {
	lost      []string // updates
	twice     []string // refreshes
	dead      []string // connections that the provider has not ended
	left      []string // in the vault, in the database
	orphans   int
	ended     int // connections that went with a killed process
	connected int
}

func (v verdict) kept() bool { return len(v.lost)+len(v.twice)+len(v.dead)+len(v.left) == 0 }

// report is the table that is printed.
func (s *soak) report(traffic time.Duration, v verdict) string {
	l := s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d replicas, PostgreSQL, Vault, a strict provider with rotating refresh tokens; %s of traffic, seed %d\n",
		replicas, traffic.Round(time.Second), s.seed)
	fmt.Fprintf(&b, "faults: %s\n\n", counted(l.done))
	b.WriteString("| call | requests | failed | slowest | failures by class |\n|---|---|---|---|---|\n")
	calls, failures := 0, 0
	for _, what := range slices.Sorted(maps.Keys(l.lines)) {
		at, failed := l.lines[what], 0
		for _, n := range at.classes {
			failed += n
		}
		calls, failures = calls+at.calls, failures+failed
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %s |\n", what, at.calls, failed, at.slowest.Round(10*time.Millisecond), counted(at.classes))
	}
	fmt.Fprintf(&b, "| all | %d | %d | | |\n\n", calls, failures)
	issued, _, _ := s.tokens.counts()
	b.WriteString("| what | must be | is |\n|---|---|---|\n")
	fmt.Fprintf(&b, "| lost updates | 0 | %d |\n", len(v.lost))
	fmt.Fprintf(&b, "| duplicate refreshes, of %d tokens that were issued | 0 | %d |\n", issued, len(v.twice))
	fmt.Fprintf(&b, "| connections that died otherwise than with a killed process, of %d | 0 | %d |\n", v.connected, len(v.dead))
	fmt.Fprintf(&b, "| left over in the vault and in the database | 0 | %d |\n", len(v.left))
	fmt.Fprintf(&b, "| tokens that died with a killed process before they could be stored | – | %d, which ended %d connections |\n", v.orphans, v.ended)
	for _, list := range [][]string{v.lost, v.twice, v.dead, v.left} {
		for i, each := range list {
			if i == 20 {
				fmt.Fprintf(&b, "… and %d more\n", len(list)-i)
				break
			}
			b.WriteString("BROKEN " + each + "\n")
		}
	}
	return b.String()
}

// counted writes counts, the largest first.
func counted(counts map[string]int) string {
	names := slices.Collect(maps.Keys(counts))
	slices.SortFunc(names, func(x, y string) int {
		if counts[x] != counts[y] {
			return counts[y] - counts[x]
		}
		return strings.Compare(x, y)
	})
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%d × %s", counts[name], name)
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

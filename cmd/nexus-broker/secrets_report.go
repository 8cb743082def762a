package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// plainEvery is how often progress is a line where there is no terminal.
const plainEvery = 10 * time.Second

// moveReport prints what becomes of each provider, as it comes: nothing is kept in memory
// but the counts. Progress goes to stderr.
type moveReport struct {
	out, err  io.Writer
	json      bool
	dryRun    bool
	command   string
	options   broker.MoveOptions
	bar       bool // stderr is a terminal
	lines     int  // of providers, written
	counts    map[broker.MoveOutcome]int
	bad       int
	told      time.Time
	shown     bool // a bar is on the screen
	writeFail error
}

// movedProvider is a provider in the report of --json.
type movedProvider struct {
	ID      string             `json:"id"`
	Name    string             `json:"name"`
	Outcome broker.MoveOutcome `json:"outcome"`
	Detail  string             `json:"detail,omitempty"`
}

func newMoveReport(p program, command string, f *secretsFlags) *moveReport {
	r := &moveReport{out: p.stdout, err: p.stderr, json: f.json, dryRun: f.move.DryRun, command: command,
		options: f.move, bar: isTerminal(p.stderr), counts: map[broker.MoveOutcome]int{}, told: time.Now()}
	if r.json {
		head, _ := json.Marshal(map[string]any{"command": command, "from": f.move.From, "to": f.move.To, "dry_run": f.move.DryRun})
		r.write(strings.TrimSuffix(string(head), "}") + `,"providers":[`)
	}
	return r
}

func (r *moveReport) write(text string) {
	if _, err := io.WriteString(r.out, text); err != nil && r.writeFail == nil {
		r.writeFail = err
	}
}

// add reports one provider. What went as it should is a line only in a dry run and with
// --json: of 10,000 providers a person wants to read of those that failed.
func (r *moveReport) add(m broker.MoveResult) {
	r.counts[m.Outcome]++
	if m.Outcome.Bad() {
		r.bad++
	}
	name := oneLine(m.Name)
	switch {
	case r.json:
		line, _ := json.Marshal(movedProvider{m.ProviderID.String(), m.Name, m.Outcome, oneLine(m.Detail)})
		if r.lines > 0 {
			r.write(",")
		}
		r.write("\n" + string(line))
		r.lines++
	case r.dryRun, m.Outcome.Bad(), m.Outcome == broker.MoveAdopted, r.command == "verify":
		r.clear()
		text := fmt.Sprintf("%-9s %s  %s", m.Outcome, m.ProviderID, name)
		if m.Detail != "" {
			text += ": " + oneLine(m.Detail)
		}
		r.write(text + "\n")
	}
}

// progress shows how far it is: a bar on a terminal, else a line now and then.
func (r *moveReport) progress(p broker.MoveProgress) {
	text := fmt.Sprintf("%d of %d", p.Done, p.Total)
	if p.Bad > 0 {
		text += fmt.Sprintf(", %d failed", p.Bad)
	}
	if p.Later > 0 {
		text += fmt.Sprintf(", %d to be tried again", p.Later)
	}
	if p.Waiting != "" {
		text += "; waiting: " + oneLine(p.Waiting)
	}
	if r.bar {
		r.clear()
		fmt.Fprintf(r.err, "%s %.100s", barOf(p.Done, p.Total), text)
		r.shown = true
		return
	}
	if now := time.Now(); now.Sub(r.told) >= plainEvery {
		r.told = now
		fmt.Fprintf(r.err, "%s: %s\n", r.command, text)
	}
}

// barOf draws done of total in 20 places.
func barOf(done, total int) string {
	const width = 20
	full := width
	if total > 0 {
		full = min(width, width*done/total)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

// clear takes the bar off the screen.
func (r *moveReport) clear() {
	if r.shown {
		fmt.Fprint(r.err, "\r\x1b[K")
		r.shown = false
	}
}

// end prints the summary, and returns what the command ends with.
func (r *moveReport) end(err error) error {
	r.clear()
	result := "ok"
	switch {
	case err != nil:
		result = "unfinished"
	case r.bad > 0:
		result = "failed"
	}
	if r.json {
		tail, _ := json.Marshal(map[string]any{"summary": r.counts, "result": result})
		r.write("\n]," + strings.TrimPrefix(string(tail), "{") + "\n")
	} else if err == nil || len(r.counts) > 0 { // who could not begin has not found that there is nothing to do
		r.write(r.summary())
	}
	switch {
	case err != nil:
		return fmt.Errorf("secrets %s: %w", r.command, err)
	case r.bad > 0:
		return fmt.Errorf("secrets %s: %s", r.command, counted(r.bad, "of the providers needs attention", "of the providers need attention"))
	}
	return r.writeFail
}

func (r *moveReport) summary() string {
	var parts []string
	for _, o := range []broker.MoveOutcome{
		broker.MoveCopied, broker.MoveAdopted, broker.MoveEqual, broker.MoveDeleted, broker.MoveSkipped,
		broker.MoveConflict, broker.MoveDiffers, broker.MoveMissing, broker.MoveNotOurs, broker.MoveFailed,
	} {
		if n := r.counts[o]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	if parts == nil {
		parts = []string{"nothing to do"}
	}
	text := strings.Join(parts, ", ")
	if r.dryRun {
		text = "dry run, nothing was written: " + text
	}
	return text + "\n"
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/secret"
)

// The parts of a set-up.
const (
	areaConfiguration = "configuration"
	areaDatabase      = "database"
	areaKeys          = "keys"
	areaBackend       = "backend"
)

// report is what "doctor" has found out, and the form of its --json.
type report struct {
	// Result is the worst of the verdicts.
	Result secret.Verdict `json:"result"`
	Checks []checked      `json:"checks"`
}

// checked is a finding with the part that it is about.
type checked struct {
	Area string `json:"area"`
	secret.Finding
}

// add notes a finding. Every text becomes one printable line.
func (r *report) add(area string, f secret.Finding) {
	f.Detail, f.Advice = oneLine(f.Detail), oneLine(f.Advice)
	r.Checks = append(r.Checks, checked{area, f})
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }), " ")
}

func (r *report) ok(area, check, detail string, args ...any) {
	r.add(area, secret.Finding{Check: check, Verdict: secret.Ok, Detail: fmt.Sprintf(detail, args...)})
}

// problems notes everything that is wrong with the configuration.
func (r *report) problems(all config.Problems) {
	for _, p := range all {
		r.add(areaConfiguration, secret.Finding{Check: p.Variable, Verdict: secret.Fail, Detail: p.Wrong, Advice: p.Want})
	}
}

// configuration notes what is worth a warning in a right configuration.
func (r *report) configuration(c config.Config) {
	r.ok(areaConfiguration, "variables", "no problem; SECRET_BACKEND=%s", c.Secrets.Backend)
	for _, warning := range c.Warnings {
		variable, rest, _ := strings.Cut(warning, " ")
		r.add(areaConfiguration, secret.Finding{Check: variable, Verdict: secret.Warn, Detail: rest, Advice: "see docs/configuration.md"})
	}
}

// count returns how many checks have the verdict.
func (r *report) count(v secret.Verdict) (n int) {
	for _, c := range r.Checks {
		if c.Verdict == v {
			n++
		}
	}
	return n
}

// err is nil unless something failed.
func (r *report) err() error {
	if n := r.count(secret.Fail); n > 0 {
		return fmt.Errorf("doctor: %s failed", counted(n, "check", "checks"))
	}
	return nil
}

// print writes the report, as lines for a person or as one JSON object.
func (r *report) print(w io.Writer, asJSON bool) error {
	r.Result = secret.Ok
	for _, v := range []secret.Verdict{secret.Warn, secret.Fail} {
		if r.count(v) > 0 {
			r.Result = v
		}
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		text := c.Detail
		if c.Advice != "" {
			text += ": " + c.Advice
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.Verdict, c.Area, c.Check, text)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d ok, %d warn, %d fail\n", r.count(secret.Ok), r.count(secret.Warn), r.count(secret.Fail))
	return err
}

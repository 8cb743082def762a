package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// verdict compares a figure with its mark.
type verdict string

const (
	met         verdict = "met"
	short       verdict = "**short**"
	notMeasured verdict = "**not measured**"
)

// metIf returns met or short.
func metIf(ok bool) verdict {
	if ok {
		return met
	}
	return short
}

// row is one line of the table.
type row struct {
	what, mark, measured string
	verdict              verdict
}

// report is the Markdown that is printed and kept in docs/benchmarks.md.
func report(facts []fact, rows []row, began time.Time, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s in %s:\n\n", began.Format("2006-01-02 15:04 MST"), took.Round(time.Second))
	for _, f := range facts {
		fmt.Fprintf(&b, "- %s: %s\n", f.name, f.value)
	}
	b.WriteString("\n| what | mark | measured | verdict |\n|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(r.what), cell(r.mark), cell(r.measured), r.verdict)
	}
	return b.String()
}

// cell keeps a text within its cell.
func cell(s string) string { return strings.ReplaceAll(oneLine(s), "|", `\|`) }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// The lines between which a file holds the last table.
const (
	tableBegins = "<!-- make bench: begin -->\n"
	tableEnds   = "<!-- make bench: end -->\n"
)

var errNoMarkers = errors.New("has no markers for the table")

// updateFile puts text between the markers of the file.
func updateFile(name, text string) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(old), tableBegins)
	_, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s %w", name, errNoMarkers)
	}
	return os.WriteFile(name, []byte(before+tableBegins+text+tableEnds+after), 0o644)
}

// number writes a whole number with its thousands set apart.
func number[T int | int64 | float64](n T) string {
	digits := strconv.FormatInt(int64(n), 10)
	var groups []string
	for len(digits) > 3 {
		groups = append(groups, digits[len(digits)-3:])
		digits = digits[:len(digits)-3]
	}
	groups = append(groups, digits)
	slices.Reverse(groups)
	return strings.Join(groups, ",")
}

// millis writes a duration in milliseconds with three significant digits or so.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	case ms >= 10:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.2f ms", ms)
}

// megabytes writes a number of bytes in units of 10⁶.
func megabytes[T int | int64](bytes T) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// median returns the middle of the values, of an even number the upper one.
func median[T int | int64 | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// each returns what get returns for every element.
func each[E, V any](list []E, get func(E) V) []V {
	values := make([]V, len(list))
	for i, e := range list {
		values[i] = get(e)
	}
	return values
}

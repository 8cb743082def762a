package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with the configuration.
type Problem struct {
	Variable string // "DATABASE_URL"
	Wrong    string // "is not set"
	Want     string // "give postgres://… or sqlite:<path>"
}

// String returns the problem as one line.
func (p Problem) String() string { return fmt.Sprintf("%s %s: %s", p.Variable, p.Wrong, p.Want) }

// Problems is everything that is wrong with a configuration, at least one. It is
// the error of Load.
type Problems []Problem

// Error returns one line that counts the problems, and a line for each.
func (ps Problems) Error() string {
	var b strings.Builder
	if len(ps) == 1 {
		b.WriteString("the configuration has 1 problem:")
	} else {
		fmt.Fprintf(&b, "the configuration has %d problems:", len(ps))
	}
	for _, p := range ps {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

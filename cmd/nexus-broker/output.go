package main

import (
	"encoding/json"
	"io"
	"os"

	"github.com/mattn/go-isatty"
)

// isTerminal reports whether a stream of the process is a terminal: somebody to ask, or
// to show a progress bar to.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// printJSON prints what --json asks for.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

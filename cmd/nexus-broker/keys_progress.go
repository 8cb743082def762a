package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/keyrotation"
)

// rotationProgress shows how far a rotation is: as a bar on a terminal, else as a line
// every few seconds. It goes to stderr, so that stdout has the result alone.
type rotationProgress struct {
	out      io.Writer
	terminal bool
	quiet    bool
	drawn    bool
	last     time.Time
}

// progressEvery is the time between two lines, where no terminal shows them.
const progressEvery = 5 * time.Second

func newRotationProgress(out io.Writer, quiet bool) *rotationProgress {
	return &rotationProgress{out: out, terminal: isTerminal(out), quiet: quiet, last: time.Now()}
}

func (b *rotationProgress) show(p keyrotation.Progress) {
	ended := p.Done >= p.Total
	switch {
	case b.quiet || p.Total == 0:
	case b.terminal:
		if !ended && time.Since(b.last) < 100*time.Millisecond {
			return
		}
		const width = 30
		full := width * p.Done / p.Total
		fmt.Fprintf(b.out, "\r%-14s [%s%s] %3d%% %d of %d ", p.Place, strings.Repeat("=", full), strings.Repeat(" ", width-full),
			100*p.Done/p.Total, p.Done, p.Total)
		b.drawn, b.last = true, time.Now()
		if ended {
			b.end()
		}
	case ended || time.Since(b.last) >= progressEvery:
		fmt.Fprintf(b.out, "%s: %d of %d\n", p.Place, p.Done, p.Total)
		b.last = time.Now()
	}
}

// end leaves the line of the bar.
func (b *rotationProgress) end() {
	if b.drawn {
		fmt.Fprintln(b.out)
		b.drawn = false
	}
}

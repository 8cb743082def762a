package metrics

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// striped is a counter for the path that has to scale with the cores: an increment
// goes to one of several cells, each in a cache line of its own. A core goes on with the
// cell that it has used last, and takes another when it meets somebody there.
type striped struct {
	cells [16]struct {
		n atomic.Uint64
		_ [56]byte // the rest of a cache line
	}
	// places are indices of cells. A pool keeps what is put back for the core that did so;
	// what it loses to the garbage collector is drawn anew.
	places sync.Pool
}

func (c *striped) inc() {
	at, ok := c.places.Get().(*uint32)
	if !ok {
		at = new(c.anyCell())
	}
	for {
		cell := &c.cells[*at].n
		if n := cell.Load(); cell.CompareAndSwap(n, n+1) {
			break
		}
		*at = c.anyCell()
	}
	c.places.Put(at)
}

func (c *striped) anyCell() uint32 { return rand.Uint32N(uint32(len(c.cells))) }

func (c *striped) value() float64 {
	var sum uint64
	for i := range c.cells {
		sum += c.cells[i].n.Load()
	}
	return float64(sum)
}

// newStriped registers a striped counter as the one of its label's values.
func newStriped(factory promauto.Factory, opts prometheus.CounterOpts, label, value string) *striped {
	c := &striped{}
	opts.ConstLabels = prometheus.Labels{label: value}
	factory.NewCounterFunc(opts, c.value)
	return c
}

package metrics

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// striped is a counter for the path that has to scale with the cores: an increment
// goes to one of several cells, each in a cache line of its own, so that cores
// seldom wait for each other.
type striped struct {
	cells [16]struct {
		n atomic.Uint64
		_ [56]byte // the rest of a cache line
	}
}

func (c *striped) inc() { c.cells[rand.Uint32()%uint32(len(c.cells))].n.Add(1) }

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

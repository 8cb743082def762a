package oauth

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// cache keeps good answers for ttl, at most max of them, and lets callers who want
// the same one share one request. Failures are not kept.
type cache[V any] struct {
	now     func() time.Time
	ttl     time.Duration
	max     int
	flights singleflight.Group

	mu      sync.Mutex
	entries map[string]entry[V]
	serial  uint64
}

// entry is an answer. Its serial tells a later answer from an earlier one.
type entry[V any] struct {
	value  V
	at     time.Time
	serial uint64
}

func newCache[V any](now func() time.Time, ttl time.Duration, max int) *cache[V] {
	return &cache[V]{now: now, ttl: ttl, max: max, entries: map[string]entry[V]{}}
}

// get returns what is kept of key, unless it is older than ttl.
func (c *cache[V]) get(key string) (entry[V], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok || c.now().Sub(e.at) >= c.ttl {
		return entry[V]{}, false
	}
	return e, true
}

// fetch returns an answer that is newer than seen, zero for any, calling load if
// there is none. A call of load outlives the caller that happened to begin it,
// because others may be waiting for it; load must end by itself.
func (c *cache[V]) fetch(ctx context.Context, key string, seen uint64, load func(context.Context) (V, error)) (entry[V], error) {
	flight := c.flights.DoChan(key, func() (any, error) {
		if e, ok := c.get(key); ok && e.serial > seen {
			return e, nil // somebody else's request has ended just before
		}
		v, err := load(context.WithoutCancel(ctx))
		if err != nil {
			return nil, err
		}
		return c.put(key, v), nil
	})
	select {
	case <-ctx.Done():
		return entry[V]{}, ctx.Err()
	case r := <-flight:
		if r.Err != nil {
			return entry[V]{}, r.Err
		}
		return r.Val.(entry[V]), nil
	}
}

func (c *cache[V]) put(key string, v V) entry[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[key]; !ok && len(c.entries) >= c.max {
		for k := range c.entries { // any one: the bound guards memory, not speed
			delete(c.entries, k)
			break
		}
	}
	c.serial++
	e := entry[V]{value: v, at: c.now(), serial: c.serial}
	c.entries[key] = e
	return e
}

package credentials

import (
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
)

const (
	// negativeTTL bounds how long a value is known to be missing: whoever puts it into
	// the vault need not wait.
	negativeTTL = 5 * time.Second
	// tombstoneTTL is longer than any read takes.
	tombstoneTTL = 5 * time.Minute
	// refreshAfter is the part of its life, in percent, after which a value in use is
	// refreshed in the background.
	refreshAfter = 75
)

// cache keeps pairs by the place where they lie, one entry a place. Its times are
// measured from the service's start, on the monotonic clock: setting the clock
// neither prolongs nor ends the life of a value.
//
// What was read last wins: entries are ordered by when their read began, so that
// a slow read never replaces what a later one has found.
type cache struct {
	entries       *otter.Cache[place, *entry] // nil: caching is off
	ttl, maxStale time.Duration
	reads         atomic.Uint64 // numbers the reads
}

// place is where a pair lies. What references name may be several providers' at once,
// and is kept for each of them.
type place struct {
	backend, key string
	referrer     uuid.UUID // with references, the provider
}

func (r Ref) place() place {
	if r.Referenced() {
		return place{backend: r.Backend, referrer: r.ProviderID}
	}
	return place{backend: r.Backend, key: r.Key}
}

// variant is what must agree, beside the place, for an entry to answer for a Ref.
type variant struct {
	provider        uuid.UUID
	public          bool
	idReference     string
	secretReference string
}

func (r Ref) variant() variant {
	return variant{r.ProviderID, r.Public, r.ClientIDReference, r.ClientSecretReference}
}

// entry is what is known of one place. All but refreshAt is immutable.
type entry struct {
	read       uint64 // number of the read, in the order in which reads began
	tombstone  bool   // says only that what was read before is worth nothing
	variant    variant
	generation int64
	pair       Pair  // a value that is missing is zero
	missing    error // a *MissingError, nil if none is

	expires   time.Duration // not served from here on, but to bridge an outage
	drop      time.Duration // not kept in memory from here on
	refreshAt atomic.Int64  // a time.Duration: when the next background refresh is due
}

// newCache returns a cache of at most size entries; ttl 0 turns it off.
func newCache(size int, ttl, maxStale time.Duration) (*cache, error) {
	c := &cache{ttl: ttl, maxStale: maxStale}
	if ttl == 0 {
		return c, nil
	}
	var err error
	c.entries, err = otter.New(&otter.Options[place, *entry]{MaximumSize: size})
	return c, err
}

// answers reports whether e may stand for ref. A newer generation than the row's is
// fine, since the value was there before the row said so; but only of the same
// provider, since a successor of the same name begins anew.
func (e *entry) answers(ref Ref) bool {
	if e.variant != ref.variant() {
		return false
	}
	return e.generation == ref.Generation || e.generation > ref.Generation && ref.ProviderID != uuid.Nil
}

// pairFor returns what ref is to be given: an error for a value that it needs and
// that is missing.
func (e *entry) pairFor(ref Ref) (Pair, error) {
	if e.missing != nil && !ref.Optional {
		return Pair{}, e.missing
	}
	return e.pair, nil
}

// bridges reports whether e may stand in during an outage at now.
func (e *entry) bridges(now time.Duration) bool { return now < e.drop }

// lookup returns what is known for ref, expired or not; nil if nothing is.
func (c *cache) lookup(ref Ref) *entry {
	if c.entries == nil {
		return nil
	}
	e, ok := c.entries.GetIfPresent(ref.place())
	if !ok || e.tombstone || !e.answers(ref) {
		return nil
	}
	return e
}

// fresh is lookup for an entry that has not expired at now.
func (c *cache) fresh(ref Ref, now time.Duration) *entry {
	if e := c.lookup(ref); e != nil && now < e.expires {
		return e
	}
	return nil
}

// nextRead returns the number of a read that is about to begin.
func (c *cache) nextRead() uint64 { return c.reads.Add(1) }

// begun returns the number of the last read that has begun.
func (c *cache) begun() uint64 { return c.reads.Load() }

// found notes what the numbered read of ref, begun at began, has found. That a value
// is missing is remembered for a shorter time, and never bridges an outage.
func (c *cache) found(ref Ref, read uint64, began time.Duration, p Pair, missing error) *entry {
	e := &entry{
		read: read, variant: ref.variant(), generation: ref.Generation, pair: p, missing: missing,
		expires: began + c.ttl, drop: began + c.ttl + c.maxStale,
	}
	if missing != nil {
		e.expires = began + min(c.ttl, negativeTTL)
		e.drop = e.expires
	}
	e.refreshAt.Store(int64(began + (e.expires-began)*refreshAfter/100))
	c.put(ref.place(), e)
	return e
}

// evict forgets what was read before the numbered read, also by reads still under way.
func (c *cache) evict(at place, read uint64, now time.Duration) {
	c.put(at, &entry{read: read, tombstone: true, drop: now + tombstoneTTL})
}

func (c *cache) put(at place, e *entry) {
	if c.entries == nil {
		return
	}
	c.entries.Compute(at, func(old *entry, found bool) (*entry, otter.ComputeOp) {
		if found && old.read > e.read {
			return nil, otter.CancelOp
		}
		return e, otter.WriteOp
	})
}

// sweep removes what may not be kept any longer at now, so that no credential stays
// in memory because nobody asks for it.
func (c *cache) sweep(now time.Duration) {
	if c.entries == nil {
		return
	}
	for at, e := range c.entries.All() {
		if now < e.drop {
			continue
		}
		c.entries.ComputeIfPresent(at, func(current *entry) (*entry, otter.ComputeOp) {
			if current == e {
				return nil, otter.InvalidateOp
			}
			return nil, otter.CancelOp
		})
	}
}

// sweepEvery returns how often sweep is worth its while.
func (c *cache) sweepEvery() time.Duration {
	return min(15*time.Second, max(c.ttl/4, 100*time.Millisecond))
}

package credentials

import (
	"context"
	"sync"
	"time"
)

// reloadEvery is the time between two reads that Reload makes for one provider.
const reloadEvery = time.Second

// Reload is for a flow whose provider has just refused the pair rejected
// (invalid_client). It returns the pair that is stored now and whether that is
// another one, so that trying again makes sense.
//
// The answer is never older than the call, unless it is a changed pair: what the
// cache holds counts if it differs from rejected, and else the backend is read past
// the cache, both values anew, which also mends a pair that was read while it was
// being rotated. Whoever asks for the same provider at once shares one read, and
// reads of one provider begin at least a second apart: a caller who comes in
// between waits for the next one. Thus a provider that refuses every request costs
// its backend one read of the pair a second, whoever provokes it, and a rotation
// right after a fruitless read is still seen.
//
// An outage is not bridged: an expired pair is what the provider has refused. If
// ctx ends first the error wraps ctx.Err().
func (s *Service) Reload(ctx context.Context, ref Ref, rejected Pair) (p Pair, changed bool, err error) {
	if ref.IsZero() {
		return Pair{}, false, nil
	}
	if _, err := s.source(ref); err != nil {
		return Pair{}, false, err
	}
	asked := s.cache.begun()
	for {
		if e := s.cache.fresh(ref, s.clock()); e != nil {
			if p, err := e.pairFor(ref); err == nil && !p.Equal(rejected) {
				return p, true, nil
			}
		}
		e, err := await(ctx, ref, s.reloads.DoChan(ref.flight(), func() (any, error) {
			return s.reload(ctx, ref)
		}))
		if err == nil {
			p, err = e.pairFor(ref)
		}
		switch {
		case err != nil:
			return Pair{}, false, err
		case !p.Equal(rejected):
			return p, true, nil
		case e.read > asked:
			return p, false, nil
		}
		// The read that was joined had begun before the provider refused the pair.
	}
}

// reload reads the pair when it is the place's turn.
func (s *Service) reload(ctx context.Context, ref Ref) (*entry, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.running.Done()
	ctx, cancel := s.outlive(ctx)
	defer cancel()
	if wait := s.pacer.reserve(ref.place(), s.clock()); wait > 0 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
	return s.load(ctx, ref)
}

// pacer spaces the reloads of each place. The zero pacer is ready for use.
type pacer struct {
	mu   sync.Mutex
	last map[place]time.Duration // when the last reload began, or will
}

// reserve returns how long to wait before the next reload may begin.
func (p *pacer) reserve(at place, now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	start := now
	if last, ok := p.last[at]; ok {
		start = max(now, last+reloadEvery)
	}
	for k, last := range p.last {
		if now >= last+reloadEvery {
			delete(p.last, k)
		}
	}
	if p.last == nil {
		p.last = make(map[place]time.Duration)
	}
	p.last[at] = start
	return start - now
}

package credentials

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"

	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret"
)

// Get returns the credentials of ref: from the cache, or else from the backend that
// ref names, waiting together with everybody else who asks for the same. The zero
// Ref has none, which is no error.
//
// An expired pair is returned only while the backend is out, and at most MaxStale
// after it has expired. A missing value is a *MissingError, unless ref is Optional;
// that it is missing is remembered for at most 5 s. If ctx ends first the error
// wraps ctx.Err(), and the read goes on for the others.
func (s *Service) Get(ctx context.Context, ref Ref) (Pair, error) {
	if ref.IsZero() {
		return Pair{}, nil
	}
	e := s.cache.lookup(ref)
	if e == nil {
		return s.getCold(ctx, ref, nil)
	}
	now := s.clock()
	if now < e.expires {
		s.refresh(ctx, ref, e, now)
		p, err := e.pairFor(ref)
		if err != nil {
			s.metrics.CacheLookup(metrics.CacheNegative)
			return Pair{}, err
		}
		s.metrics.CacheLookup(metrics.CacheHit)
		return p, nil
	}
	if src := s.sources.known(ref.Backend); src != nil && e.bridges(now) && src.health.knownOut(now) {
		// Nobody has to wait to be told of an outage that is known.
		s.refresh(ctx, ref, e, now)
		return s.bridge(ctx, src, ref, e), nil
	}
	return s.getCold(ctx, ref, e)
}

// getCold waits for the backend. expired is what the cache holds, if anything.
func (s *Service) getCold(ctx context.Context, ref Ref, expired *entry) (Pair, error) {
	e, err := s.join(ctx, ref, expired)
	if err != nil && isOutage(err) && ctx.Err() == nil {
		if e := s.cache.lookup(ref); e != nil && e.bridges(s.clock()) {
			return s.bridge(ctx, s.sources.known(ref.Backend), ref, e), nil
		}
	}
	s.metrics.CacheLookup(metrics.CacheMiss)
	if err != nil {
		return Pair{}, err
	}
	return e.pairFor(ref)
}

// bridge serves an expired pair during an outage.
func (s *Service) bridge(ctx context.Context, src *source, ref Ref, e *entry) Pair {
	s.metrics.CacheLookup(metrics.CacheStale)
	if src.health.firstBridge() {
		s.log.WarnContext(ctx, "serving expired client credentials while the secret backend is out",
			"backend", src.name, "key", ref.Where(), "for_at_most", s.cache.maxStale.String())
	}
	return e.pair
}

// join waits for the one read of ref that is under way, beginning it if there is
// none. known is what the caller has seen in the cache: something fresh that is not
// it makes a read needless.
func (s *Service) join(ctx context.Context, ref Ref, known *entry) (*entry, error) {
	done := s.loads.DoChan(ref.flight(), func() (any, error) {
		if e := s.cache.fresh(ref, s.clock()); e != nil && e != known {
			return e, nil
		}
		return s.loadDetached(ctx, ref)
	})
	return await(ctx, ref, done)
}

// await waits for a flight, no longer than ctx.
func await(ctx context.Context, ref Ref, done <-chan singleflight.Result) (*entry, error) {
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the credentials at %q in %s: %w", ref.Where(), ref.Backend, ctx.Err())
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*entry), nil
	}
}

// flight names the reads that give the same answer.
func (r Ref) flight() string {
	return fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%s\x00%d\x00%t%t", r.Backend, r.Key, r.ClientIDReference, r.ClientSecretReference,
		r.ProviderID, r.Generation, r.Public, r.Optional)
}

// Read returns the credentials of ref as its backend holds them when Read is called,
// past the cache, which it refreshes. The errors are those of Get.
func (s *Service) Read(ctx context.Context, ref Ref) (Pair, error) {
	if ref.IsZero() {
		return Pair{}, nil
	}
	e, err := s.load(ctx, ref)
	if err != nil {
		return Pair{}, err
	}
	return e.pairFor(ref)
}

// loadDetached is load that does not end with the caller who began it.
func (s *Service) loadDetached(ctx context.Context, ref Ref) (*entry, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.running.Done()
	ctx, cancel := s.outlive(ctx)
	defer cancel()
	return s.load(ctx, ref)
}

// load reads the pair of ref and tells the cache what it has found: a pair, that a
// value is missing, or that what was known is no longer true. An outage tells
// nothing.
func (s *Service) load(ctx context.Context, ref Ref) (*entry, error) {
	src, err := s.source(ref)
	if err != nil {
		return nil, err
	}
	number, began := s.cache.nextRead(), s.clock()
	results, err := s.readFor(ctx, src, ref)
	if err != nil {
		return nil, err
	}
	missing, err := verdict(src, results)
	switch {
	case err == nil:
	case errors.Is(err, secret.ErrDenied), errors.Is(err, secret.ErrInvalid):
		s.cache.evict(ref.place(), number, began)
		return nil, err
	case missing != nil && !ref.Optional:
		s.cache.evict(ref.place(), number, began)
		return nil, missing // true whatever the other read would have said
	default:
		return nil, err
	}
	p := Pair{ClientID: results[0].item.Value}
	if len(results) > 1 {
		p.ClientSecret = results[1].item.Value
	}
	return s.cache.found(ref, number, began, p, missing), nil
}

// result is the outcome of reading one value.
type result struct {
	key  string // that was read, or the reference in its written form
	path string // where a person finds it
	item secret.Item
	err  error
	ours bool // the failure is the broker's own finding, and tells nothing of the backend

	reference bool
}

// subject is what audit events call it.
func (r result) subject() subject {
	if r.reference {
		return subject{"reference", r.key}
	}
	return keySubject(r.key)
}

// readFor reads the values that a flow needs: the client id first.
func (s *Service) readFor(ctx context.Context, src *source, ref Ref) ([]result, error) {
	if ref.Referenced() {
		return s.readAll(ctx, src, ref.ProviderID, ref.References(), src.referenced)
	}
	return s.readAll(ctx, src, ref.ProviderID, ref.Keys(), src.values)
}

// readAll reads the keys, in the way that fetch has. It is the one way by which a value
// comes out of a backend: what was read is audited before readAll returns, and if it
// cannot be, nothing is returned.
func (s *Service) readAll(ctx context.Context, src *source, provider uuid.UUID, keys []string, fetch fetch) ([]result, error) {
	results := fetch(ctx, keys)
	var t trail
	for _, r := range results {
		if !r.ours {
			s.learn(ctx, src, r.err)
		}
		if !r.ours || classify(r.err) == denied {
			s.report(ctx, src, provider, "read", r.subject(), r.err)
		}
		if r.err == nil {
			t.read(ctx, src, provider, r.subject(), r.item.Version)
		}
	}
	if err := s.record(ctx, t); err != nil {
		return nil, err
	}
	return results, nil
}

// verdict sums up the reads of a pair: which values are missing, as a *MissingError,
// and the worst of what else went wrong. A denial is worse than any other failure,
// an outage the least of them.
func verdict(src *source, results []result) (missing, err error) {
	var paths []string
	for _, r := range results {
		switch {
		case r.err == nil:
		case errors.Is(r.err, secret.ErrNotFound):
			paths = append(paths, r.path)
		case err == nil, isOutage(err), errors.Is(r.err, secret.ErrDenied):
			err = r.err
		}
	}
	if len(paths) > 0 {
		missing = &MissingError{Backend: src.name, Paths: paths}
	}
	return missing, err
}

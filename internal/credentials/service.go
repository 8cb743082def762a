package credentials

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret"
)

// DefaultCacheSize is how many providers' credentials a cache keeps at most.
const DefaultCacheSize = 20_000

// Backend is one configured backend as the broker sees it.
type Backend struct {
	// Name is what rows call it, as in SECRET_BACKEND.
	Name string
	// Store has its deadline, metrics and log already (package backend). Whatever
	// secret.CapabilitiesOf finds of it is used.
	Store secret.SecretBackend
	// External: values are kept outside the broker's database.
	External bool
}

// Options configure a Service.
type Options struct {
	Backends []Backend
	// WriteTo names the backend that credentials are written to.
	WriteTo string
	// Further opens a backend that is not among Backends, when a provider's row names it
	// for the first time, and is asked again at most every 15 s if it fails. Its error
	// is for anybody to read. nil: there are no further ones.
	Further func(name string) (Backend, error)
	// ReadOnly: no call that writes is ever made.
	ReadOnly bool
	// ReferencePrefixes are the paths below which references may lie, beside the place
	// of the backend's own keys (SECRET_REF_ALLOWED_PREFIXES).
	ReferencePrefixes []string
	// CacheTTL is how long a value may be served without asking its backend; 0 turns
	// the cache off. MaxStale is for how much longer an outage may be bridged.
	CacheTTL, MaxStale time.Duration
	// CacheSize is how many pairs are kept at most; 0 means DefaultCacheSize.
	CacheSize int
	Audit     audit.Recorder
	Metrics   *metrics.Metrics // nil: not counted
	Logger    *slog.Logger     // nil: nothing is logged
	Now       func() time.Time // nil: time.Now
}

// Service hands out and keeps the client credentials of providers. It is safe for
// concurrent use, and prints no credential however it is printed.
//
// Errors of backends pass through with their sentinel. Every value that a backend
// gave is audited before it is used for anything; where that fails the call fails
// with ErrNotAudited.
type Service struct {
	sources  sources
	writeTo  *source
	readOnly bool

	cache     *cache
	loads     singleflight.Group // reads for Get, by Ref.flight
	reloads   singleflight.Group // reads for Reload, by Ref.flight
	pacer     pacer
	refreshes chan struct{} // a slot for each background refresh under way

	recorder         audit.Recorder
	denials, outages rateLimit // of the events and log lines about them
	metrics          *metrics.Metrics
	log              *slog.Logger
	now              func() time.Time
	clock            func() time.Duration // the time since the service began
	started          time.Time

	mu      sync.Mutex // guards closed, and running against it
	closed  bool
	running sync.WaitGroup
	life    context.Context // ends with Close
	stop    context.CancelFunc
}

// New returns a Service over the given backends. The caller closes it.
func New(o Options) (*Service, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c, err := newCache(o.CacheSize, o.CacheTTL, o.MaxStale)
	if err != nil {
		return nil, fmt.Errorf("credentials: cache: %w", err)
	}
	s := &Service{
		readOnly: o.ReadOnly, cache: c,
		refreshes: make(chan struct{}, maxRefreshes),
		recorder:  o.Audit, metrics: o.Metrics, log: o.Logger,
	}
	s.now, s.clock = clocks(o.Now)
	s.started = s.now()
	s.life, s.stop = context.WithCancel(context.Background())
	for _, b := range o.Backends {
		src := newSource(b, s.now())
		if err := src.allow(o.ReferencePrefixes); err != nil {
			s.stop()
			return nil, err
		}
		s.sources.add(src)
	}
	s.writeTo = s.sources.known(o.WriteTo)
	s.sources.clock = s.clock
	if o.Further != nil {
		s.sources.open = func(name string) (*source, error) {
			b, err := o.Further(name)
			if err != nil {
				return nil, err
			}
			src := newSource(b, s.now())
			for _, prefix := range o.ReferencePrefixes {
				_ = src.allow([]string{prefix}) // one that is no path in this store allows nothing there
			}
			return src, src.allow(nil)
		}
	}
	if c.entries != nil {
		s.running.Go(s.sweepCache)
	}
	return s, nil
}

// check fills in the defaults and reports what cannot work.
func (o *Options) check() error {
	names := make(map[string]bool, len(o.Backends))
	for _, b := range o.Backends {
		if b.Name == "" || b.Store == nil || names[b.Name] {
			return fmt.Errorf("credentials: backend %q needs a store and a name of its own", b.Name)
		}
		names[b.Name] = true
	}
	switch {
	case !names[o.WriteTo]:
		return fmt.Errorf("credentials: the backend to write to, %q, is not configured", o.WriteTo)
	case o.CacheTTL < 0 || o.MaxStale < 0 || o.CacheSize < 0:
		return errors.New("credentials: the limits of the cache cannot be negative")
	case o.Audit == nil:
		return errors.New("credentials: an audit recorder is required")
	}
	if o.CacheSize == 0 {
		o.CacheSize = DefaultCacheSize
	}
	if o.Metrics == nil {
		o.Metrics = metrics.New(nil)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// String shows no more than where credentials are written to.
func (s *Service) String() string { return "credentials in " + s.writeTo.name }

// GoString is String.
func (s *Service) GoString() string { return s.String() }

// WriteTo returns the name of the backend that credentials are written to.
func (s *Service) WriteTo() string { return s.writeTo.name }

// External reports whether the backend that credentials are written to keeps them
// outside the broker's database.
func (s *Service) External() bool { return s.writeTo.external }

// ReadOnly reports whether the broker must not write credentials.
func (s *Service) ReadOnly() bool { return s.readOnly }

// Configured reports whether the broker can use the named backend, which it opens if it is
// a further one. One that it cannot use, and that rows name, shows in Health from then on.
func (s *Service) Configured(backend string) bool {
	src, _ := s.sources.find(backend)
	return src != nil
}

// Locate returns where the credentials of ref lie, as a person would look them up;
// the key if the backend cannot tell or is not configured.
func (s *Service) Locate(ref Ref) string {
	src, _ := s.sources.find(ref.Backend)
	switch {
	case src == nil:
		return ref.Where()
	case ref.Referenced():
		return strings.Join(s.Paths(ref), " and ")
	}
	return src.locate(ref.Key)
}

// Paths returns where each value of ref is expected, the client id's first; one path
// for a public client and else two.
func (s *Service) Paths(ref Ref) []string {
	names := ref.Keys()
	if ref.Referenced() {
		names = ref.References()
	}
	src, _ := s.sources.find(ref.Backend)
	if src == nil {
		return names
	}
	for i, name := range names {
		if ref.Referenced() {
			names[i] = src.locateReference(name)
		} else {
			names[i] = src.locate(name)
		}
	}
	return names
}

// Forget drops what the cache holds for the place of ref, and keeps reads that are
// under way from being cached or joined. Call it after a change of the row.
func (s *Service) Forget(ref Ref) {
	s.cache.evict(ref.place(), s.cache.nextRead(), s.clock())
	s.loads.Forget(ref.flight())
}

// Close stops the work in the background, ends the reads under way and waits for
// them. The backends are the caller's to close.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.running.Wait()
}

// begin notes that work is under way that Close has to wait for; it must be ended
// with s.running.Done. It fails once Close was called.
func (s *Service) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("the broker is shutting down: %w", secret.ErrUnavailable)
	}
	s.running.Add(1)
	return nil
}

// outlive returns a context with the values of ctx that ends with the service
// instead of with ctx: what many callers wait for must not end with the first.
func (s *Service) outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(s.life, cancel)
	return ctx, func() { unhook(); cancel() }
}

// clocks returns the time of day and the time since now. By default the latter reads
// the monotonic clock alone, which takes half the time.
func clocks(now func() time.Time) (func() time.Time, func() time.Duration) {
	if now == nil {
		epoch := time.Now()
		return time.Now, func() time.Duration { return time.Since(epoch) }
	}
	epoch := now()
	return now, func() time.Duration { return now().Sub(epoch) }
}

// sweepCache keeps the promise that nothing stays in memory longer than allowed.
func (s *Service) sweepCache() {
	tick := time.NewTicker(s.cache.sweepEvery())
	defer tick.Stop()
	for {
		select {
		case <-s.life.Done():
			return
		case <-tick.C:
			s.cache.sweep(s.clock())
		}
	}
}

// source returns the backend that ref names, opening it if need be. There is no other
// place to look if that is none.
func (s *Service) source(ref Ref) (*source, error) { return s.sourceNamed(ref.Backend, ref.Where()) }

func (s *Service) sourceNamed(backend, key string) (*source, error) {
	src, reason := s.sources.find(backend)
	if src == nil {
		return nil, &NotConfiguredError{Backend: backend, Where: key, Reason: reason}
	}
	return src, nil
}

// writable is source for a call that writes.
func (s *Service) writable(backend, key string) (*source, error) {
	if s.readOnly {
		return nil, ErrReadOnly
	}
	return s.sourceNamed(backend, key)
}

// Package broker is the domain: providers, connections and tokens, the flows
// between them, and the Store that they need.
package broker

import (
	"context"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// Config is what an operator decides of the flows.
type Config struct {
	BaseURL              *url.URL // public; RedirectPath and the capture page lie below it
	RedirectPath         string
	StateKey             []byte // 32 bytes, shared with programs that verify a state
	EnforceReturnURL     bool
	AllowedReturnDomains []string // host names; "*.example.com" matches subdomains
	RedactClientSecrets  bool
	AuditRetention       time.Duration // zero: for ever
	SecretTimeout        time.Duration // one call to a secret backend; bounds operations
	RefreshLease         time.Duration // zero: DefaultRefreshLease
	KeyFault             string        // what was found wrong with the encryption key, for readiness; "": nothing
}

// Deps are the rooms next door. All are needed.
type Deps struct {
	Store       Store
	Credentials *credentials.Service
	OAuth       *oauth.Client
	Keyring     *seal.Keyring
	Metrics     *metrics.Metrics
	Logger      *slog.Logger
	Now         func() time.Time // nil: time.Now
}

// Service runs the flows. It is safe for concurrent use.
type Service struct {
	cfg     Config
	store   Store
	creds   *credentials.Service
	oauth   *oauth.Client
	keyring *seal.Keyring
	metrics *metrics.Metrics
	log     *slog.Logger
	clock   func() time.Time
	holder  string // names this process in leases

	refreshes singleflight.Group // by connection id
	upgrade   upgrade
	health    healthCache
	ready     readiness

	// work counts what outlives the request that began it: a token that has been
	// rotated at the provider must still be stored.
	work    sync.WaitGroup
	closing chan struct{}
	mu      sync.Mutex // guards closed, and that nothing is added to work after it
	closed  bool
}

// New returns a Service. Close ends it.
func New(cfg Config, d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	return &Service{
		cfg: cfg, store: d.Store, creds: d.Credentials, oauth: d.OAuth, keyring: d.Keyring,
		metrics: d.Metrics, log: d.Logger, clock: d.Now,
		holder: uuid.NewString(), closing: make(chan struct{}),
	}
}

// Close waits until everything that must be stored is stored, or ctx ends.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hold keeps Close waiting until release is called. It fails once Close has been
// called.
func (s *Service) hold() (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errShuttingDown()
	}
	s.work.Add(1)
	return s.work.Done, nil
}

func errShuttingDown() *Error {
	return &Error{Code: CodeShuttingDown, RetryAfter: time.Second, Message: "the broker is shutting down; try again"}
}

// now is UTC with the microseconds that a database keeps.
func (s *Service) now() time.Time { return s.clock().UTC().Truncate(time.Microsecond) }

// note records events that are not worth failing for: what they tell of has gone
// wrong already. A database that does not take them is logged.
func (s *Service) note(ctx context.Context, events ...audit.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.store.Record(ctx, events...); err != nil {
		s.log.ErrorContext(ctx, "audit event not recorded", "event_type", events[0].Type, "error", err)
	}
}

// AuditEvents gives the events that f selects, newest first.
func (s *Service) AuditEvents(ctx context.Context, f audit.Filter) Listing[audit.Event] {
	return s.store.AuditEvents(ctx, f)
}

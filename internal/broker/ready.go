package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// readiness remembers since when the database has answered, or not.
type readiness struct {
	mu    sync.Mutex
	up    bool
	since time.Time
}

func (r *readiness) observe(up bool, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.since.IsZero() || r.up != up {
		r.up, r.since = up, now
	}
	return r.since
}

const (
	// databaseWait is how long the database is given to answer.
	databaseWait = 3 * time.Second
	// secretsWait is how long the answer waits for the probe of a secret backend, which
	// goes on without it: a prober gives us a second, and takes a broker out of service
	// that needs longer, with the tokens that it could serve.
	secretsWait = 300 * time.Millisecond
)

// Ready tells whether the broker can work. Without its database it cannot; without
// the secret backend stored tokens are still served, and a backend that hangs holds up
// nobody: what was last known of it is told.
func (s *Service) Ready(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, databaseWait)
	defer cancel()
	var secrets sync.WaitGroup
	r := Readiness{Status: Ready}
	secrets.Go(func() { r.Secrets = s.secretsReady(ctx) })
	err := s.store.Ping(ctx)
	secrets.Wait()

	r.Database = Component{Status: "ok", Since: s.ready.observe(err == nil, s.now())}
	if err != nil {
		r.Database.Status, r.Database.Message = "unavailable", "the database does not answer"
		if errors.Is(err, ErrReadOnly) {
			r.Database.Message = "the database is read-only: no token can be handed out, since that could not be recorded"
		}
		s.log.WarnContext(ctx, r.Database.Message, "error", err)
		r.Status = Unavailable
	} else if r.Secrets.Status != "ok" || s.cfg.KeyFault != "" {
		r.Status = Degraded
	}
	if s.cfg.KeyFault != "" {
		r.EncryptionKey = Component{Status: "unavailable", Message: s.cfg.KeyFault}
	}
	return r
}

// secretsReady sums up the backends: the one that credentials are written to speaks
// for itself, and another that some provider's row names only when it is not well.
func (s *Service) secretsReady(ctx context.Context) Component {
	ctx, cancel := context.WithTimeout(ctx, secretsWait)
	defer cancel()
	var c Component
	for _, b := range s.creds.Health(ctx) {
		if c.Backend == "" || b.Name == s.creds.WriteTo() || c.Status == "ok" && b.Status != credentials.StatusOK {
			c = Component{Backend: b.Name, Status: string(b.Status), Since: b.Since, Message: b.Message}
		}
	}
	return c
}

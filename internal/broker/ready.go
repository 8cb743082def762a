package broker

import (
	"context"
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

// Ready tells whether the broker can work. Without its database it cannot; without
// the secret backend stored tokens are still served.
func (s *Service) Ready(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var secrets sync.WaitGroup
	r := Readiness{Status: Ready}
	secrets.Go(func() { r.Secrets = s.secretsReady(ctx) })
	err := s.store.Ping(ctx)
	secrets.Wait()

	r.Database = Component{Status: "ok", Since: s.ready.observe(err == nil, s.now())}
	if err != nil {
		s.log.WarnContext(ctx, "database does not answer", "error", err)
		r.Database.Status, r.Database.Message = "unavailable", "the database does not answer"
		r.Status = Unavailable
	} else if r.Secrets.Status != "ok" {
		r.Status = Degraded
	}
	return r
}

// secretsReady sums up the backends: the one that credentials are written to speaks
// for itself, and another that some provider's row names only when it is not well.
func (s *Service) secretsReady(ctx context.Context) Component {
	var c Component
	for _, b := range s.creds.Health(ctx) {
		if c.Backend == "" || b.Name == s.creds.WriteTo() || c.Status == "ok" && b.Status != credentials.StatusOK {
			c = Component{Backend: b.Name, Status: string(b.Status), Since: b.Since, Message: b.Message}
		}
	}
	return c
}

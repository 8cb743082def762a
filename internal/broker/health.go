package broker

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// healthEvery is how often the health of a provider is written while it does not
// change: a busy provider must not cost a write per flow.
const healthEvery = time.Minute

// healthCache remembers when this process last wrote a provider's health.
type healthCache struct {
	mu   sync.Mutex
	seen map[uuid.UUID]Health
}

// isNews reports whether h is worth a write, and remembers it as written.
func (c *healthCache) isNews(id uuid.UUID, stored, h Health) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, ok := c.seen[id]
	if !ok {
		last = stored
	}
	if last.Status == h.Status && stored.Status == h.Status && h.CheckedAt.Sub(last.CheckedAt) < healthEvery {
		return false
	}
	if c.seen == nil || len(c.seen) > 10_000 {
		c.seen = make(map[uuid.UUID]Health)
	}
	c.seen[id] = h
	return true
}

// learn stores what a flow learned of a provider. The flow does not fail for it.
func (s *Service) learn(ctx context.Context, p Provider, status HealthStatus, message string) {
	h := Health{Status: status, Message: message, CheckedAt: s.now()}
	if !s.health.isNews(p.ID, p.Health, h) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.store.SetHealth(ctx, p.ID, h); err != nil {
		s.log.WarnContext(ctx, "health of a provider not stored", "provider_id", p.ID, "error", err)
	}
	if status == HealthHealthy && (p.Credentials.State == credentials.Missing || p.Credentials.State == credentials.Unknown) {
		s.noteState(ctx, p, credentials.Ready)
	}
}

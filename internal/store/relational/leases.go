package relational

import (
	"context"
	"time"
)

// Lease gives the named lease to holder for ttl, if nobody else holds it.
func (s *Store) Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error) {
	n, err := s.db.Exec(ctx, `INSERT INTO leases (name, holder, held_until) VALUES ($1, $2, `+s.dialect.FromNow("$3")+`)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
		WHERE leases.holder = excluded.holder OR leases.held_until <= `+s.dialect.Now,
		name, holder, ttl.Microseconds())
	return n > 0, err
}

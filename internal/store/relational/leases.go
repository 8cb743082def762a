package relational

import (
	"context"
	"time"
)

// Lease gives the named lease to holder until now+ttl, if nobody else holds it at
// now.
func (s *Store) Lease(ctx context.Context, name, holder string, now time.Time, ttl time.Duration) (bool, error) {
	n, err := s.db.Exec(ctx, `INSERT INTO leases (name, holder, held_until) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
		WHERE leases.holder = excluded.holder OR leases.held_until <= $4`,
		name, holder, at(now.Add(ttl)), at(now))
	return n > 0, err
}

package relational

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

func (s *Store) selectRefresh() string {
	return "SELECT version, held_until IS NOT NULL, COALESCE(held_until <= " + s.dialect.Now + ", false), ended, outcome" +
		" FROM connection_refreshes WHERE connection_id = $1"
}

func scanRefresh(scan Scan) (r broker.RefreshState, err error) {
	var held, lapsed bool
	err = scan(&r.Version, &held, &lapsed, &r.Ended, text(&r.Outcome))
	r.Held, r.Lapsed = held && !lapsed, lapsed
	return r, err
}

// RefreshState returns what is known of the refreshes of a connection.
func (s *Store) RefreshState(ctx context.Context, id uuid.UUID) (broker.RefreshState, error) {
	return readRefresh(ctx, s.db, s.selectRefresh(), id)
}

func readRefresh(ctx context.Context, tx Tx, statement string, id uuid.UUID) (broker.RefreshState, error) {
	r, err := first(ctx, tx, statement, []any{id}, scanRefresh)
	if errors.Is(err, broker.ErrNoRow) {
		return broker.RefreshState{}, nil
	}
	return r, err
}

// ClaimRefresh gives the lease on a connection's refresh. The lock on the connection
// keeps whatever else claims, refreshes or revokes it away until the lease is stored.
func (s *Store) ClaimRefresh(
	ctx context.Context, id uuid.UUID, seen broker.RefreshSeen, ttl time.Duration,
) (lease broker.RefreshLease, err error) {
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		c, err := s.lockConnection(ctx, tx, id)
		switch {
		case errors.Is(err, broker.ErrNoRow), err == nil && c.Status != broker.StatusActive:
			return broker.ErrStale
		case err != nil:
			return err
		}
		view, err := readTokenView(ctx, tx, id)
		if err != nil {
			return err
		}
		if view.Token.Sealed != seen.Sealed {
			return broker.ErrStale
		}
		now, err := readRefresh(ctx, tx, s.selectRefresh(), id)
		if err != nil {
			return err
		}
		lease = broker.RefreshLease{ConnectionID: id, Version: now.Version}
		switch {
		case now.Ended > seen.Ended:
			lease.Version = now.Ended
			return broker.ErrBusy
		case now.Held, now.Lapsed && now.Version != seen.Lapsed:
			return broker.ErrBusy
		}
		lease.Version++
		// Its holder may have kept it since it was read, without the lock.
		n, err := tx.Exec(ctx, `INSERT INTO connection_refreshes (connection_id, version, held_until) VALUES ($1, $2, `+s.dialect.FromNow("$3")+`)
			ON CONFLICT (connection_id) DO UPDATE SET version = excluded.version, held_until = excluded.held_until
			WHERE connection_refreshes.version = excluded.version - 1
				AND (connection_refreshes.held_until IS NULL OR connection_refreshes.held_until <= `+s.dialect.Now+`)`,
			id, lease.Version, ttl.Microseconds())
		return unless(n, err, broker.ErrBusy)
	})
	return lease, err
}

// KeepRefresh prolongs a lease, also one that has run out and that nobody has taken
// over.
func (s *Store) KeepRefresh(ctx context.Context, l broker.RefreshLease, ttl time.Duration) error {
	n, err := s.db.Exec(ctx, `UPDATE connection_refreshes SET held_until = `+s.dialect.FromNow("$3")+`
		WHERE connection_id = $1 AND version = $2 AND held_until IS NOT NULL`, l.ConnectionID, l.Version, ttl.Microseconds())
	return unless(n, err, broker.ErrStale)
}

// EndRefresh gives a lease back and says how it went.
func (s *Store) EndRefresh(ctx context.Context, l broker.RefreshLease, outcome string) error {
	_, err := s.db.Exec(ctx, `UPDATE connection_refreshes SET held_until = NULL, ended = version, outcome = $3
		WHERE connection_id = $1 AND version = $2`, l.ConnectionID, l.Version, textOrNull(recordable(outcome)))
	return err
}

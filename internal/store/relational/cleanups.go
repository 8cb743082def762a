package relational

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

const (
	cleanupColumns = "id, backend, secret_key, provider_id, generation, published, due_at, claimed_until, attempts, last_error, created_at"
	selectCleanups = "SELECT " + cleanupColumns + " FROM credential_cleanups"
	deleteCleanup  = "DELETE FROM credential_cleanups WHERE id = $1"
)

var insertCleanup = "INSERT INTO credential_cleanups (" + cleanupColumns + ") VALUES (" + placeholders(1, 11) + ")"

func scanCleanup(scan Scan) (broker.Cleanup, error) {
	var c broker.Cleanup
	err := scan(&c.ID, &c.Backend, &c.Key, &c.ProviderID, &c.Generation, &c.Published,
		instant(&c.After), instant(&c.ClaimedUntil), &c.Attempts, text(&c.LastError), instant(&c.CreatedAt))
	return c, err
}

func insertCleanups(ctx context.Context, tx Tx, cleanups []broker.Cleanup) error {
	for _, c := range cleanups {
		if err := storable(limited{"backend", c.Backend, 0}, limited{"credentials key", c.Key, 0}); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, insertCleanup, c.ID, c.Backend, c.Key, c.ProviderID, c.Generation, c.Published,
			at(c.After), at(c.ClaimedUntil), c.Attempts, textOrNull(recordable(c.LastError)), at(c.CreatedAt))
		if err != nil {
			return err
		}
	}
	return nil
}

// AddCleanups stores cleanups.
func (s *Store) AddCleanups(ctx context.Context, cleanups ...broker.Cleanup) error {
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error { return insertCleanups(ctx, tx, cleanups) })
}

// ClaimCleanups claims at most limit cleanups that are due at now and that nobody
// has claimed.
func (s *Store) ClaimCleanups(ctx context.Context, now, until time.Time, limit int) ([]broker.Cleanup, error) {
	var sel selection
	sel.where("due_at <= ?", at(now))
	sel.where("(claimed_until IS NULL OR claimed_until <= ?)", at(now))
	return s.claimCleanups(ctx, selectCleanups+sel.end("due_at, id", limit)+s.dialect.SkipLocked, sel.args, now, until)
}

// ClaimCleanupsAt claims every cleanup pending for one place, or none.
func (s *Store) ClaimCleanupsAt(ctx context.Context, backend, key string, now, until time.Time) ([]broker.Cleanup, error) {
	var sel selection
	sel.where("backend = ?", backend)
	sel.where("secret_key = ?", key)
	return s.claimCleanups(ctx, selectCleanups+sel.end("id", 0)+s.dialect.ForUpdate, sel.args, now, until)
}

// claimCleanups claims what a statement selects and locks. ErrBusy, claiming nothing,
// if one of the rows is claimed at now.
func (s *Store) claimCleanups(
	ctx context.Context, statement string, args []any, now, until time.Time,
) (claimed []broker.Cleanup, err error) {
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		if claimed, err = all(ctx, tx, statement, args, scanCleanup); err != nil {
			return err
		}
		for i := range claimed {
			c := &claimed[i]
			if c.ClaimedUntil.After(now) {
				return broker.ErrBusy
			}
			c.ClaimedUntil = until.UTC().Truncate(time.Microsecond)
			_, err := tx.Exec(ctx, "UPDATE credential_cleanups SET claimed_until = $2 WHERE id = $1", c.ID, at(until))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

// FinishCleanup removes the cleanup, with events.
func (s *Store) FinishCleanup(ctx context.Context, id uuid.UUID, events ...audit.Event) error {
	_, err := s.db.Change(ctx, deleteCleanup, []any{id}, events)
	return err
}

// PostponeCleanup ends the claim and notes a failed attempt.
func (s *Store) PostponeCleanup(ctx context.Context, id uuid.UUID, after time.Time, lastError string) error {
	_, err := s.db.Exec(ctx, `UPDATE credential_cleanups
		SET claimed_until = NULL, due_at = $2, last_error = $3, attempts = attempts + 1 WHERE id = $1`,
		id, at(after), textOrNull(recordable(lastError)))
	return err
}

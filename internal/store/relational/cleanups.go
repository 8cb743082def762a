package relational

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// kept is when a cleanup is due that is kept: never.
var kept = time.Date(9999, time.January, 1, 0, 0, 0, 0, time.UTC)

const (
	cleanupColumns = "id, backend, secret_key, provider_id, generation, published, attempts, last_error, created_at"
	deleteCleanup  = "DELETE FROM credential_cleanups WHERE id = $1"
)

func (s *Store) insertCleanup() string {
	return "INSERT INTO credential_cleanups (" + cleanupColumns + ", due_at, claimed_until) VALUES (" + placeholders(1, 9) +
		", COALESCE($10, " + s.dialect.FromNow("$11") + "), " + s.dialect.FromNow("$12") + ")"
}

// selectCleanups reads what scanCleanup and scanClaim scan.
func (s *Store) selectCleanups() string {
	return "SELECT " + cleanupColumns + ", due_at, COALESCE(claimed_until > " + s.dialect.Now + ", false) FROM credential_cleanups"
}

// claim is a cleanup with whether somebody has claimed it.
type claim struct {
	cleanup broker.Cleanup
	claimed bool
}

func scanClaim(scan Scan) (r claim, err error) {
	c := &r.cleanup
	var due time.Time
	err = scan(&c.ID, &c.Backend, &c.Key, &c.ProviderID, &c.Generation, &c.Published,
		&c.Attempts, text(&c.LastError), instant(&c.CreatedAt), instant(&due), &r.claimed)
	c.Kept = !due.Before(kept)
	return r, err
}

func scanCleanup(scan Scan) (broker.Cleanup, error) {
	r, err := scanClaim(scan)
	return r.cleanup, err
}

func (s *Store) insertCleanups(ctx context.Context, tx Tx, cleanups []broker.Cleanup) error {
	for _, c := range cleanups {
		if err := storable(limited{"backend", c.Backend, 0}, limited{"credentials key", c.Key, 0}); err != nil {
			return err
		}
		var due, claim any // NULL: not kept, nobody's
		if c.Kept {
			due = kept
		}
		if c.Claim != 0 {
			claim = c.Claim.Microseconds()
		}
		_, err := tx.Exec(ctx, s.insertCleanup(), c.ID, c.Backend, c.Key, c.ProviderID, c.Generation, c.Published,
			c.Attempts, textOrNull(recordable(c.LastError)), at(c.CreatedAt), due, c.Wait.Microseconds(), claim)
		if err != nil {
			return err
		}
	}
	return nil
}

// AddCleanups stores cleanups.
func (s *Store) AddCleanups(ctx context.Context, cleanups ...broker.Cleanup) error {
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error { return s.insertCleanups(ctx, tx, cleanups) })
}

// ClaimCleanups claims at most limit cleanups that are due and that nobody has claimed.
func (s *Store) ClaimCleanups(ctx context.Context, ttl time.Duration, limit int) ([]broker.Cleanup, error) {
	now := s.dialect.Now
	sel := selection{conditions: []string{"due_at <= " + now, "(claimed_until IS NULL OR claimed_until <= " + now + ")"}}
	return s.claimCleanups(ctx, s.selectCleanups()+sel.end("due_at, id", limit)+s.dialect.SkipLocked, sel.args, ttl)
}

// ClaimCleanupsAt claims every cleanup pending for one place, or none.
func (s *Store) ClaimCleanupsAt(ctx context.Context, backend, key string, ttl time.Duration) ([]broker.Cleanup, error) {
	var sel selection
	sel.where("backend = ?", backend)
	sel.where("secret_key = ?", key)
	return s.claimCleanups(ctx, s.selectCleanups()+sel.end("id", 0)+s.dialect.ForUpdate, sel.args, ttl)
}

// claimCleanups claims what a statement selects and locks. ErrBusy, claiming nothing,
// if one of the rows is claimed.
func (s *Store) claimCleanups(ctx context.Context, statement string, args []any, ttl time.Duration) (claimed []broker.Cleanup, err error) {
	update := "UPDATE credential_cleanups SET claimed_until = " + s.dialect.FromNow("$2") + " WHERE id = $1"
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		claimed = nil
		found, err := all(ctx, tx, statement, args, scanClaim)
		if err != nil {
			return err
		}
		for _, c := range found {
			if c.claimed {
				return broker.ErrBusy
			}
			if _, err := tx.Exec(ctx, update, c.cleanup.ID, ttl.Microseconds()); err != nil {
				return err
			}
			claimed = append(claimed, c.cleanup)
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
func (s *Store) PostponeCleanup(ctx context.Context, id uuid.UUID, wait time.Duration, lastError string) error {
	_, err := s.db.Exec(ctx, `UPDATE credential_cleanups
		SET claimed_until = NULL, due_at = `+s.dialect.FromNow("$2")+`, last_error = $3, attempts = attempts + 1 WHERE id = $1`,
		id, wait.Microseconds(), textOrNull(recordable(lastError)))
	return err
}

package relational

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// BeginReconsent stores a consent to a connection that is there already. A consent
// to the same connection that was begun before is replaced.
func (s *Store) BeginReconsent(ctx context.Context, c broker.Connection) error {
	err := storable(limited{"return_url", c.ReturnURL, 0})
	if err == nil {
		err = storableList("scopes", c.Scopes)
	}
	if err != nil {
		return err
	}
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		now, err := s.lockConnection(ctx, tx, c.ID)
		switch {
		case err != nil:
			return err
		case now.Status == broker.StatusRevoked:
			return broker.ErrRevoked
		case now.Status == broker.StatusPending, now.WorkspaceID != c.WorkspaceID, now.ProviderID != c.ProviderID:
			return broker.ErrNoRow
		}
		_, err = tx.Exec(ctx, `INSERT INTO reconsents (connection_id, issued_at, code_verifier, scopes, return_url, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (connection_id) DO UPDATE
			SET issued_at = excluded.issued_at, code_verifier = excluded.code_verifier, scopes = excluded.scopes,
				return_url = excluded.return_url, expires_at = excluded.expires_at, claimed_at = NULL`,
			c.ID, at(c.Reconsent), textOrNull(c.CodeVerifier), c.Scopes, c.ReturnURL, at(c.ExpiresAt))
		return err
	})
}

// Consent returns a connection as the consent sees it whose state was issued then.
func (s *Store) Consent(ctx context.Context, id uuid.UUID, issued time.Time) (broker.Connection, error) {
	c, err := first(ctx, s.db, selectConnection, []any{id}, scanConnection)
	if err != nil || c.Status == broker.StatusPending {
		return c.Connection, err
	}
	r, err := reconsentOf(ctx, s.db, c, issued)
	if errors.Is(err, broker.ErrNoRow) {
		return c.Connection, nil
	}
	return r.Connection, err
}

// reconsentOf returns c with what the new consent says in place of the first one's.
func reconsentOf(ctx context.Context, tx Tx, c consent, issued time.Time) (consent, error) {
	const statement = `SELECT issued_at, code_verifier, scopes, return_url, expires_at, claimed_at
		FROM reconsents WHERE connection_id = $1 AND issued_at = $2`
	return first(ctx, tx, statement, []any{c.ID, at(issued)}, func(scan Scan) (consent, error) {
		err := scan(instant(&c.Reconsent), text(&c.CodeVerifier), &c.Scopes, text(&c.ReturnURL), instant(&c.ExpiresAt), instant(&c.claimedAt))
		return c, err
	})
}

// claimReconsent is ClaimConsent for a connection that is not pending any more. The
// connection is locked.
func claimReconsent(ctx context.Context, tx Tx, c consent, issued, now time.Time) (broker.Connection, error) {
	r, err := reconsentOf(ctx, tx, c, issued)
	switch {
	case err != nil:
		return broker.Connection{}, err
	case c.Status == broker.StatusRevoked, !r.claimable(now):
		return broker.Connection{}, broker.ErrNoRow
	}
	_, err = tx.Exec(ctx, "UPDATE reconsents SET claimed_at = $2, code_verifier = NULL WHERE connection_id = $1", c.ID, at(now))
	return r.Connection, err
}

// releaseReconsent undoes a claim.
func (s *Store) releaseReconsent(ctx context.Context, c broker.Connection) error {
	n, err := s.db.Exec(ctx, `UPDATE reconsents SET claimed_at = NULL, code_verifier = $3
		WHERE connection_id = $1 AND issued_at = $2 AND claimed_at IS NOT NULL`, c.ID, at(c.Reconsent), textOrNull(c.CodeVerifier))
	return unless(n, err, broker.ErrNoRow)
}

// completeReconsent prepares a connection for the token of its new consent. It is
// locked.
func completeReconsent(ctx context.Context, tx Tx, c broker.Connection) error {
	n, err := tx.Exec(ctx, "DELETE FROM reconsents WHERE connection_id = $1 AND issued_at = $2", c.ID, at(c.Reconsent))
	if err := unless(n, err, broker.ErrNoRow); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "UPDATE connections SET scopes = $2, return_url = $3 WHERE id = $1", c.ID, c.Scopes, textOrNull(c.ReturnURL))
	return err
}

// FailConsent ends a consent that cannot succeed any more.
func (s *Store) FailConsent(ctx context.Context, c broker.Connection, now time.Time, events ...audit.Event) error {
	if c.Reconsent.IsZero() {
		return s.SetStatus(ctx, c.ID, broker.StatusPending, broker.StatusFailed, now, events...)
	}
	n, err := s.db.Change(ctx, "DELETE FROM reconsents WHERE connection_id = $1 AND issued_at = $2",
		[]any{c.ID, at(c.Reconsent)}, events)
	return unless(n, err, broker.ErrStale)
}

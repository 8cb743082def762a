package relational

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

const (
	connectionColumns = "id, workspace_id, provider_id, status, code_verifier, scopes, return_url, created_at, updated_at, expires_at"
	selectConnection  = "SELECT " + connectionColumns + ", claimed_at FROM connections WHERE id = $1"

	insertConnection = "INSERT INTO connections (" + connectionColumns + `)
		SELECT $1, $2, p.id, $4, $5, $6, $7, $8, $9, $10 FROM provider_profiles p WHERE p.id = $3 AND ` + visible
)

// CreateConnection inserts a pending connection.
func (s *Store) CreateConnection(ctx context.Context, c broker.Connection, events ...audit.Event) error {
	err := storable(limited{"workspace_id", c.WorkspaceID, maxWorkspace}, limited{"return_url", c.ReturnURL, 0})
	if err == nil {
		err = storableList("scopes", c.Scopes)
	}
	if err != nil {
		return err
	}
	n, err := s.db.Change(ctx, insertConnection, []any{
		c.ID, c.WorkspaceID, c.ProviderID, string(c.Status), textOrNull(c.CodeVerifier), c.Scopes,
		textOrNull(c.ReturnURL), at(c.CreatedAt), at(c.UpdatedAt), at(c.ExpiresAt),
	}, events)
	return unless(n, err, broker.ErrNoRow)
}

// Connection returns a connection.
func (s *Store) Connection(ctx context.Context, id uuid.UUID) (broker.Connection, error) {
	c, err := first(ctx, s.db, selectConnection, []any{id}, scanConnection)
	return c.Connection, err
}

// consent is a connection with when its state was used; zero: not yet.
type consent struct {
	broker.Connection
	claimedAt time.Time
}

func scanConnection(scan Scan) (c consent, err error) {
	err = scan(&c.ID, text(&c.WorkspaceID), &c.ProviderID, text(&c.Status), text(&c.CodeVerifier), &c.Scopes,
		text(&c.ReturnURL), instant(&c.CreatedAt), instant(&c.UpdatedAt), instant(&c.ExpiresAt), instant(&c.claimedAt))
	return c, err
}

// lockConnection reads a connection and locks it until the transaction ends. Whatever
// changes a connection or its token takes this lock first, so that what it has read of
// either still holds when it writes.
func (s *Store) lockConnection(ctx context.Context, tx Tx, id uuid.UUID) (consent, error) {
	return first(ctx, tx, selectConnection+s.dialect.ForUpdate, []any{id}, scanConnection)
}

// ClaimConsent marks a pending connection's state as used and erases its code
// verifier, which it returns as part of the connection.
func (s *Store) ClaimConsent(ctx context.Context, id uuid.UUID, now time.Time) (c broker.Connection, err error) {
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		found, err := s.lockConnection(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case found.Status != broker.StatusPending, !found.claimedAt.IsZero(), !found.ExpiresAt.After(now):
			return broker.ErrNoRow
		}
		c = found.Connection
		_, err = tx.Exec(ctx, "UPDATE connections SET claimed_at = $2, code_verifier = NULL WHERE id = $1", id, at(now))
		return err
	})
	if err != nil {
		return broker.Connection{}, err
	}
	return c, nil
}

// ReleaseConsent undoes a claim.
func (s *Store) ReleaseConsent(ctx context.Context, id uuid.UUID, codeVerifier string) error {
	n, err := s.db.Exec(ctx, `UPDATE connections SET claimed_at = NULL, code_verifier = $2
		WHERE id = $1 AND status = 'pending' AND claimed_at IS NOT NULL`, id, textOrNull(codeVerifier))
	return unless(n, err, broker.ErrNoRow)
}

// CompleteConnection stores the token and makes the pending connection active.
func (s *Store) CompleteConnection(
	ctx context.Context, id uuid.UUID, t broker.StoredToken, now time.Time, events ...audit.Event,
) error {
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		c, err := s.lockConnection(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case c.Status != broker.StatusPending:
			return broker.ErrNoRow
		}
		_, err = tx.Exec(ctx, `INSERT INTO tokens (id, connection_id, encrypted_data, expires_at, created_at)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (connection_id) DO UPDATE
			SET encrypted_data = excluded.encrypted_data, expires_at = excluded.expires_at, created_at = excluded.created_at`,
			uuid.New(), id, t.Sealed, at(t.ExpiresAt), at(now))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE connections SET status = 'active', code_verifier = NULL, updated_at = $2 WHERE id = $1", id, at(now))
		if err != nil {
			return err
		}
		return RecordEvents(ctx, tx, events)
	})
}

const setStatus = "UPDATE connections SET status = $3, updated_at = $4 WHERE id = $1 AND status = $2"

// SetStatus moves a connection from one status to another.
func (s *Store) SetStatus(
	ctx context.Context, id uuid.UUID, from, to broker.ConnectionStatus, now time.Time, events ...audit.Event,
) error {
	n, err := s.db.Change(ctx, setStatus, []any{id, string(from), string(to), at(now)}, events)
	return unless(n, err, broker.ErrStale)
}

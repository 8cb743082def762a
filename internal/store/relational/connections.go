package relational

import (
	"context"
	"errors"
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

// ClaimConsent marks the state of a consent as used and erases its code verifier,
// which it returns as part of the connection.
func (s *Store) ClaimConsent(ctx context.Context, id uuid.UUID, issued, now time.Time) (c broker.Connection, err error) {
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		found, err := s.lockConnection(ctx, tx, id)
		if err == nil {
			err = providerVisible(ctx, tx, found.ProviderID)
		}
		switch {
		case err != nil:
			return err
		case found.Status != broker.StatusPending:
			c, err = claimReconsent(ctx, tx, found, issued, now)
			return err
		case !found.claimable(now):
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

// claimable reports whether the state has neither been used nor expired.
func (c consent) claimable(now time.Time) bool { return c.claimedAt.IsZero() && c.ExpiresAt.After(now) }

// providerVisible returns ErrNoProvider if the provider is not visible.
func providerVisible(ctx context.Context, tx Tx, id uuid.UUID) error {
	const statement = "SELECT id FROM provider_profiles WHERE id = $1 AND " + visible
	_, err := first(ctx, tx, statement, []any{id}, func(scan Scan) (id uuid.UUID, err error) { return id, scan(&id) })
	if errors.Is(err, broker.ErrNoRow) {
		return broker.ErrNoProvider
	}
	return err
}

// ReleaseConsent undoes a claim.
func (s *Store) ReleaseConsent(ctx context.Context, c broker.Connection) error {
	if !c.Reconsent.IsZero() {
		return s.releaseReconsent(ctx, c)
	}
	n, err := s.db.Exec(ctx, `UPDATE connections SET claimed_at = NULL, code_verifier = $2
		WHERE id = $1 AND status = 'pending' AND claimed_at IS NOT NULL`, c.ID, textOrNull(c.CodeVerifier))
	return unless(n, err, broker.ErrNoRow)
}

// CompleteConnection stores the token of a consent and makes its connection active. The
// state of one that was not claimed is used up in the same step.
func (s *Store) CompleteConnection(
	ctx context.Context, c broker.Connection, t broker.StoredToken, now time.Time, events ...audit.Event,
) error {
	id := c.ID
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		found, err := s.lockConnection(ctx, tx, id)
		if err == nil {
			found, err = waiting(ctx, tx, found, c.Reconsent)
		}
		if err == nil && found.claimedAt.IsZero() {
			err = mayClaim(ctx, tx, found, now)
		}
		if err == nil && !c.Reconsent.IsZero() {
			err = completeReconsent(ctx, tx, c)
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO tokens (id, connection_id, encrypted_data, expires_at, created_at)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT (connection_id) DO UPDATE
			SET encrypted_data = excluded.encrypted_data, expires_at = excluded.expires_at, created_at = excluded.created_at`,
			uuid.New(), id, t.Sealed, at(t.ExpiresAt), at(now))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE connections SET status = 'active', code_verifier = NULL, updated_at = $2,
			health_status = 'unknown', last_health_check_at = NULL WHERE id = $1`, id, at(now))
		if err != nil {
			return err
		}
		return RecordEvents(ctx, tx, events)
	})
}

// waiting returns what of a connection waits for its token: itself while it is pending,
// or the re-consent that was issued then, if that is not zero. ErrNoRow if that has ended.
func waiting(ctx context.Context, tx Tx, c consent, reconsent time.Time) (consent, error) {
	switch {
	case reconsent.IsZero() != (c.Status == broker.StatusPending), c.Status == broker.StatusRevoked:
		return consent{}, broker.ErrNoRow
	case reconsent.IsZero():
		return c, nil
	}
	return reconsentOf(ctx, tx, c, reconsent)
}

// mayClaim returns why the state of a consent cannot be used any more.
func mayClaim(ctx context.Context, tx Tx, c consent, now time.Time) error {
	if !c.claimable(now) {
		return broker.ErrNoRow
	}
	return providerVisible(ctx, tx, c.ProviderID)
}

const setStatus = "UPDATE connections SET status = $3, updated_at = $4 WHERE id = $1 AND status = $2"

// SetStatus moves a connection from one status to another.
func (s *Store) SetStatus(
	ctx context.Context, id uuid.UUID, from, to broker.ConnectionStatus, now time.Time, events ...audit.Event,
) error {
	n, err := s.db.Change(ctx, setStatus, []any{id, string(from), string(to), at(now)}, events)
	return unless(n, err, broker.ErrStale)
}

const selectSummary = `SELECT c.id, c.workspace_id, c.provider_id, p.name, c.status, c.health_status, c.scopes, c.created_at, c.updated_at, t.expires_at
	FROM connections c JOIN provider_profiles p ON p.id = c.provider_id LEFT JOIN tokens t ON t.connection_id = c.id`

// Connections returns the connections of a workspace that are not pending, newest
// first.
func (s *Store) Connections(ctx context.Context, workspaceID string, page broker.Page) broker.Listing[broker.ConnectionSummary] {
	if storable(limited{value: workspaceID}) != nil {
		return func(func(broker.ConnectionSummary, error) bool) {} // no connection has such a workspace
	}
	sel := selection{conditions: []string{"c.status <> 'pending'"}}
	sel.where("c.workspace_id = ?", workspaceID)
	if page.After != uuid.Nil {
		sel.where("(c.created_at, c.id) < ((SELECT created_at FROM connections WHERE id = ?), ?)", page.After)
	}
	return listing(ctx, s.db, selectSummary+sel.end("c.created_at DESC, c.id DESC", page.Limit), sel.args, scanSummary)
}

func scanSummary(scan Scan) (c broker.ConnectionSummary, err error) {
	err = scan(&c.ID, text(&c.WorkspaceID), &c.ProviderID, text(&c.ProviderName), text(&c.Status), text(&c.HealthStatus),
		&c.Scopes, instant(&c.CreatedAt), instant(&c.UpdatedAt), instant(&c.TokenExpiresAt))
	if c.HealthStatus == "" {
		c.HealthStatus = broker.HealthUnknown
	}
	return c, err
}

// RevokeConnection ends a connection for good and deletes what could revive it.
func (s *Store) RevokeConnection(
	ctx context.Context, id uuid.UUID, workspaceID, reason string, now time.Time, event audit.Event,
) (r broker.RevokedConnection, err error) {
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		c, err := s.lockConnection(ctx, tx, id)
		if err == nil && workspaceID != "" && c.WorkspaceID != workspaceID {
			err = broker.ErrNoRow
		}
		if err != nil {
			return err
		}
		view, err := readTokenView(ctx, tx, id)
		if err != nil {
			return err
		}
		r = broker.RevokedConnection{Token: view.Token, ProviderID: c.ProviderID, Scopes: c.Scopes, RevokedAt: now}
		if c.Status == broker.StatusRevoked {
			if r.RevokedAt, err = revokedAt(ctx, tx, id); err != nil {
				return err
			}
			if view.Token.Sealed == "" {
				return nil // all is done, and was recorded
			}
		}
		for _, statement := range []string{
			"DELETE FROM tokens WHERE connection_id = $1", "DELETE FROM reconsents WHERE connection_id = $1",
		} {
			if _, err := tx.Exec(ctx, statement, id); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `UPDATE connections SET status = 'revoked', revoked_at = $2, updated_at = $3, code_verifier = NULL,
			revocation_reason = COALESCE($4, revocation_reason) WHERE id = $1`,
			id, at(r.RevokedAt), at(now), textOrNull(recordable(reason)))
		if err != nil {
			return err
		}
		return RecordEvents(ctx, tx, []audit.Event{event})
	})
	if err != nil {
		return broker.RevokedConnection{}, err
	}
	return r, nil
}

// revokedAt returns when a revoked connection was revoked. A program that knows only
// the status may not have said: then it is when the row was changed.
func revokedAt(ctx context.Context, tx Tx, id uuid.UUID) (time.Time, error) {
	return first(ctx, tx, "SELECT COALESCE(revoked_at, updated_at) FROM connections WHERE id = $1", []any{id},
		func(scan Scan) (t time.Time, err error) { return t, scan(instant(&t)) })
}

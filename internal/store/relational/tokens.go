package relational

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// SelectTokenView gives the columns that [ScanTokenView] reads, of the connection $1.
const SelectTokenView = `SELECT c.id, c.status, t.encrypted_data, t.expires_at, p.id AS provider_id, p.auth_type, p.params
	FROM connections c JOIN provider_profiles p ON p.id = c.provider_id LEFT JOIN tokens t ON t.connection_id = c.id
	WHERE c.id = $1`

// ScanTokenView reads a row of [SelectTokenView].
func ScanTokenView(scan Scan) (broker.TokenView, error) {
	var v broker.TokenView
	var params []byte
	err := scan(&v.ConnectionID, text(&v.Status), text(&v.Token.Sealed), instant(&v.Token.ExpiresAt),
		&v.ProviderID, text(&v.AuthType), &params)
	v.Params = broker.Params(params)
	if v.AuthType == "" {
		v.AuthType = broker.AuthOAuth2
	}
	return v, err
}

// ReadToken returns what handing out the token needs. The event is recorded if there
// is one to hand out.
func (s *Store) ReadToken(ctx context.Context, id uuid.UUID, e audit.Event) (v broker.TokenView, err error) {
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		if v, err = readTokenView(ctx, tx, id); err != nil {
			return err
		}
		if v.Status != broker.StatusActive || v.Token.Sealed == "" {
			return nil
		}
		return RecordEvents(ctx, tx, []audit.Event{e})
	})
	if err != nil {
		return broker.TokenView{}, err
	}
	return v, nil
}

// Token returns the same without recording anything.
func (s *Store) Token(ctx context.Context, id uuid.UUID) (broker.TokenView, error) {
	return readTokenView(ctx, s.db, id)
}

func readTokenView(ctx context.Context, tx Tx, id uuid.UUID) (broker.TokenView, error) {
	return first(ctx, tx, SelectTokenView, []any{id}, ScanTokenView)
}

// ReplaceToken stores t if the sealed token is still old.
func (s *Store) ReplaceToken(
	ctx context.Context, id uuid.UUID, old string, t broker.StoredToken, now time.Time, events ...audit.Event,
) error {
	return s.replacing(ctx, id, events, func(ctx context.Context, tx Tx) error {
		n, err := tx.Exec(ctx, "UPDATE tokens SET encrypted_data = $3, expires_at = $4 WHERE connection_id = $1 AND encrypted_data = $2",
			id, old, t.Sealed, at(t.ExpiresAt))
		if err := unless(n, err, broker.ErrStale); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE connections SET updated_at = $2, health_status = 'healthy', last_health_check_at = $2
			WHERE id = $1`, id, at(now))
		return err
	})
}

// Attention moves an active connection to attention if its sealed token is still old.
func (s *Store) Attention(ctx context.Context, id uuid.UUID, old string, now time.Time, events ...audit.Event) error {
	return s.replacing(ctx, id, events, func(ctx context.Context, tx Tx) error {
		n, err := tx.Exec(ctx, `UPDATE connections
			SET status = 'attention', updated_at = $3, health_status = 'unhealthy', last_health_check_at = $3
			WHERE id = $1 AND EXISTS (SELECT 1 FROM tokens WHERE connection_id = $1 AND encrypted_data = $2)`, id, old, at(now))
		return unless(n, err, broker.ErrStale)
	})
}

// replacing runs change and records events while the connection is locked, if it is
// active; else it returns ErrStale.
func (s *Store) replacing(ctx context.Context, id uuid.UUID, events []audit.Event, change func(context.Context, Tx) error) error {
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		c, err := s.lockConnection(ctx, tx, id)
		switch {
		case errors.Is(err, broker.ErrNoRow), err == nil && c.Status != broker.StatusActive:
			return broker.ErrStale
		case err != nil:
			return err
		}
		if err := change(ctx, tx); err != nil {
			return err
		}
		return RecordEvents(ctx, tx, events)
	})
}

package postgres

import (
	"context"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// readToken reads a token and records the event about it in one round trip. An event
// that is there already was recorded by a try whose answer got lost.
const readToken = "WITH found AS (" + relational.SelectTokenView + `),
	recorded AS (INSERT INTO audit_events (` + relational.EventColumns + `)
		SELECT $2::uuid, $3::uuid, $4::text, $5::jsonb, $6::inet, $7::text, $8::timestamptz
		FROM found WHERE status = 'active' AND encrypted_data <> ''
		ON CONFLICT (id) DO NOTHING)
	SELECT id, status, encrypted_data, expires_at, provider_id, auth_type, params FROM found`

// ReadToken returns what handing out the token needs, in one round trip. When it
// returns the event is durable: the statement is a transaction, committed before the
// server says that it is done.
func (s *Store) ReadToken(ctx context.Context, id uuid.UUID, e audit.Event) (v broker.TokenView, err error) {
	values, err := relational.EventValues(e)
	if err != nil {
		return v, err
	}
	args := append([]any{id}, values...)
	found := false
	err = s.db.run(ctx, func(error) bool { return true }, func(ctx context.Context) error {
		return query(ctx, s.db.pool, readToken, args, func(scan relational.Scan) (err error) {
			found = true
			v, err = relational.ScanTokenView(scan)
			return err
		})
	})
	switch {
	case err != nil:
		return broker.TokenView{}, err
	case !found:
		return v, broker.ErrNoRow
	}
	return v, nil
}

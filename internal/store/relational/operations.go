package relational

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// selectHeld reads what scanHeld scans. Whether a claim has run out is told by the
// statement that has locked the row.
func (s *Store) selectHeld() string {
	now := s.dialect.Now
	return "SELECT " + providerColumns + ", op, op_id, COALESCE(op_until > " + now + ", false), COALESCE(op_until <= " + now + ", false)" +
		" FROM provider_profiles"
}

// held is a provider's row with the operation that holds it.
type held struct {
	provider broker.Provider
	op       broker.Op // zero: none
	alive    bool      // its claim lasts
	lapsed   bool      // its claim has run out
}

func (h held) reserved() bool { return h.op.Kind == broker.OpRegister }

func scanHeld(scan Scan) (h held, err error) {
	h.provider, err = scanProvider(scan, text(&h.op.Kind), &h.op.ID, &h.alive, &h.lapsed)
	return h, err
}

// BeginOp claims a provider for op and returns it as it was just before.
func (s *Store) BeginOp(
	ctx context.Context, id uuid.UUID, op broker.Op, incomplete bool,
) (p broker.Provider, err error) {
	if op.Kind == broker.OpRegister {
		return p, fmt.Errorf("an operation %q begins with ReserveProvider", op.Kind)
	}
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		h, err := first(ctx, tx, s.selectHeld()+" WHERE id = $1"+s.dialect.ForUpdate, []any{id}, scanHeld)
		if err != nil {
			return err
		}
		hidden := h.reserved() || h.provider.Deleted()
		switch {
		case hidden && op.Kind != broker.OpRepair:
			return broker.ErrNoRow
		case h.alive:
			return broker.ErrBusy
		case h.lapsed && h.provider.Credentials.State == credentials.Incomplete &&
			op.Kind != broker.OpRepair && op.Kind != broker.OpDelete:
			return broker.ErrInterrupted
		}
		p = h.provider
		kind, state := op.Kind, p.Credentials.State
		if h.reserved() {
			kind = broker.OpRegister // it stays what it is: not visible
		}
		if incomplete {
			state = credentials.Incomplete
		}
		_, err = tx.Exec(ctx, `UPDATE provider_profiles SET op = $2, op_id = $3, op_until = `+s.dialect.FromNow("$4")+`,
			credentials_state = $5 WHERE id = $1`, id, string(kind), op.ID, op.TTL.Microseconds(), string(state))
		return err
	})
	return p, err
}

// KeepOp makes a claim last for op.TTL from now on.
func (s *Store) KeepOp(ctx context.Context, id uuid.UUID, op broker.Op) error {
	n, err := s.db.Exec(ctx, `UPDATE provider_profiles SET op_until = `+s.dialect.FromNow("$3")+`
		WHERE id = $1 AND op_id = $2`, id, op.ID, op.TTL.Microseconds())
	return unless(n, err, broker.ErrLostOp)
}

// EndOp gives the claim back and sets the credentials' state and generation.
func (s *Store) EndOp(ctx context.Context, id uuid.UUID, op broker.Op, state credentials.State, generation int64) error {
	_, err := s.db.Exec(ctx, `UPDATE provider_profiles SET op = NULL, op_id = NULL, op_until = NULL,
		credentials_state = $3, credentials_generation = $4 WHERE id = $1 AND op_id = $2 AND `+published,
		id, op.ID, string(state), generation)
	return err
}

// SetCredentialsState stores what a flow learned.
func (s *Store) SetCredentialsState(ctx context.Context, id uuid.UUID, generation int64, state credentials.State) error {
	_, err := s.db.Exec(ctx, `UPDATE provider_profiles SET credentials_state = $3
		WHERE id = $1 AND credentials_generation = $2 AND op_id IS NULL`, id, generation, string(state))
	return err
}

// ExpiredOps returns providers and reservations whose operation has run out.
func (s *Store) ExpiredOps(ctx context.Context, limit int) ([]broker.ExpiredOp, error) {
	sel := selection{conditions: []string{"op_until <= " + s.dialect.Now}}
	return all(ctx, s.db, s.selectHeld()+sel.end("op_until, id", limit), sel.args, func(scan Scan) (broker.ExpiredOp, error) {
		h, err := scanHeld(scan)
		return broker.ExpiredOp{Provider: h.provider, Op: h.op, Reserved: h.reserved()}, err
	})
}

// An orphan is a deleted provider that still has managed credentials and that no
// active connection needs.
const orphaned = `deleted_at IS NOT NULL AND secret_managed AND secret_backend IS NOT NULL AND NOT EXISTS
	(SELECT 1 FROM connections c WHERE c.provider_id = provider_profiles.id AND c.status = 'active')`

// Orphans returns the orphans of a backend.
func (s *Store) Orphans(ctx context.Context, backend string, limit int) ([]broker.Provider, error) {
	sel := selection{conditions: []string{orphaned}}
	sel.where("secret_backend = ?", backend)
	return all(ctx, s.db, selectProvider+sel.end("deleted_at, id", limit), sel.args, readProvider)
}

// DetachCredentials clears the credentials of an orphan's row and hands the pair over
// to c.
func (s *Store) DetachCredentials(ctx context.Context, id uuid.UUID, c broker.Cleanup) error {
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		n, err := tx.Exec(ctx, `UPDATE provider_profiles SET secret_backend = NULL, secret_key = NULL, secret_managed = false
			WHERE id = $1 AND `+orphaned, id)
		if err := unless(n, err, broker.ErrStale); err != nil {
			return err
		}
		return s.insertCleanups(ctx, tx, []broker.Cleanup{c})
	})
}

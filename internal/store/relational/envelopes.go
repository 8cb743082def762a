package relational

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/keyrotation"
)

// sealedColumn is a column that holds envelopes.
type sealedColumn struct {
	table, row, column string
	until              string // the column that says when a value is of no use any more; "": never
	ids                bool   // row is a uuid
	purpose            func(row string) string
}

func ofConnection(purpose func(uuid.UUID) string) func(string) string {
	return func(row string) string { return purpose(uuid.MustParse(row)) }
}

// sealedColumns are all of them: what is sealed anywhere else is lost when its key is
// dropped. The tests of both stores hold every text column against this list.
var sealedColumns = map[keyrotation.Place]sealedColumn{
	keyrotation.Tokens: {table: "tokens", row: "connection_id", column: "encrypted_data", ids: true,
		purpose: ofConnection(broker.TokenPurpose)},
	keyrotation.Credentials: {table: "sealed_secrets", row: "key", column: "sealed",
		purpose: func(key string) string { return "secret/" + key }}, // see internalbackend.Row
	keyrotation.Consents: {table: "connections", row: "id", column: "code_verifier", until: "expires_at", ids: true,
		purpose: ofConnection(broker.VerifierPurpose)},
	keyrotation.Reconsents: {table: "reconsents", row: "connection_id", column: "code_verifier", until: "expires_at", ids: true,
		purpose: ofConnection(broker.VerifierPurpose)},
}

// SealedColumns returns the columns that hold envelopes, each as table.column.
func SealedColumns() []string {
	var list []string
	for _, place := range keyrotation.Places() {
		c := sealedColumns[place]
		list = append(list, c.table+"."+c.column)
	}
	return list
}

func columnOf(place keyrotation.Place) (sealedColumn, error) {
	c, known := sealedColumns[place]
	if !known {
		return c, fmt.Errorf("no envelopes are kept in %q", place)
	}
	return c, nil
}

func (c sealedColumn) param(row string) any {
	if c.ids {
		return uuid.MustParse(row)
	}
	return row
}

// CountEnvelopes returns how many envelopes a place holds.
func (s *Store) CountEnvelopes(ctx context.Context, place keyrotation.Place) (int, error) {
	c, err := columnOf(place)
	if err != nil {
		return 0, err
	}
	statement := fmt.Sprintf("SELECT count(*) FROM %s WHERE %s <> ''", c.table, c.column)
	return first(ctx, s.db, statement, nil, func(scan Scan) (n int, err error) { return n, scan(&n) })
}

// Envelopes returns at most limit envelopes that follow the row after.
func (s *Store) Envelopes(ctx context.Context, place keyrotation.Place, after string, limit int) ([]keyrotation.Envelope, error) {
	c, err := columnOf(place)
	if err != nil {
		return nil, err
	}
	until := "NULL"
	if c.until != "" {
		until = c.until
	}
	sel := selection{conditions: []string{c.column + " <> ''"}}
	if after != "" {
		sel.where(c.row+" > ?", c.param(after))
	}
	statement := fmt.Sprintf("SELECT %s, %s, %s FROM %s", c.row, c.column, until, c.table)
	return all(ctx, s.db, statement+sel.end(c.row, limit), sel.args, func(scan Scan) (e keyrotation.Envelope, err error) {
		var id uuid.UUID
		if c.ids {
			err = scan(&id, &e.Sealed, instant(&e.Until))
			e.Row = id.String()
		} else {
			err = scan(&e.Row, &e.Sealed, instant(&e.Until))
		}
		if err == nil {
			e.Purpose = c.purpose(e.Row)
		}
		return e, err
	})
}

// ReplaceEnvelopes makes each change whose row still holds its envelope. The rows are
// locked in the order of the changes, which is everybody's: two rotations at once do not
// wait for each other in a circle.
func (s *Store) ReplaceEnvelopes(ctx context.Context, place keyrotation.Place, changes []keyrotation.Change) (made int, err error) {
	c, err := columnOf(place)
	if err != nil {
		return 0, err
	}
	statement := fmt.Sprintf("UPDATE %s SET %s = $3 WHERE %s = $1 AND %s = $2", c.table, c.column, c.row, c.column)
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		made = 0
		for _, change := range changes {
			sealed := textOrNull(change.Sealed)
			if sealed == nil && c.until == "" {
				return fmt.Errorf("an envelope of %s cannot be erased", place)
			}
			n, err := tx.Exec(ctx, statement, c.param(change.Envelope.Row), change.Envelope.Sealed, sealed)
			if err != nil {
				return err
			}
			made += int(n)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return made, nil
}

// Package relational keeps the broker's rows in a relational database: the
// statements and transactions that PostgreSQL and SQLite share. Packages postgres
// and sqlite give it a [DB] and replace what their database can do better.
//
// The SQL is what both understand. Parameters are written $1, $2, … Values are
// bool, int, int64, string, uuid.UUID, []string and time.Time, or nil for NULL; a
// JSON value is a string. Results are scanned into pointers to these types, into
// *[]byte for JSON, and through text and instant where a column may be NULL.
package relational

import (
	"context"
	"errors"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// Store implements broker.Store and internalbackend.Rows.
type Store struct {
	db      DB
	dialect Dialect
}

// New returns a Store that keeps its rows in db.
func New(db DB, d Dialect) *Store { return &Store{db: db, dialect: d} }

// DB is a database. Its errors wrap broker.ErrDuplicateName where the name of a
// provider is taken, broker.ErrUnstorable where a value does not fit its column, and
// ctx.Err() where ctx has ended.
type DB interface {
	// Exec runs a statement in a transaction of its own and returns how many rows it
	// has changed.
	Exec(ctx context.Context, statement string, args ...any) (int64, error)
	// Query runs a statement that only reads and calls each for every row.
	Query(ctx context.Context, statement string, args []any, each func(Scan) error) error
	// Change is Exec that also inserts events, unless the statement changes no row.
	Change(ctx context.Context, statement string, args []any, events []audit.Event) (int64, error)
	// Atomically runs f in one transaction that sees the newest rows, and commits it
	// if f returns nil. The context that f gets ends with the transaction's time; f may
	// run again after a transaction that was rolled back.
	Atomically(ctx context.Context, f func(context.Context, Tx) error) error
	// Close releases the connections.
	Close() error
}

// Tx is a transaction.
type Tx interface {
	Exec(ctx context.Context, statement string, args ...any) (int64, error)
	Query(ctx context.Context, statement string, args []any, each func(Scan) error) error
}

// Scan copies the columns of the current row into dest.
type Scan func(dest ...any) error

// Dialect is what differs between the databases in statements that both run.
type Dialect struct {
	// ForUpdate, at the end of a SELECT, locks its rows until the transaction ends.
	ForUpdate string
	// SkipLocked is ForUpdate that leaves out rows that somebody else has locked.
	SkipLocked string
	// AddressText is the expression that gives audit_events.ip_address as text.
	AddressText string
	// Now is the expression that gives the database's time when it began with the statement,
	// also in the middle of a transaction. An index on a column that is compared with it
	// serves.
	Now string
	// FromNow returns the expression that gives the time that many microseconds, the value
	// of a parameter, after this moment; NULL where the parameter is.
	FromNow func(param string) string
}

// Ping checks that the database answers. Whether it can be written to each database tells
// in its own way.
func (s *Store) Ping(ctx context.Context) error {
	return s.db.Query(ctx, "SELECT 1", nil, func(Scan) error { return nil })
}

// Close releases the connections.
func (s *Store) Close() error { return s.db.Close() }

// errEnough ends a query whose reader has seen enough.
var errEnough = errors.New("no further rows are wanted")

// listing gives the rows of a query while it runs.
func listing[T any](ctx context.Context, tx Tx, statement string, args []any, read func(Scan) (T, error)) broker.Listing[T] {
	return func(yield func(T, error) bool) {
		err := tx.Query(ctx, statement, args, func(scan Scan) error {
			row, err := read(scan)
			if err == nil && !yield(row, nil) {
				err = errEnough
			}
			return err
		})
		if err != nil && !errors.Is(err, errEnough) {
			var none T
			yield(none, err)
		}
	}
}

// all reads every row that a query gives.
func all[T any](ctx context.Context, tx Tx, statement string, args []any, read func(Scan) (T, error)) ([]T, error) {
	return broker.All(listing(ctx, tx, statement, args, read))
}

// first reads the row that a query gives; broker.ErrNoRow if it gives none.
func first[T any](ctx context.Context, tx Tx, statement string, args []any, read func(Scan) (T, error)) (v T, err error) {
	list, err := all(ctx, tx, statement, args, read)
	switch {
	case err != nil:
		return v, err
	case len(list) == 0:
		return v, broker.ErrNoRow
	}
	return list[0], nil
}

// unless returns otherwise if a statement that should have changed a row has changed
// none.
func unless(changed int64, err, otherwise error) error {
	if err == nil && changed == 0 {
		return otherwise
	}
	return err
}

package sqlite

import (
	"context"
	"errors"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// writeNothing is a statement that begins a transaction as a writer, needs no table, and
// changes nothing: a database without auto_vacuum has no pages to give back
// (https://www.sqlite.org/pragma.html#pragma_incremental_vacuum). BEGIN IMMEDIATE will not
// do: on a database that is read-only SQLite makes a reader's transaction of it.
const writeNothing = "PRAGMA incremental_vacuum(1)"

// Ping checks that the database answers, and that it can be written to. It waits for no
// other writer: where there is one, the database can be written to.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.Store.Ping(ctx); err != nil {
		return err
	}
	_, err := s.probe.ExecContext(ctx, writeNothing)
	var refused *sqlite.Error
	if errors.As(err, &refused) && refused.Code()&0xff == sqlite3.SQLITE_BUSY {
		return nil
	}
	return translate(ctx, err)
}

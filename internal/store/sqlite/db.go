package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// db implements relational.DB.
type db struct {
	writer *sql.DB // one connection, which begins transactions as a writer
	reader *sql.DB
}

// session is what a pool and a transaction have in common.
type session interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func exec(ctx context.Context, s session, statement string, args []any) (int64, error) {
	args, err := encode(args)
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, translate(ctx, err)
	}
	return result.RowsAffected()
}

func query(ctx context.Context, s session, statement string, args []any, each func(relational.Scan) error) error {
	args, err := encode(args)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(ctx, statement, args...)
	if err != nil {
		return translate(ctx, err)
	}
	defer func() { _ = rows.Close() }()
	scan := func(dest ...any) error { return rows.Scan(decode(dest)...) }
	for rows.Next() {
		if err := each(scan); err != nil {
			return translate(ctx, err)
		}
	}
	return translate(ctx, rows.Err())
}

// Exec implements relational.DB.
func (d *db) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	return exec(ctx, d.writer, statement, args)
}

// Query implements relational.DB.
func (d *db) Query(ctx context.Context, statement string, args []any, each func(relational.Scan) error) error {
	return query(ctx, d.reader, statement, args, each)
}

// Change implements relational.DB.
func (d *db) Change(ctx context.Context, statement string, args []any, events []audit.Event) (n int64, err error) {
	if len(events) == 0 {
		return d.Exec(ctx, statement, args...)
	}
	err = d.Atomically(ctx, func(ctx context.Context, tx relational.Tx) error {
		if n, err = tx.Exec(ctx, statement, args...); err != nil || n == 0 {
			return err
		}
		return relational.RecordEvents(ctx, tx, events)
	})
	return n, err
}

// Atomically implements relational.DB. The transaction is the only writer from its
// beginning.
func (d *db) Atomically(ctx context.Context, f func(context.Context, relational.Tx) error) error {
	t, err := d.writer.BeginTx(ctx, nil)
	if err != nil {
		return translate(ctx, err)
	}
	if err := f(ctx, tx{t}); err != nil {
		_ = t.Rollback() // what went wrong is err
		return err
	}
	return translate(ctx, t.Commit())
}

// Close implements relational.DB.
func (d *db) Close() error { return errors.Join(d.reader.Close(), d.writer.Close()) }

// tx implements relational.Tx.
type tx struct{ tx *sql.Tx }

func (t tx) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	return exec(ctx, t.tx, statement, args)
}

func (t tx) Query(ctx context.Context, statement string, args []any, each func(relational.Scan) error) error {
	return query(ctx, t.tx, statement, args, each)
}

// encode returns values as SQLite holds them: a time is a number of microseconds
// since 1970, a list is JSON.
func encode(values []any) ([]any, error) {
	encoded := make([]any, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case time.Time:
			encoded[i] = v.UnixMicro()
		case []string:
			if v == nil {
				continue
			}
			b, err := json.Marshal(v)
			if err != nil {
				return nil, err
			}
			encoded[i] = string(b)
		default:
			encoded[i] = v
		}
	}
	return encoded, nil
}

// decode makes lists readable; the rest database/sql can do.
func decode(dest []any) []any {
	decoded := make([]any, len(dest))
	for i, d := range dest {
		if into, ok := d.(*[]string); ok {
			d = list{into}
		}
		decoded[i] = d
	}
	return decoded
}

// list scans a list that may be NULL, which is nil.
type list struct{ into *[]string }

func (l list) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*l.into = nil
		return nil
	case string:
		return json.Unmarshal([]byte(v), l.into)
	}
	return fmt.Errorf("a %T where a list was expected", v)
}

// down are the primary codes of failures that may pass (https://www.sqlite.org/rescode.html):
// somebody else writes for too long, the disk is full or fails.
var down = []int{sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}

// translate returns err as relational.DB promises it.
func translate(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var e *sqlite.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("sqlite: %w: %w: %w", broker.ErrDatabaseDown, err, ctx.Err())
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("sqlite: %w: %w", err, ctx.Err())
	case !errors.As(err, &e):
		return err
	case e.Code()&0xff == sqlite3.SQLITE_READONLY:
		return fmt.Errorf("%w (%w)", broker.ErrReadOnly, err)
	case slices.Contains(down, e.Code()&0xff):
		return fmt.Errorf("sqlite: %w: %w", broker.ErrDatabaseDown, err)
	case e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE && strings.Contains(e.Error(), "provider_profiles.name"):
		return fmt.Errorf("%w (%w)", broker.ErrDuplicateName, err)
	}
	return fmt.Errorf("sqlite: %w", err)
}

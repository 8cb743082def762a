package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// db implements relational.DB.
type db struct {
	pool    *pgxpool.Pool
	timeout time.Duration
	resets  atomic.Int64 // how often the pool was emptied
	renewal pace         // of sessions that are read-only
}

// session is what a pool and a transaction have in common.
type session interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func exec(ctx context.Context, s session, statement string, args []any) (int64, error) {
	tag, err := s.Exec(ctx, statement, encode(args)...)
	return tag.RowsAffected(), err
}

func query(ctx context.Context, s session, statement string, args []any, each func(relational.Scan) error) error {
	rows, err := s.Query(ctx, statement, encode(args)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// encode returns values in the form that pgx encodes without a detour: to it a
// uuid.UUID is first of all a driver.Valuer, which gives text.
func encode(values []any) []any {
	encoded := make([]any, len(values))
	for i, v := range values {
		if id, ok := v.(uuid.UUID); ok {
			v = [16]byte(id)
		}
		encoded[i] = v
	}
	return encoded
}

// silence is after how long a call without an answer says that its connection may have
// vanished without a word, as they do behind a firewall that forgets them or with a server
// that is taken over. A shorter call says nothing.
const silence = time.Second

// run bounds a call and, where a broken connection is no reason to fail, repeats it
// once: if again says that it does no harm. After a broken connection and after a silent
// one no idle connection is used any more; if the server is merely slow that costs it new
// connections, at most once in the time that a call waits.
func (d *db) run(ctx context.Context, again func(error) bool, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	resets, began := d.resets.Load(), time.Now()
	err := call(ctx)
	silent := errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(began) >= silence
	if err == nil || !silent && (ctx.Err() != nil || !broken(err)) {
		return translate(ctx, err)
	}
	if (!isReadOnly(err) || d.renewal.take(readOnlyPace)) && d.resets.CompareAndSwap(resets, resets+1) {
		d.pool.Reset() // the other connections are most likely broken too
	}
	if !silent && again(err) {
		err = call(ctx)
	}
	return translate(ctx, err)
}

// Exec implements relational.DB.
func (d *db) Exec(ctx context.Context, statement string, args ...any) (n int64, err error) {
	err = d.run(ctx, notDone, func(ctx context.Context) error {
		n, err = exec(ctx, d.pool, statement, args)
		return err
	})
	return n, err
}

// Query implements relational.DB.
func (d *db) Query(ctx context.Context, statement string, args []any, each func(relational.Scan) error) error {
	untouched := true
	return d.run(ctx, func(error) bool { return untouched }, func(ctx context.Context) error {
		return query(ctx, d.pool, statement, args, func(scan relational.Scan) error {
			untouched = false
			return each(scan)
		})
	})
}

// Change implements relational.DB with one statement, and so with one round trip.
func (d *db) Change(ctx context.Context, statement string, args []any, events []audit.Event) (n int64, err error) {
	if len(events) == 0 {
		return d.Exec(ctx, statement, args...)
	}
	first := len(args) + 1
	for _, e := range events {
		values, err := relational.EventValues(e)
		if err != nil {
			return 0, err
		}
		args = append(args, values...)
	}
	whole := "WITH changed AS (" + statement + " RETURNING 1), recorded AS (INSERT INTO audit_events (" +
		relational.EventColumns + ") SELECT * FROM (VALUES " + eventRows(first, len(events)) +
		") AS event WHERE EXISTS (SELECT 1 FROM changed)) SELECT count(*) FROM changed"
	err = d.run(ctx, notDone, func(ctx context.Context) error {
		return query(ctx, d.pool, whole, args, func(scan relational.Scan) error { return scan(&n) })
	})
	return n, err
}

// eventRows returns n rows of typed parameters for the values of audit events.
func eventRows(first, n int) string {
	const row = "($%d::uuid, $%d::uuid, $%d::text, $%d::jsonb, $%d::inet, $%d::text, $%d::timestamptz)"
	rows := make([]string, n)
	for i := range rows {
		p := first + 7*i
		rows[i] = fmt.Sprintf(row, p, p+1, p+2, p+3, p+4, p+5, p+6)
	}
	return strings.Join(rows, ", ")
}

// Atomically implements relational.DB. Each statement sees what was committed before
// it; what a transaction relies on it locks.
func (d *db) Atomically(ctx context.Context, f func(context.Context, relational.Tx) error) error {
	begun, committing := false, false
	again := func(err error) bool {
		if committing {
			return endedByServer(err) // pgx calls a commit whose answer is lost one that was never sent
		}
		return !begun || notDone(err)
	}
	return d.run(ctx, again, func(ctx context.Context) error {
		committing = false
		t, err := d.pool.Begin(ctx)
		if err != nil {
			return err
		}
		begun = true
		defer func() { _ = t.Rollback(ctx) }() // of no effect after a commit
		if err := f(ctx, tx{t}); err != nil {
			return err
		}
		committing = true
		return t.Commit(ctx)
	})
}

// Close implements relational.DB.
func (d *db) Close() error {
	d.pool.Close()
	return nil
}

// tx implements relational.Tx.
type tx struct{ tx pgx.Tx }

func (t tx) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	return exec(ctx, t.tx, statement, args)
}

func (t tx) Query(ctx context.Context, statement string, args []any, each func(relational.Scan) error) error {
	return query(ctx, t.tx, statement, args, each)
}

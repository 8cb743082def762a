package postgres

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// readOnlyPace is the least time between two resets of the pool because its sessions are
// read-only: a database that stays so is not connected to anew for every request.
const readOnlyPace = time.Second

// Ping checks that the database answers, and that it can be written to: what it says of a
// session is true of a standby too.
func (s *Store) Ping(ctx context.Context) error {
	return s.db.run(ctx, func(error) bool { return true }, func(ctx context.Context) error {
		var readOnly bool
		err := query(ctx, s.db.pool, "SELECT current_setting('transaction_read_only')::boolean", nil,
			func(scan relational.Scan) error { return scan(&readOnly) })
		if err == nil && readOnly {
			err = broker.ErrReadOnly
		}
		return err
	})
}

// isReadOnly reports whether err means that a session cannot write. The others of the pool
// are most likely so too, and will be so for ever: of a server that has become a standby,
// or from a time when the database's default was to read only. A new session may be
// another one's, or know better.
func isReadOnly(err error) bool {
	var pg *pgconn.PgError
	return errors.Is(err, broker.ErrReadOnly) || errors.As(err, &pg) && pg.Code == readOnlyTransaction
}

// pace lets something happen once in a while. The zero pace is ready for use.
type pace struct{ last atomic.Int64 } // in nanoseconds since 1970

// take reports whether it may happen now, if the last time was so long ago.
func (p *pace) take(every time.Duration) bool {
	now, last := time.Now().UnixNano(), p.last.Load()
	return now-last >= int64(every) && p.last.CompareAndSwap(last, now)
}

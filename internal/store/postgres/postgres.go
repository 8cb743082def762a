// Package postgres keeps the broker's rows in PostgreSQL 14 or newer.
package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/keyrotation"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// Store is the broker's store in PostgreSQL. Where the connection breaks while a
// change is under way, the error does not tell whether the change was committed; in
// every other case it was not.
type Store struct {
	*relational.Store
	db        *db
	migrating *sql.DB // the same connections, as the migrations want them
}

var (
	_ broker.Store              = (*Store)(nil)
	_ internalbackend.Rows      = (*Store)(nil)
	_ keyrotation.Rows          = (*Store)(nil)
	_ internalbackend.PlainRows = (*Store)(nil)
)

// A row that is locked to be changed may be referred to all the same: the audit event
// of a token that is handed out does not wait for its refresh.
var dialect = relational.Dialect{
	ForUpdate:   " FOR NO KEY UPDATE",
	SkipLocked:  " FOR UPDATE SKIP LOCKED",
	AddressText: "host(ip_address)",
	Now:         "statement_timestamp()",
	FromNow: func(param string) string {
		return "clock_timestamp() + " + param + "::bigint * interval '1 microsecond'"
	},
}

// Open connects to the database. It does not look at the schema: see Migrator.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	config, err := cfg.pool()
	if err != nil {
		return nil, err
	}
	return open(ctx, config, cmp.Or(cfg.CallTimeout, DefaultCallTimeout))
}

func open(ctx context.Context, config *pgxpool.Config, timeout time.Duration) (*Store, error) {
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	d := &db{pool: pool, timeout: timeout}
	s := &Store{Store: relational.New(d, dialect), db: d, migrating: stdlib.OpenDBFromPool(pool)}
	if err := s.Store.Ping(ctx); err != nil { // one that is read-only too: a doctor says so
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Migrator returns the migrations of the database. It is usable until Close.
func (s *Store) Migrator() (*migrations.Migrator, error) {
	return migrations.ForPostgres(s.migrating)
}

// Close closes the connections, waiting for those in use.
func (s *Store) Close() error { return errors.Join(s.migrating.Close(), s.Store.Close()) }

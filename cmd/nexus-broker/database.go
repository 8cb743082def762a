package main

import (
	"context"
	"errors"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/keyrotation"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
)

// database is what both stores are: the broker's rows, those of the internal secret
// backend, the way to bring their schema up to date, and samples of what is sealed.
type database interface {
	broker.Store
	internalbackend.Rows
	keyrotation.Rows
	Migrator() (*migrations.Migrator, error)
	SealedSamples(ctx context.Context, n int) ([]broker.SealedSample, error)
}

// connectDatabase opens the configured database. Its schema may be anything yet.
func connectDatabase(ctx context.Context, c config.Database) (database, error) {
	if c.Driver == config.SQLite {
		return sqlite.Open(ctx, c.Path)
	}
	return postgres.Open(ctx, postgres.Config{URL: c.DSN.Reveal()})
}

// openDatabase opens the configured database with its schema up to date.
func openDatabase(ctx context.Context, c config.Database) (database, error) {
	db, err := connectDatabase(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := ready(ctx, db, c.AutoMigrate); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func ready(ctx context.Context, db database, migrate bool) error {
	m, err := db.Migrator()
	if err != nil {
		return err
	}
	if !migrate {
		return m.Check(ctx)
	}
	_, err = m.Up(ctx)
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

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

// isMissing reports whether the database is a file that is not there yet.
func isMissing(c config.Database) bool {
	_, err := os.Stat(c.Path)
	return c.Driver == config.SQLite && errors.Is(err, fs.ErrNotExist)
}

// openDatabase opens the configured database with its schema up to date.
func openDatabase(ctx context.Context, c config.Config, log *slog.Logger) (database, error) {
	made := isMissing(c.Database)
	db, err := connectDatabase(ctx, c.Database)
	if err != nil {
		return nil, err
	}
	if err := ready(ctx, db, c, log); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if made { // what a volume looks like that was not mounted
		log.InfoContext(ctx, "made a new, empty database; if there was one, look where it is", "path", c.Database.Path)
	}
	return db, nil
}

func ready(ctx context.Context, db database, c config.Config, log *slog.Logger) error {
	m, err := db.Migrator()
	if err != nil {
		return err
	}
	m = m.WithKeys(c.Keys.Encryption)
	if c.Database.AutoMigrate {
		_, err = m.Up(ctx)
	} else {
		err = m.Check(ctx)
	}
	if err == nil {
		err = m.CheckKeys(ctx)
	}
	if err != nil {
		return err
	}
	status, err := m.Status(ctx)
	if err == nil && status.Unfinished {
		log.WarnContext(ctx, unfinishedUpgrade(status)+"; "+adviseFinish)
	}
	return err
}

// requireFinished refuses a database in which what is stored must stay in its place and
// form: one whose schema is not this version's, and one that an earlier broker may still
// use, which finds credentials and tokens only where and as it has left them.
func requireFinished(ctx context.Context, db database) error {
	m, err := db.Migrator()
	if err != nil {
		return err
	}
	if err := m.Check(ctx); err != nil {
		return err
	}
	status, err := m.Status(ctx)
	if err == nil && status.Unfinished {
		err = errors.New("refused: an earlier broker may still use this database, and would not find what has been moved or sealed anew; " + adviseFinish)
	}
	return err
}

// adviseFinish is what to do about an upgrade that is not finished.
const adviseFinish = `when no earlier broker runs any more, run "nexus-broker migrate finish"`

// unfinishedUpgrade says what it means that an upgrade is not finished.
func unfinishedUpgrade(s migrations.Status) string {
	return fmt.Sprintf("the upgrade of the database is not finished: %s client credentials in plaintext there",
		counted(s.Plaintext, "provider has", "providers have"))
}

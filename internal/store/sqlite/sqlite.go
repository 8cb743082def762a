// Package sqlite keeps the broker's rows in an SQLite database: a file on a local
// disk, for brokers on one machine. One process writes at a time, any number read.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/keyrotation"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// Store is the broker's store in SQLite.
type Store struct {
	*relational.Store
	db    *db
	lock  *sql.DB // of the migrations
	probe *sql.DB // tries whether the database can be written to, and waits for nobody
}

var (
	_ broker.Store         = (*Store)(nil)
	_ internalbackend.Rows = (*Store)(nil)
	_ keyrotation.Rows     = (*Store)(nil)
)

var dialect = relational.Dialect{
	AddressText: "ip_address",
	Now:         sqliteNow,
	FromNow:     func(param string) string { return sqliteNow + " + " + param },
}

// sqliteNow has the resolution of SQLite's clock, a millisecond.
const sqliteNow = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"

// The settings of every connection (https://www.sqlite.org/pragma.html). A change is
// on the disk before it is reported as done: with WAL that takes synchronous=FULL.
// Another process that writes is waited for, in milliseconds.
var settings = []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}

// Open opens the database at path, which it creates if it is missing, with its
// folder, for this user only. It does not look at the schema: see Migrator.
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := prepare(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	writer, err := connect(path, "immediate", settings...)
	if err != nil {
		return nil, err
	}
	reader, err := connect(path, "deferred", append(settings[:len(settings):len(settings)], "query_only(1)")...)
	if err != nil {
		return nil, err
	}
	lock, err := connect(path+".lock", "", "busy_timeout(60000)")
	if err != nil {
		return nil, err
	}
	probe, err := connect(path, "", "busy_timeout(0)")
	if err != nil {
		return nil, err
	}
	probe.SetMaxOpenConns(1)
	writer.SetMaxOpenConns(1) // who writes next waits here, in order, and not by polling the file
	readers := max(4, runtime.GOMAXPROCS(0))
	reader.SetMaxOpenConns(readers)
	reader.SetMaxIdleConns(readers)
	lock.SetMaxIdleConns(0) // the file is open only while it is needed
	s := &Store{db: &db{writer: writer, reader: reader}, lock: lock, probe: probe}
	s.Store = relational.New(s.db, dialect)
	if err := s.setUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: opening %s: %w%s", path, err, adviceFor(err)), s.Close())
	}
	return s, nil
}

// adviceFor returns what to do about a database that cannot be opened, after a colon; "" if
// that is not known. With WAL a reader too needs the files beside the database, and makes
// them (https://www.sqlite.org/wal.html#read_only_databases).
func adviceFor(err error) string {
	var e *sqlite.Error
	if errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_READONLY || e.Code()&0xff == sqlite3.SQLITE_CANTOPEN) {
		return ": run this as a user who may write to the file and its folder, which SQLite does also to read"
	}
	return ""
}

// setUp sets the journal mode, which a reader cannot. Of several processes that do so at
// once on a new file SQLite lets one and refuses the others at once, whatever their
// busy_timeout: those come again, for ten seconds.
func (s *Store) setUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := s.db.writer.PingContext(ctx)
		var refused *sqlite.Error
		if !errors.As(err, &refused) || refused.Code()&0xff != sqlite3.SQLITE_BUSY {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Migrator returns the migrations of the database. It is usable until Close.
func (s *Store) Migrator() (*migrations.Migrator, error) {
	return migrations.ForSQLite(s.db.writer, s.lock)
}

// Close closes the database.
func (s *Store) Close() error { return errors.Join(s.probe.Close(), s.Store.Close(), s.lock.Close()) }

// prepare creates the database's folder and file with rights for this user only; the
// files that SQLite puts beside it get the same. It returns the absolute path.
func prepare(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{path, path + ".lock"} {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if err := f.Close(); err != nil {
			return "", err
		}
	}
	return path, nil
}

func connect(path, begin string, pragmas ...string) (*sql.DB, error) {
	query := url.Values{"_pragma": pragmas}
	if begin != "" {
		query.Set("_txlock", begin)
	}
	file := url.URL{Scheme: "file", Path: strings.ReplaceAll(path, `\`, "/"), OmitHost: true, RawQuery: query.Encode()}
	connector, err := sqlite.NewConnector(file.String())
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	return sql.OpenDB(connector), nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/secret"
)

// openDatabase connects to the database; nil if that is not possible. It makes none.
func (r *report) openDatabase(ctx context.Context, c config.Database) database {
	if c.Driver == config.SQLite {
		if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
			r.add(areaDatabase, noDatabase(c))
			return nil
		}
	}
	db, err := connectDatabase(ctx, c)
	if err != nil {
		r.add(areaDatabase, failure("connection", err, "check DATABASE_URL, the network, and that the database runs"))
		return nil
	}
	return db
}

// noDatabase reports that an SQLite database is not there, and whether it can be made.
func noDatabase(c config.Database) secret.Finding {
	f := secret.Finding{Check: "connection", Detail: fmt.Sprintf("there is no database at %s yet", c.Path)}
	f.Verdict, f.Advice = secret.Warn, "nothing: the broker creates it at its start"
	folder, missing, err := nearestFolder(c.Path)
	if missing {
		f.Detail, f.Advice = f.Detail+", nor its folder", f.Advice+", the folder too; if that is a volume, mount it first"
	}
	if err == nil {
		err = tryFolder(folder)
	}
	switch {
	case err != nil:
		f.Verdict, f.Detail = secret.Fail, f.Detail+fmt.Sprintf(", and none can be made below %s (%v)", folder, reasonOf(err))
		f.Advice = "let the user that the broker runs as write there"
	case !c.AutoMigrate:
		f.Verdict, f.Advice = secret.Fail, `run "nexus-broker migrate up"`
	}
	return f
}

// nearestFolder returns the folder of a file, or if that is missing the one above it that
// is there.
func nearestFolder(path string) (folder string, missing bool, err error) {
	path, err = filepath.Abs(path)
	for folder = filepath.Dir(path); err == nil; folder, missing = filepath.Dir(folder), true {
		if _, err = os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		err = nil
	}
	return folder, missing, err
}

// tryFolder makes a file in a folder and removes it: that takes the file system and every
// kind of right into account.
func tryFolder(folder string) error {
	f, err := os.CreateTemp(folder, ".nexus-broker-doctor-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// reasonOf returns why a file could not be used, without its path.
func reasonOf(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// database examines the database, and the keys by what it holds. It returns whether the
// broker can use it as it is.
func (r *report) database(ctx context.Context, db database, c config.Config) bool {
	r.connection(ctx, db, c.Database)
	writable := r.writable(ctx, db, c.Database)
	status, usable := r.schema(ctx, db, c.Database)
	if !usable {
		return false
	}
	r.keys(ctx, db, c, status.Unfinished)
	return writable
}

// writable reports whether the database takes writes, and notes it if not: a standby, and
// a file that is write-protected, let a broker start that can hand out nothing.
func (r *report) writable(ctx context.Context, db database, c config.Database) bool {
	if !errors.Is(db.Ping(ctx), broker.ErrReadOnly) {
		return true // whether it answers at all is said already
	}
	advice := "let DATABASE_URL lead to the primary server, and turn default_transaction_read_only off"
	if c.Driver == config.SQLite {
		advice = fmt.Sprintf("let this user write to %s, to the files beside it and to their folder", c.Path)
	}
	r.add(areaDatabase, secret.Finding{Check: "writes", Verdict: secret.Fail, Advice: advice,
		Detail: "the database is read-only: nothing can be stored, and no token handed out, since that is recorded first"})
	return false
}

func (r *report) connection(ctx context.Context, db database, c config.Database) {
	const check = "connection"
	pg, is := db.(*postgres.Store)
	if !is {
		r.ok(areaDatabase, check, "SQLite, %s", c.Path)
		return
	}
	server, err := pg.Server(ctx)
	switch {
	case err != nil:
		r.add(areaDatabase, failure(check, err, "check that the database runs"))
	case server.TLS != "":
		r.ok(areaDatabase, check, "PostgreSQL %s over %s", server.Version, server.TLS)
	case server.Local:
		r.ok(areaDatabase, check, "PostgreSQL %s on this machine, without TLS", server.Version)
	default:
		r.add(areaDatabase, secret.Finding{Check: check, Verdict: secret.Warn, Advice: "set ENFORCE_DB_SSL=true",
			Detail: fmt.Sprintf("PostgreSQL %s without TLS: what is read and written crosses the network in clear", server.Version)})
	}
}

// schema returns where it stands, and whether it is what this broker needs.
func (r *report) schema(ctx context.Context, db database, c config.Database) (status migrations.Status, usable bool) {
	const check = "schema"
	m, err := db.Migrator()
	if err != nil {
		r.add(areaDatabase, failure(check, err, "see the log of the database"))
		return status, false
	}
	status, err = m.Status(ctx)
	switch {
	case err != nil:
		r.add(areaDatabase, failure(check, err, "see the log of the database"))
		return status, false
	case len(status.Pending) == 0:
		if status.Unfinished {
			r.add(areaDatabase, secret.Finding{Check: "upgrade", Verdict: secret.Warn, Detail: unfinishedUpgrade(status), Advice: adviseFinish})
		}
		r.ok(areaDatabase, check, "%d of %d, up to date", status.Version, status.Latest)
		return status, true
	}
	finding := secret.Finding{Check: check, Detail: fmt.Sprintf("%d of %d", status.Version, status.Latest),
		Verdict: secret.Warn, Advice: "nothing: the broker migrates it at its next start"}
	if status.Existing {
		finding.Detail = "the database of an earlier broker, not upgraded yet"
		finding.Advice = `rehearse it: "nexus-broker migrate up --dry-run"; the broker upgrades it at its next start`
	}
	if !c.AutoMigrate {
		finding.Verdict, finding.Advice = secret.Fail, `run "nexus-broker migrate up"`
	}
	r.add(areaDatabase, finding)
	return status, false
}

// keys opens some of what is sealed in the database, which an earlier broker uses too if
// its upgrade is unfinished.
func (r *report) keys(ctx context.Context, db database, c config.Config, unfinished bool) {
	const check = "encryption"
	s, err := openSealed(ctx, db, c.Keys.Encryption)
	if err != nil {
		r.add(areaKeys, failure(check, err, "see the log of the database"))
		return
	}
	switch {
	case s.closed > 0:
		r.add(areaKeys, secret.Finding{Check: check, Verdict: secret.Fail,
			Detail: fmt.Sprintf("ENCRYPTION_KEY does not open %d of %s", s.closed, s.total()), Advice: adviseKey})
	case s.old > 0 && unfinished:
		r.add(areaKeys, secret.Finding{Check: check, Verdict: secret.Fail,
			Detail: fmt.Sprintf("the first key of ENCRYPTION_KEY is not the one of the earlier broker, which cannot open what is sealed under it (%d of %s)", s.old, s.total()),
			Advice: "put that key first until the upgrade is finished"})
	case s.old > 0:
		r.add(areaKeys, secret.Finding{Check: check, Verdict: secret.Warn,
			Detail: fmt.Sprintf("the first key of ENCRYPTION_KEY does not open %d of %s; a later one does", s.old, s.total()),
			Advice: `run "nexus-broker keys rotate", and keep that key in the list until "nexus-broker keys rotate --check" succeeds`})
	case s.looked == 0:
		r.ok(areaKeys, check, "nothing is sealed in the database yet")
	default:
		r.ok(areaKeys, check, "ENCRYPTION_KEY opens what is in the database (%s looked at)", counted(s.looked, "value", "values"))
	}
}

// failure reports an error that stops an examination. If its message ends with what to
// do, that is the advice.
func failure(check string, err error, advice string) secret.Finding {
	detail := err.Error()
	if i := strings.LastIndex(detail, ": "); i >= 0 && isAdvice(detail[i+2:]) {
		detail, advice = detail[:i], detail[i+2:]
	}
	return secret.Finding{Check: check, Verdict: secret.Fail, Detail: detail, Advice: advice}
}

// isAdvice tells our own messages, which end with what to do, from a library's.
func isAdvice(text string) bool {
	return strings.HasPrefix(text, "use ") || strings.HasPrefix(text, "run ") || strings.HasPrefix(text, "correct ")
}

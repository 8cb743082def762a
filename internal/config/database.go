package config

import (
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Driver names a database.
type Driver string

// The databases.
const (
	Postgres Driver = "postgres"
	SQLite   Driver = "sqlite"
)

// Database says where the broker's rows are.
type Database struct {
	Driver Driver
	// DSN of PostgreSQL: a URL or a keyword string that always names an sslmode.
	DSN secret.Value
	// Path of the SQLite file.
	Path string
	// AutoMigrate: start-up brings the schema up to date; else it refuses an old one.
	AutoMigrate bool

	enforceTLS  bool
	sslMode     string // DB_SSLMODE
	sslRootCert string
}

const wantDatabase = "give postgres://user:password@host:5432/name or sqlite:/path/to/file.db"

func databaseVariables() []variable {
	return []variable{
		{name: "DATABASE_URL", secret: true, required: true, want: wantDatabase, set: setDatabase},
		{name: "ENFORCE_DB_SSL", def: "false", set: boolean(func(c *Config) *bool { return &c.Database.enforceTLS })},
		{name: "DB_SSLMODE", def: "require", set: oneOf(func(c *Config) *string { return &c.Database.sslMode }, sslModes...)},
		{name: "DB_SSLROOTCERT", set: file(func(c *Config) *string { return &c.Database.sslRootCert })},
		{name: "AUTO_MIGRATE", def: "true", set: boolean(func(c *Config) *bool { return &c.Database.AutoMigrate })},
	}
}

// sslModes are libpq's, the stricter later.
var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

func setDatabase(c *Config, text string) *Problem {
	d := &c.Database
	if path, ok := strings.CutPrefix(text, "sqlite:"); ok {
		// sqlite:///file is how other programs write sqlite:/file.
		path = strings.TrimPrefix(path, "//")
		if path == "" || strings.HasPrefix(path, ":") {
			return invalid("names no file", "")
		}
		d.Driver, d.Path = SQLite, path
		return nil
	}
	if _, wrong := parseDSN(text); wrong != "" {
		return invalid(wrong, "")
	}
	d.Driver, d.DSN = Postgres, secret.NewValue(text)
	return nil
}

func (l *loader) checkDatabase() {
	d := &l.cfg.Database
	for _, name := range []string{"DB_SSLMODE", "DB_SSLROOTCERT"} {
		if l.isSet(name) && !d.enforceTLS {
			l.warn("%s is set but acts only with ENFORCE_DB_SSL=true", name)
		}
	}
	if d.enforceTLS && d.sslMode != "" && strictness(d.sslMode) < strictness("require") {
		l.problem("DB_SSLMODE", "does not enforce TLS but ENFORCE_DB_SSL is true", "give require, verify-ca or verify-full")
		return
	}
	switch d.Driver {
	case SQLite:
		if d.enforceTLS {
			l.warn("ENFORCE_DB_SSL is set but DATABASE_URL names an SQLite file")
		}
	case Postgres:
		l.completeDSN(d)
	}
}

// completeDSN puts TLS into the DSN. Without ENFORCE_DB_SSL a DSN keeps what it
// says, and one that says nothing means "require". With it the stricter of DSN and
// DB_SSLMODE holds.
func (l *loader) completeDSN(d *Database) {
	dsn, _ := parseDSN(d.DSN.Reveal())
	mode, given := dsn.get("sslmode")
	switch {
	case given && !slices.Contains(sslModes, mode):
		l.problem("DATABASE_URL", "has an unknown sslmode", "give "+alternatives(sslModes))
		return
	case d.enforceTLS && strictness(mode) < strictness(d.sslMode):
		dsn.set("sslmode", d.sslMode)
	case !given:
		dsn.set("sslmode", "require")
	}
	if d.enforceTLS && d.sslRootCert != "" {
		dsn.set("sslrootcert", d.sslRootCert)
	}
	text := dsn.String()
	// The error is dropped: it quotes the string.
	if _, err := pgconn.ParseConfig(text); err != nil {
		l.problem("DATABASE_URL", "is not a connection string that the PostgreSQL driver understands",
			"check host, port and parameters, and write special characters of the password as %XX")
		return
	}
	d.DSN = secret.NewValue(text)
}

func strictness(mode string) int { return slices.Index(sslModes, mode) }

// dsn is a connection string whose parameters can be read and set.
type dsn interface {
	get(parameter string) (value string, given bool)
	set(parameter, value string)
	String() string
}

func parseDSN(text string) (parsed dsn, wrong string) {
	if strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
		return parseURLDSN(text)
	}
	if scheme, _, ok := strings.Cut(text, "://"); ok && !strings.Contains(scheme, "=") {
		return nil, "has an unknown scheme"
	}
	return parseKeywordDSN(text)
}

type urlDSN struct {
	base  string
	query url.Values
}

func parseURLDSN(text string) (dsn, string) {
	if strings.Contains(text, "#") {
		// All that follows would be lost, an sslmode with it.
		return nil, "contains a #, which must be written %23"
	}
	base, raw, _ := strings.Cut(text, "?")
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, "has a query that cannot be read"
	}
	return &urlDSN{base: base, query: query}, ""
}

func (d *urlDSN) get(parameter string) (string, bool) {
	return d.query.Get(parameter), d.query.Has(parameter)
}
func (d *urlDSN) set(parameter, value string) { d.query.Set(parameter, value) }
func (d *urlDSN) String() string              { return d.base + "?" + d.query.Encode() }

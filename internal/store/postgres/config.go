package postgres

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// The defaults of Config.
const (
	DefaultMaxConns       = 20
	DefaultConnectTimeout = 5 * time.Second
	DefaultCallTimeout    = 15 * time.Second
)

// Config says how to reach the database.
type Config struct {
	// URL is a postgres:// or postgresql:// URL or a keyword/value string (PostgreSQL
	// documentation, "Connection Strings"). Without an sslmode it means
	// sslmode=require. What it sets wins over MaxConns (pool_max_conns) and
	// ConnectTimeout (connect_timeout). It may hold a password and is never part of
	// an error.
	URL string
	// MaxConns bounds the pool; zero: DefaultMaxConns.
	MaxConns int
	// ConnectTimeout bounds making a connection, in whole seconds; zero:
	// DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// CallTimeout bounds each method of the Store, besides the caller's context;
	// zero: DefaultCallTimeout.
	CallTimeout time.Duration
}

// pingTimeout is how long a connection that was idle for a second may take to show that it
// is alive before another is tried.
const pingTimeout = time.Second

// errURL quotes nothing: what looks like a host or a port in a URL that does not
// parse may be a part of the password.
var errURL = errors.New("DATABASE_URL is neither a PostgreSQL URL (postgres://user:password@host:5432/database) " +
	"nor a keyword string (host=… user=… dbname=…), or one of its settings is wrong or names a file that cannot be read; " +
	"in a URL, special characters of the password must be percent-encoded")

func (cfg Config) pool() (*pgxpool.Config, error) {
	pool, err := pgxpool.ParseConfig(cfg.source())
	if err != nil {
		return nil, errURL
	}
	pool.PingTimeout = cmp.Or(pool.PingTimeout, pingTimeout)
	pool.MaxConnLifetimeJitter = 5 * time.Minute // not all at once
	return pool, nil
}

// source returns URL after our defaults: of a setting that is given more than once
// the last counts.
func (cfg Config) source() string {
	wait := cmp.Or(cfg.ConnectTimeout, DefaultConnectTimeout)
	defaults := []string{
		"sslmode=require",
		"application_name=nexus-broker",
		"connect_timeout=" + strconv.Itoa(int((wait+time.Second-1)/time.Second)),
		"pool_max_conns=" + strconv.Itoa(cmp.Or(cfg.MaxConns, DefaultMaxConns)),
	}
	base, query, isURL := splitURL(cfg.URL)
	if !isURL {
		return strings.Join(defaults, " ") + " " + cfg.URL
	}
	if query != "" {
		defaults = append(defaults, query)
	}
	return base + "?" + strings.Join(defaults, "&")
}

// splitURL cuts a URL at its query. A "?" before the "@" belongs to the password.
func splitURL(source string) (base, query string, isURL bool) {
	scheme, rest, found := strings.Cut(source, "://")
	if !found || scheme != "postgres" && scheme != "postgresql" {
		return "", "", false
	}
	credentials := ""
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		credentials, rest = rest[:i+1], rest[i+1:]
	}
	rest, query, _ = strings.Cut(rest, "?")
	return scheme + "://" + credentials + rest, strings.Trim(query, "&"), true
}

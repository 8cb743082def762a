package e2e_test

import (
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestReadOnlyDatabase: a broker whose database has become read-only says that it cannot
// work, and doctor says why; it goes on by itself when the database takes writes again.
func TestReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{})
	t.Run("PostgreSQL", func(t *testing.T) {
		dsn := servers.Postgres(t)
		b := start(t, base().with(env{"DATABASE_URL": dsn}))
		connection := b.connect(b.registerAt(op, "flow"))
		setReadOnly(t, dsn, "on")
		b.readOnly(t, connection, "PostgreSQL")
		setReadOnly(t, dsn, "off")
		eventually(t, "the broker is ready", func() bool { return b.send("GET", "/health/ready", nil, nil).Status == 200 })
		b.token(connection).want(200)
	})
	t.Run("SQLite", func(t *testing.T) {
		w := sqliteWorld(t)
		b := start(t, w.env)
		connection := b.connect(b.registerAt(op, "flow"))
		b.stop()
		file := strings.TrimPrefix(w.env["DATABASE_URL"], "sqlite:")
		protect(t, file, 3)
		b = start(t, w.env)
		b.readOnly(t, connection, "SQLite")
		b.stop()
		protect(t, file, 2)
		start(t, w.env).token(connection).want(200)
	})
}

// readOnly checks what is said of a broker whose database is read-only.
func (p *process) readOnly(t *testing.T, connection, server string) {
	t.Helper()
	ready := p.send("GET", "/health/ready", nil, nil).want(503).object()
	require.Equal(t, "unavailable", ready["status"])
	require.Contains(t, ready["components"].(map[string]any)["database"].(map[string]any)["message"], "read-only")
	require.Contains(t, p.token(connection).want(503, "database_unavailable").text("message"), "read-only")

	c := newCanary()
	c.protect("API key", apiKey)
	found := doctor(t, c, p.env, 1)
	require.Regexp(t, "^ok: "+server, found["database connection"])
	require.Regexp(t, "^fail: the database is read-only: .*: let ", found["database writes"])
	for check := range found {
		require.NotContains(t, check, "leftover", "nothing was written")
	}
	c.check(t)
}

// setReadOnly sets whether the sessions of a database only read, and ends those that
// there are, as a failover does.
func setReadOnly(t *testing.T, dsn, value string) {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("SET default_transaction_read_only = off")
	require.NoError(t, err)
	var name string
	require.NoError(t, db.QueryRow("SELECT quote_ident(current_database())").Scan(&name))
	_, err = db.Exec("ALTER DATABASE " + name + " SET default_transaction_read_only = " + value)
	require.NoError(t, err)
	if value == "on" { // after it is off again the broker must find out by itself
		_, err = db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		require.NoError(t, err)
	}
}

// protect sets the file format write version of an SQLite database (which must not be
// open): one that is greater than 2 makes it read-only, whoever runs the test
// (https://www.sqlite.org/fileformat.html, 1.3.3). Rights do not bind root.
func protect(t *testing.T, path string, version byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	_, err = f.WriteAt([]byte{version}, 18)
	require.NoError(t, err)
}

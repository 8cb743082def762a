package servers_test

import (
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestPostgresProxy(t *testing.T) {
	direct := servers.Postgres(t)
	p := servers.NewPostgresProxy(t, direct)
	connect := func(url string) *pgx.Conn {
		c, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close(t.Context()) })
		return c
	}
	rows := func() (n int) {
		require.NoError(t, connect(direct).QueryRow(t.Context(), "SELECT count(*) FROM numbers").Scan(&n))
		return n
	}
	const insert = "INSERT INTO numbers VALUES ($1)"
	through := connect(p.URL)
	_, err := through.Exec(t.Context(), "CREATE TABLE numbers (n int)")
	require.NoError(t, err)

	var mu sync.Mutex
	var seen []string
	p.Around(func(statement string, ask func() bool) bool {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, statement)
		return ask()
	})
	for n := range 2 { // the second is not prepared any more
		_, err = through.Exec(t.Context(), insert, n)
		require.NoError(t, err)
	}
	tx, err := through.Begin(t.Context())
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.Equal(t, []string{insert, insert, "begin", "rollback"}, seen)

	p.Around(func(string, func() bool) bool { return false })
	_, err = through.Exec(t.Context(), insert, 2)
	require.Error(t, err, "it never arrives")
	p.Around(nil)
	through = connect(p.URL)
	require.Equal(t, 2, rows())

	p.Around(func(_ string, ask func() bool) bool { ask(); return false })
	_, err = through.Exec(t.Context(), insert, 2)
	require.Error(t, err, "the answer is lost")
	require.Equal(t, 3, rows())

	p.Around(nil)
	p.Down()
	_, err = pgx.Connect(t.Context(), p.URL)
	require.Error(t, err)
	p.Up()
	connect(p.URL)
}

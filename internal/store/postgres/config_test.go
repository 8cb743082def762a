package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConnectionStrings(t *testing.T) {
	for name, c := range map[string]struct {
		url      string
		password string
		tls      bool
		conns    int32
	}{
		"URL":                     {"postgres://u:p@db.example/nexus", "p", true, DefaultMaxConns},
		"URL, other scheme":       {"postgresql://u:p@db.example/nexus", "p", true, DefaultMaxConns},
		"URL, explicit mode":      {"postgres://u:p@db.example/nexus?sslmode=disable", "p", false, DefaultMaxConns},
		"URL with settings":       {"postgres://u:p@db.example/nexus?pool_max_conns=3&sslmode=disable", "p", false, 3},
		"URL, ? in the password":  {"postgres://u:p?q@db.example/nexus", "p?q", true, DefaultMaxConns},
		"URL, two hosts":          {"postgres://u:p@db.example:5432,db.example:5433/nexus?sslmode=disable", "p", false, DefaultMaxConns},
		"URL, empty query":        {"postgres://u:p@db.example/nexus?", "p", true, DefaultMaxConns},
		"keywords":                {"host=db.example user=u password=p dbname=nexus", "p", true, DefaultMaxConns},
		"keywords, explicit mode": {"host=db.example user=u password='p q' dbname=nexus sslmode=disable pool_max_conns=4", "p q", false, 4},
	} {
		pool, err := Config{URL: c.url}.pool()
		require.NoError(t, err, name)
		conn := pool.ConnConfig
		require.Equal(t, "db.example", conn.Host, name)
		require.Equal(t, "u", conn.User, name)
		require.Equal(t, c.password, conn.Password, name)
		require.Equal(t, "nexus", conn.Database, name)
		require.Equal(t, c.tls, conn.TLSConfig != nil, name)
		require.Equal(t, c.conns, pool.MaxConns, name)
		require.Equal(t, DefaultConnectTimeout, conn.ConnectTimeout, name)
		for _, f := range conn.Fallbacks {
			require.Equal(t, c.tls, f.TLSConfig != nil, "%s: no way around TLS", name)
		}
		require.Equal(t, "nexus-broker", conn.RuntimeParams["application_name"], name)
	}
}

func TestSettingsOfTheProgram(t *testing.T) {
	pool, err := Config{URL: "postgres://h/db", MaxConns: 7, ConnectTimeout: 1500 * time.Millisecond}.pool()
	require.NoError(t, err)
	require.EqualValues(t, 7, pool.MaxConns)
	require.Equal(t, 2*time.Second, pool.ConnConfig.ConnectTimeout)
	pool, err = Config{URL: "postgres://h/db?connect_timeout=9&application_name=mine", ConnectTimeout: time.Second}.pool()
	require.NoError(t, err)
	require.Equal(t, 9*time.Second, pool.ConnConfig.ConnectTimeout, "the URL wins")
	require.Equal(t, "mine", pool.ConnConfig.RuntimeParams["application_name"])
}

func TestABadURLIsNotQuoted(t *testing.T) {
	for _, url := range []string{
		"postgres://u:canary/x@h/db", "postgres://u:canary@h:port/db", "host=h password='canary",
		"postgres://u:canary%zz@h/db", "canary", "postgres://u:canary@h/db?sslmode=nonsense",
	} {
		_, err := Open(t.Context(), Config{URL: url, ConnectTimeout: time.Second})
		require.ErrorIs(t, err, errURL, url)
		require.NotContains(t, err.Error(), "canary")
	}
}

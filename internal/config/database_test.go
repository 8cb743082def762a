package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

func TestTLSOfTheDatabase(t *testing.T) {
	root := filepath.Join("testdata", "ca.pem")
	for _, c := range []struct{ url, changes, want string }{
		{"postgres://h/db", "", "postgres://h/db?sslmode=require"},
		{"postgresql://h/db?sslmode=disable", "", "postgresql://h/db?sslmode=disable"},
		{"host=h dbname=db", "", "host=h dbname=db sslmode='require'"},
		{"host=h sslmode = disable", "", "host=h sslmode = disable"},
		{`host=h password='a\'b sslmode=x'`, "", `host=h password='a\'b sslmode=x' sslmode='require'`},
		{"postgres://h/db?sslmode=disable", "ENFORCE_DB_SSL=true", "postgres://h/db?sslmode=require"},
		{"postgres://h/db?sslmode=verify-full", "ENFORCE_DB_SSL=true", "postgres://h/db?sslmode=verify-full"},
		{"host=h sslmode=prefer", "ENFORCE_DB_SSL=true|DB_SSLMODE=verify-ca|DB_SSLROOTCERT=" + root,
			"host=h sslmode=prefer sslmode='verify-ca' sslrootcert='" + root + "'"},
		{"postgres://h/db?sslmode=require", "DB_SSLMODE=verify-full", "postgres://h/db?sslmode=require"},
	} {
		got := load(t, valid(), append(strings.Split(c.changes, "|"), "DATABASE_URL="+c.url)...)
		require.Equal(t, c.want, got.Database.DSN.Reveal(), c.url)
	}
	for url, path := range map[string]string{
		"sqlite:./nexus-data/nexus.db": "./nexus-data/nexus.db", "sqlite:/var/lib/n.db": "/var/lib/n.db", "sqlite:///var/lib/n.db": "/var/lib/n.db",
	} {
		got := load(t, valid(), "DATABASE_URL="+url).Database
		require.Equal(t, config.SQLite, got.Driver)
		require.Equal(t, path, got.Path)
	}
}

func TestLoadDatabase(t *testing.T) {
	c, err := config.LoadDatabase([]string{"DATABASE_URL=sqlite:x.db", "PORT=nonsense"}, config.Options{})
	require.NoError(t, err)
	require.Equal(t, "x.db", c.Database.Path)
	_, err = config.LoadDatabase(nil, config.Options{})
	var problems config.Problems
	require.ErrorAs(t, err, &problems)
	require.Len(t, problems, 1)
}

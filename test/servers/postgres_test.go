package servers_test

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func TestPostgresGivesFreshDatabases(t *testing.T) {
	a, b := servers.Postgres(t), servers.Postgres(t)
	if a == b {
		t.Fatalf("both databases are %s", a)
	}
	exec(t, a, "CREATE TABLE only_in_a ()")
	exec(t, b, "CREATE TABLE only_in_a ()")
}

func TestPostgresClusterKeepsItsDataOverARestart(t *testing.T) {
	c := servers.PostgresCluster(t, "fsync=off")
	u := c.Database(t)
	exec(t, u, "CREATE TABLE kept ()")
	c.Stop()
	if conn, err := pgx.Connect(context.Background(), u); err == nil {
		_ = conn.Close(context.Background())
		t.Fatal("the server answers after Stop")
	}
	c.Start(t)
	exec(t, u, "DROP TABLE kept")
}

func exec(t *testing.T, databaseURL, statement string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatal(err)
	}
}

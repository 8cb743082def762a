package postgres

import (
	"context"

	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// Server is the database server, and how it sees a connection of ours.
type Server struct {
	Version string
	TLS     string // its version, "" without
	Local   bool   // it does not leave the machine
}

// Server asks the server about the connection.
func (s *Store) Server(ctx context.Context) (c Server, err error) {
	err = s.db.Query(ctx, `SELECT current_setting('server_version'),
		COALESCE((SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), ''),
		COALESCE(inet_client_addr() <<= '127.0.0.0/8' OR inet_client_addr() = '::1', true)`, nil,
		func(scan relational.Scan) error { return scan(&c.Version, &c.TLS, &c.Local) })
	return c, err
}

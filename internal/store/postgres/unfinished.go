package postgres

import (
	"context"

	"github.com/nexus-broker/nexus-broker/internal/store/relational"
)

// Unfinished reports whether the existing broker may use the database too.
func (s *Store) Unfinished(ctx context.Context) (unfinished bool, err error) {
	err = s.db.Query(ctx, "SELECT EXISTS (SELECT 1 FROM existing_broker WHERE finished_at IS NULL)", nil,
		func(scan relational.Scan) error { return scan(&unfinished) })
	return unfinished, err
}

package migrations

import "context"

// UpTo applies the migrations up to a version.
func (m *Migrator) UpTo(ctx context.Context, version int64) error {
	_, err := m.upTo(ctx, version)
	return err
}

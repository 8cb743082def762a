package relational

import (
	"context"
	"errors"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
)

// SealedRow returns the row of a key; found is false if there is none.
func (s *Store) SealedRow(ctx context.Context, key string) (row internalbackend.Row, found bool, err error) {
	row, err = first(ctx, s.db, "SELECT sealed, owner, version FROM sealed_secrets WHERE key = $1", []any{key},
		func(scan Scan) (r internalbackend.Row, err error) {
			err = scan(&r.Sealed, text(&r.Owner), &r.Version)
			return r, err
		})
	if errors.Is(err, broker.ErrNoRow) {
		return row, false, nil
	}
	return row, err == nil, err
}

const insertSealed = `INSERT INTO sealed_secrets (key, sealed, owner, version, created_at, updated_at)
	VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (key) `

// InsertSealedRow inserts a row; inserted is false if the key has one.
func (s *Store) InsertSealedRow(ctx context.Context, key, sealed, owner string, version int64, now time.Time) (inserted bool, err error) {
	n, err := s.db.Exec(ctx, insertSealed+"DO NOTHING", key, sealed, textOrNull(owner), version, at(now))
	return n > 0, err
}

// UpsertSealedRow replaces a row, or inserts one of the version initial, and returns its
// version.
func (s *Store) UpsertSealedRow(ctx context.Context, key, sealed, owner string, initial int64, now time.Time) (version int64, err error) {
	err = s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		version, err = first(ctx, tx, insertSealed+`DO UPDATE SET sealed = excluded.sealed, owner = excluded.owner,
			version = sealed_secrets.version + 1, updated_at = excluded.updated_at RETURNING version`,
			[]any{key, sealed, textOrNull(owner), initial, at(now)},
			func(scan Scan) (v int64, err error) {
				err = scan(&v)
				return v, err
			})
		return err
	})
	return version, err
}

// UpdateSealedRow replaces a row of this version; updated is false if the key has none.
func (s *Store) UpdateSealedRow(ctx context.Context, key string, version int64, sealed, owner string, now time.Time) (updated bool, err error) {
	n, err := s.db.Exec(ctx, `UPDATE sealed_secrets SET sealed = $3, owner = $4, version = version + 1, updated_at = $5
		WHERE key = $1 AND version = $2`, key, version, sealed, textOrNull(owner), at(now))
	return n > 0, err
}

// DeleteSealedVersion deletes the row of a key, if there is one of this version.
func (s *Store) DeleteSealedVersion(ctx context.Context, key string, version int64) error {
	_, err := s.db.Exec(ctx, "DELETE FROM sealed_secrets WHERE key = $1 AND version = $2", key, version)
	return err
}

// DeleteSealedRow deletes the row of a key, if there is one.
func (s *Store) DeleteSealedRow(ctx context.Context, key string) error {
	_, err := s.db.Exec(ctx, "DELETE FROM sealed_secrets WHERE key = $1", key)
	return err
}

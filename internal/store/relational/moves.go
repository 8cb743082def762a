package relational

import (
	"context"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// A provider that has been deleted may still have credentials that its connections need.
const movable = published + " AND (deleted_at IS NULL OR secret_backend IS NOT NULL)"

// ProvidersByAge returns the providers that have, or may have, credentials, oldest first.
func (s *Store) ProvidersByAge(ctx context.Context, page broker.Page) ([]broker.Provider, error) {
	sel := selection{conditions: []string{movable}}
	if page.After != uuid.Nil {
		sel.where("(created_at, id) > ((SELECT created_at FROM provider_profiles WHERE id = ?), ?)", page.After)
	}
	return all(ctx, s.db, selectProvider+sel.end("created_at, id", page.Limit), sel.args, readProvider)
}

// CountProviders returns how many ProvidersByAge has in all.
func (s *Store) CountProviders(ctx context.Context) (int, error) {
	return first(ctx, s.db, "SELECT count(*) FROM provider_profiles WHERE "+movable, nil, func(scan Scan) (n int, err error) {
		return n, scan(&n)
	})
}

// KeptCleanups returns the kept cleanups of a backend in the order of their ids.
func (s *Store) KeptCleanups(ctx context.Context, backend string, page broker.Page) ([]broker.Cleanup, error) {
	var sel selection
	sel.where("backend = ?", backend)
	sel.where("due_at >= ?", kept)
	if page.After != uuid.Nil {
		sel.where("id > ?", page.After)
	}
	return all(ctx, s.db, s.selectCleanups()+sel.end("id", page.Limit), sel.args, scanCleanup)
}

// NamedBackends counts what names each secret backend.
func (s *Store) NamedBackends(ctx context.Context) ([]broker.NamedBackend, error) {
	const statement = `SELECT backend, sum(provider), sum(managed), sum(cleanup), sum(kept) FROM (
			SELECT secret_backend AS backend, 1 AS provider, CASE WHEN secret_managed THEN 1 ELSE 0 END AS managed, 0 AS cleanup, 0 AS kept
				FROM provider_profiles WHERE secret_backend <> '' AND ` + published + `
			UNION ALL
			SELECT backend, 0, 0, 1, CASE WHEN due_at >= $1 THEN 1 ELSE 0 END FROM credential_cleanups
		) AS named GROUP BY backend ORDER BY backend`
	return all(ctx, s.db, statement, []any{kept}, func(scan Scan) (n broker.NamedBackend, err error) {
		var cleanups int
		err = scan(&n.Name, &n.Providers, &n.Managed, &cleanups, &n.Kept)
		n.Due = cleanups - n.Kept
		return n, err
	})
}

// ReleaseCleanups ends the claims on cleanups.
func (s *Store) ReleaseCleanups(ctx context.Context, ids ...uuid.UUID) error {
	return s.db.Atomically(ctx, func(ctx context.Context, tx Tx) error {
		for _, id := range ids {
			if _, err := tx.Exec(ctx, "UPDATE credential_cleanups SET claimed_until = NULL WHERE id = $1", id); err != nil {
				return err
			}
		}
		return nil
	})
}

// keptBecomeDue hands what moves of a provider have left behind to the sweep.
func (s *Store) keptBecomeDue(id uuid.UUID) statement {
	return statement{
		"UPDATE credential_cleanups SET due_at = " + s.dialect.Now + " WHERE provider_id = $1 AND due_at >= $2", []any{id, kept},
	}
}

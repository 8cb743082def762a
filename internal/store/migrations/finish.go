package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// finishBatch is how many rows are sealed at a time.
const finishBatch = 500

// Finished is what finishing an upgrade has done, or would do.
type Finished struct {
	// Already: there was nothing to finish. New: and there never was, since no other broker
	// has used the database.
	Already, New bool
	Pairs        int // pairs that were sealed
	OfDeleted    int // of them, those of deleted providers that an active connection needs
	Dropped      int // pairs of deleted providers that nobody needs
	Superseded   int // pairs that lay beside a newer one in a secret backend
	Sealed       int // code verifiers of pending consents
	Erased       int // code verifiers of consents that have ended
	Tokens       int // tokens that are in the existing broker's format still
}

// Finish ends the upgrade of a database of the existing broker, in one transaction: it
// seals the pairs of credentials that lie in the providers' rows, empties both columns of
// every row, seals the code verifiers, and forbids plaintext from then on. If keep is false
// it does the same and rolls it back. Nobody uses the tables meanwhile.
//
// It waits for changes of providers that are under way. Its errors are those of Check, and
// ErrNoKey. On a database without anything to finish it does nothing.
func (m *Migrator) Finish(ctx context.Context, keep bool) (done Finished, err error) {
	if err := m.Check(ctx); err != nil {
		return done, err
	}
	s, err := m.Status(ctx)
	if err != nil {
		return done, err
	}
	if !s.Unfinished {
		return Finished{Already: true, New: !s.Upgraded}, nil
	}
	if m.keys == nil {
		return done, ErrNoKey
	}
	err = m.dialect.locked(ctx, func() error {
		return exclusively(ctx, m.db, keep, func(tx *sql.Tx) error {
			done = Finished{}
			f := finisher{m: m, tx: tx, done: &done}
			return f.finish(ctx)
		})
	})
	return done, err
}

// finisher does the work of Finish in a transaction.
type finisher struct {
	m    *Migrator
	tx   *sql.Tx
	done *Finished
}

func (f finisher) finish(ctx context.Context) error {
	var unfinished bool
	err := f.tx.QueryRowContext(ctx, unfinishedQuery).Scan(&unfinished)
	if err != nil {
		return err
	}
	if !unfinished { // another process was faster
		f.done.Already = true
		return nil
	}
	for _, step := range []func(context.Context) error{
		f.settle, f.sealPairs, f.emptyColumns, f.sealVerifiers, f.forbid,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("finishing the upgrade: %w", err)
		}
	}
	return f.tx.QueryRowContext(ctx, "SELECT count(*) FROM tokens WHERE encrypted_data NOT LIKE 'nb1.%'").Scan(&f.done.Tokens)
}

// settle waits for operations on rows with a pair, and takes over those that have run
// out: what they have written elsewhere is noted for deletion, and their row is whole.
func (f finisher) settle(ctx context.Context) error {
	var name string
	err := f.tx.QueryRowContext(ctx, `SELECT name FROM provider_profiles
		WHERE op IS NOT NULL AND op_until > clock_timestamp() AND `+plaintextPair+` LIMIT 1`).Scan(&name)
	switch {
	case err == nil:
		return fmt.Errorf("%w: a change of the provider %q is under way", errBusy, name)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	_, err = f.tx.ExecContext(ctx, `ALTER TABLE provider_profiles DISABLE TRIGGER provider_profiles_touch;
		UPDATE provider_profiles SET op = NULL, op_id = NULL, op_until = NULL WHERE op IS NOT NULL AND `+plaintextPair)
	return err
}

// pairInRow is a provider with its pair.
type pairInRow struct {
	id               uuid.UUID
	name             string
	clientID, secret string
	authType, header string
	deleted          bool
	generation       int64
}

// sealPairs moves the pairs: first those of the providers that are there, so that each
// gets its name as the key where that is possible.
func (f finisher) sealPairs(ctx context.Context) error {
	for _, which := range []string{
		"deleted_at IS NULL",
		"deleted_at IS NOT NULL AND EXISTS (SELECT 1 FROM connections c WHERE c.provider_id = provider_profiles.id AND c.status = 'active')",
	} {
		for {
			batch, err := f.pairs(ctx, which)
			if err != nil {
				return err
			}
			if len(batch) == 0 {
				break
			}
			for _, p := range batch {
				if err := f.sealPair(ctx, p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (f finisher) pairs(ctx context.Context, which string) (batch []pairInRow, err error) {
	rows, err := f.tx.QueryContext(ctx, `SELECT id, name, COALESCE(client_id, ''), COALESCE(client_secret, ''), auth_type,
		COALESCE(auth_header, ''), deleted_at IS NOT NULL, credentials_generation FROM provider_profiles
		WHERE secret_backend IS NULL AND `+plaintextPair+` AND `+which+` ORDER BY id LIMIT $1`, finishBatch)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var p pairInRow
		if err := rows.Scan(&p.id, &p.name, &p.clientID, &p.secret, &p.authType, &p.header, &p.deleted, &p.generation); err != nil {
			return nil, err
		}
		batch = append(batch, p)
	}
	return batch, rows.Err()
}

// sealPair moves one pair into the internal backend, as the broker would have written it
// there, and notes that.
func (f finisher) sealPair(ctx context.Context, p pairInRow) error {
	row := broker.Provider{ID: p.id, Profile: broker.Profile{Name: p.name, AuthType: p.authType, AuthHeader: p.header}}
	if row.Profile.AuthType == "" {
		row.Profile.AuthType = broker.AuthOAuth2
	}
	ref := broker.PairInRow(row)
	var err error
	if ref.Key, err = f.keyOf(ctx, p); err != nil {
		return err
	}
	generation := p.generation + 1
	owner := credentials.Owner{ProviderID: p.id, Generation: generation}.String()
	for _, v := range []struct{ key, value string }{{ref.ClientIDAt(), p.clientID}, {ref.ClientSecretAt(), p.secret}} {
		if v.value == "" {
			continue
		}
		_, err := f.tx.ExecContext(ctx, `INSERT INTO sealed_secrets (key, sealed, owner, version, created_at, updated_at)
			VALUES ($1, $2, $3, 1, now(), now()) ON CONFLICT (key) DO UPDATE SET sealed = excluded.sealed, owner = excluded.owner,
			version = sealed_secrets.version + 1, updated_at = excluded.updated_at`,
			v.key, f.m.keys.Seal("secret/"+v.key, []byte(v.value)), owner) // the purpose is internalbackend.Row's
		if err != nil {
			return err
		}
	}
	_, err = f.tx.ExecContext(ctx, `UPDATE provider_profiles SET secret_backend = $2, secret_key = $3, secret_managed = true,
		secret_public = $4, secret_optional = $5, credentials_state = $6, credentials_generation = $7, client_id = NULL, client_secret = NULL
		WHERE id = $1`, p.id, credentials.Internal, ref.Key, ref.Public, ref.Optional, string(credentials.Ready), generation)
	if err != nil {
		return err
	}
	f.done.Pairs++
	if p.deleted {
		f.done.OfDeleted++
	}
	event := audit.New(ctx, audit.CredentialsWritten, uuid.Nil, map[string]any{
		"backend": credentials.Internal, "key": ref.Key, "provider_id": p.id.String(), "from": "provider_profiles",
	})
	data, err := event.DataJSON()
	if err != nil {
		return err
	}
	_, err = f.tx.ExecContext(ctx, "INSERT INTO audit_events (id, event_type, event_data, created_at) VALUES ($1, $2, $3::jsonb, $4)",
		event.ID, string(event.Type), data, event.CreatedAt)
	return err
}

// keyOf returns the name, where it is a legal segment and nothing lies there, else the id's.
func (f finisher) keyOf(ctx context.Context, p pairInRow) (string, error) {
	own := "id." + p.id.String()
	if p.deleted || strings.HasPrefix(p.name, "id.") || broker.KeyFor(p.name, p.id) != p.name {
		return own, nil
	}
	var taken bool
	err := f.tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM sealed_secrets WHERE key IN ($1, $2))",
		p.name+"/"+credentials.ClientIDKey, p.name+"/"+credentials.ClientSecretKey).Scan(&taken)
	if taken {
		return own, err
	}
	return p.name, err
}

// emptyColumns empties the columns of every row: what is left there nobody needs.
func (f finisher) emptyColumns(ctx context.Context) error {
	err := f.tx.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE secret_backend IS NULL AND `+plaintextPair+`),
		count(*) FILTER (WHERE secret_backend IS NOT NULL AND `+plaintextPair+`) FROM provider_profiles`).Scan(&f.done.Dropped, &f.done.Superseded)
	if err != nil {
		return err
	}
	_, err = f.tx.ExecContext(ctx, `UPDATE provider_profiles SET client_id = NULL, client_secret = NULL
		WHERE client_id IS NOT NULL OR client_secret IS NOT NULL;
		ALTER TABLE provider_profiles ENABLE TRIGGER provider_profiles_touch`)
	return err
}

// sealVerifiers seals the code verifiers that are still needed and erases the others.
func (f finisher) sealVerifiers(ctx context.Context) error {
	result, err := f.tx.ExecContext(ctx, `UPDATE connections SET code_verifier = NULL WHERE code_verifier NOT LIKE 'nb1.%'
		AND (status IS DISTINCT FROM 'pending' OR expires_at <= now() OR code_verifier = '')`)
	if err != nil {
		return err
	}
	erased, err := result.RowsAffected()
	if err != nil {
		return err
	}
	f.done.Erased = int(erased)
	rows, err := f.tx.QueryContext(ctx, "SELECT id, code_verifier FROM connections WHERE code_verifier NOT LIKE 'nb1.%'")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	verifiers := map[uuid.UUID]string{} // of ten minutes at most
	for rows.Next() {
		var id uuid.UUID
		var verifier string
		if err := rows.Scan(&id, &verifier); err != nil {
			return err
		}
		verifiers[id] = verifier
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for id, verifier := range verifiers {
		_, err := f.tx.ExecContext(ctx, "UPDATE connections SET code_verifier = $2 WHERE id = $1",
			id, f.m.keys.Seal(broker.VerifierPurpose(id), []byte(verifier)))
		if err != nil {
			return err
		}
		f.done.Sealed++
	}
	return nil
}

// forbid makes the database a finished one, like a new one: see migration 00005.
func (f finisher) forbid(ctx context.Context) error {
	_, err := f.tx.ExecContext(ctx, `DROP TRIGGER provider_profiles_pair_in_row ON provider_profiles;
		DROP FUNCTION provider_profiles_pair_in_row();
		ALTER TABLE provider_profiles ADD CONSTRAINT provider_profiles_no_plaintext
			CHECK (COALESCE(client_id, '') = '' AND COALESCE(client_secret, '') = '');
		ALTER TABLE connections ADD CONSTRAINT connections_no_plaintext CHECK (code_verifier LIKE 'nb1.%');
		UPDATE existing_broker SET finished_at = now()`)
	return err
}

package migrations

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

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
	Sampled      int // tokens that were opened first; 0: there are none, and nothing tells whether the key is right
}

// Finish ends the upgrade of a database of the existing broker, in one transaction: it
// seals the pairs of credentials that lie in the providers' rows, empties both columns of
// every row, seals the code verifiers, notes a time where a row has none, and forbids
// plaintext from then on. If keep is false
// it does the same and rolls it back. Nobody uses the tables meanwhile.
//
// It waits for changes of providers that are under way. Some of the tokens have to open: under
// a key that is not the brokers' the credentials would be lost. Its errors are those of Check,
// ErrNoKey, ErrWrongKey and ErrKeyOrder. On a database without anything to finish it does nothing.
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
	if f.done.Sampled, err = openSample(ctx, f.tx, f.m.keys); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		f.settle, f.sealPairs, f.emptyColumns, f.sealVerifiers, f.fillTimes, f.forbid,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("finishing the upgrade: %w", err)
		}
	}
	return f.tx.QueryRowContext(ctx, "SELECT count(*) FROM tokens WHERE encrypted_data NOT LIKE 'nb1.%'").Scan(&f.done.Tokens)
}

// settle waits for operations on rows whose pair lies in them, and takes over those that
// have run out: what they have written elsewhere is noted for deletion, and their row is
// whole. Where the pair lies in a backend that is not so, and repairing it is the sweep's.
func (f finisher) settle(ctx context.Context) error {
	var name string
	err := f.tx.QueryRowContext(ctx, `SELECT name FROM provider_profiles
		WHERE op IS NOT NULL AND op_until > clock_timestamp() AND secret_backend IS NULL AND `+plaintextPair+` LIMIT 1`).Scan(&name)
	switch {
	case err == nil:
		return fmt.Errorf("%w: a change of the provider %q is under way", errBusy, name)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	_, err = f.tx.ExecContext(ctx, `ALTER TABLE provider_profiles DISABLE TRIGGER provider_profiles_touch;
		UPDATE provider_profiles SET op = NULL, op_id = NULL, op_until = NULL WHERE op IS NOT NULL AND secret_backend IS NULL AND `+plaintextPair)
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
			if err := f.sealBatch(ctx, batch); err != nil {
				return err
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

// moved is what a batch of pairs becomes, a column of each table after the other: while
// it is stored nobody can use the tables, so that must not take a round trip for each row.
type moved struct {
	keys, sealed, owners []string // of sealed_secrets

	ids, places              []string // of provider_profiles
	public, optional         []bool
	generations              []int64
	eventIDs, types, details []string // of audit_events
	at                       []time.Time
}

// sealBatch moves pairs into the internal backend, as the broker would have written them
// there, and notes that.
func (f finisher) sealBatch(ctx context.Context, batch []pairInRow) error {
	taken, err := f.takenNames(ctx, batch)
	if err != nil {
		return err
	}
	var to moved
	for _, p := range batch {
		if err := f.sealPair(ctx, p, keyOf(p, taken), &to); err != nil {
			return err
		}
	}
	return f.store(ctx, to)
}

// sealPair adds one pair to what is moved.
func (f finisher) sealPair(ctx context.Context, p pairInRow, key string, to *moved) error {
	row := broker.Provider{ID: p.id, Profile: broker.Profile{Name: p.name, AuthType: p.authType, AuthHeader: p.header}}
	if row.Profile.AuthType == "" {
		row.Profile.AuthType = broker.AuthOAuth2
	}
	ref := broker.PairInRow(row)
	ref.Key = key
	generation := p.generation + 1
	owner := credentials.Owner{ProviderID: p.id, Generation: generation}.String()
	for _, v := range []struct{ key, value string }{{ref.ClientIDAt(), p.clientID}, {ref.ClientSecretAt(), p.secret}} {
		if v.value == "" {
			continue
		}
		to.keys, to.owners = append(to.keys, v.key), append(to.owners, owner)
		to.sealed = append(to.sealed, f.m.keys.Seal("secret/"+v.key, []byte(v.value))) // the purpose is internalbackend.Row's
	}
	to.ids, to.places = append(to.ids, p.id.String()), append(to.places, key)
	to.public, to.optional = append(to.public, ref.Public), append(to.optional, ref.Optional)
	to.generations = append(to.generations, generation)
	event := audit.New(ctx, audit.CredentialsWritten, uuid.Nil, map[string]any{
		"backend": credentials.Internal, "key": key, "provider_id": p.id.String(), "from": "provider_profiles",
	})
	data, err := event.DataJSON()
	if err != nil {
		return err
	}
	to.eventIDs, to.types = append(to.eventIDs, event.ID.String()), append(to.types, string(event.Type))
	to.details, to.at = append(to.details, data), append(to.at, event.CreatedAt)
	f.done.Pairs++
	if p.deleted {
		f.done.OfDeleted++
	}
	return nil
}

func (f finisher) store(ctx context.Context, to moved) error {
	for _, s := range []struct {
		statement string
		args      []any
	}{
		{`INSERT INTO sealed_secrets (key, sealed, owner, version, created_at, updated_at)
			SELECT key, sealed, owner, 1, now(), now() FROM unnest($1::text[], $2::text[], $3::text[]) AS t (key, sealed, owner)
			ON CONFLICT (key) DO UPDATE SET sealed = excluded.sealed, owner = excluded.owner,
			version = sealed_secrets.version + 1, updated_at = excluded.updated_at`, []any{to.keys, to.sealed, to.owners}},
		{`UPDATE provider_profiles p SET secret_backend = $6, secret_key = t.key, secret_managed = true,
			secret_public = t.public, secret_optional = t.optional, credentials_state = $7, credentials_generation = t.generation,
			client_id = NULL, client_secret = NULL
			FROM unnest($1::uuid[], $2::text[], $3::boolean[], $4::boolean[], $5::bigint[]) AS t (id, key, public, optional, generation)
			WHERE p.id = t.id`,
			[]any{to.ids, to.places, to.public, to.optional, to.generations, credentials.Internal, string(credentials.Ready)}},
		{`INSERT INTO audit_events (id, event_type, event_data, created_at)
			SELECT id, type, data::jsonb, at FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[]) AS t (id, type, data, at)`,
			[]any{to.eventIDs, to.types, to.details, to.at}},
	} {
		if _, err := f.tx.ExecContext(ctx, s.statement, s.args...); err != nil {
			return err
		}
	}
	return nil
}

// takenNames returns the names of the batch at whose place something lies already.
func (f finisher) takenNames(ctx context.Context, batch []pairInRow) (map[string]bool, error) {
	names := make([]string, 0, len(batch))
	for _, p := range batch {
		names = append(names, p.name)
	}
	rows, err := f.tx.QueryContext(ctx, `SELECT DISTINCT name FROM unnest($1::text[]) AS t (name)
		JOIN sealed_secrets s ON s.key IN (t.name || '/`+credentials.ClientIDKey+`', t.name || '/`+credentials.ClientSecretKey+`')`, names)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	taken := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		taken[name] = true
	}
	return taken, rows.Err()
}

// keyOf returns the name, where it is a legal segment and nothing lies there, else the id's.
func keyOf(p pairInRow, taken map[string]bool) string {
	if p.deleted || taken[p.name] || strings.HasPrefix(p.name, "id.") || broker.KeyFor(p.name, p.id) != p.name {
		return "id." + p.id.String()
	}
	return p.name
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

// fillTimes gives a time to the rows that have none, as migration 00006 does where there is
// nothing to finish: a listing that goes by age would not come to them.
func (f finisher) fillTimes(ctx context.Context) error {
	_, err := f.tx.ExecContext(ctx, `
		UPDATE provider_profiles SET created_at = COALESCE(created_at, now()), updated_at = COALESCE(updated_at, now())
			WHERE created_at IS NULL OR updated_at IS NULL;
		UPDATE connections SET created_at = COALESCE(created_at, now()), updated_at = COALESCE(updated_at, now())
			WHERE created_at IS NULL OR updated_at IS NULL;
		UPDATE tokens SET created_at = now() WHERE created_at IS NULL;
		UPDATE audit_events SET created_at = now() WHERE created_at IS NULL;
		ALTER TABLE provider_profiles ALTER created_at SET NOT NULL, ALTER updated_at SET NOT NULL;
		ALTER TABLE connections ALTER created_at SET NOT NULL, ALTER updated_at SET NOT NULL;
		ALTER TABLE tokens ALTER created_at SET NOT NULL`)
	return err
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

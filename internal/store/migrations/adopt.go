package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/pressly/goose/v3/database"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// sampled is how many tokens are opened before a database of the existing broker is
// touched.
const sampled = 200

// Existing is what was recognised of a database of the existing broker.
type Existing struct {
	Newer       bool // it has the columns of the newer versions
	Providers   int  // not deleted
	Deleted     int  // providers that are deleted
	Plaintext   int  // providers, deleted ones included, with a client_id or client_secret
	Connections int
	Tokens      int
	Sampled     int // tokens that were opened
}

// adopt brings the database of the existing broker up to date, all in one transaction.
// Nothing that the existing broker reads changes. If keep is false everything is rolled
// back: that is the rehearsal.
func (m *Migrator) adopt(ctx context.Context, keep bool) (found Existing, err error) {
	err = exclusively(ctx, m.db, keep, func(tx *sql.Tx) error {
		if found.Newer, err = recognise(ctx, tx); err != nil {
			return err
		}
		if err := found.count(ctx, tx); err != nil {
			return err
		}
		if found.Sampled, err = openSample(ctx, tx, m.keys); err != nil {
			return err
		}
		return m.expand(ctx, tx)
	})
	return found, err
}

// count counts the rows.
func (e *Existing) count(ctx context.Context, tx *sql.Tx) error {
	return tx.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE deleted_at IS NULL), count(*) FILTER (WHERE deleted_at IS NOT NULL),
		count(*) FILTER (WHERE `+plaintextPair+`), (SELECT count(*) FROM connections), (SELECT count(*) FROM tokens) FROM provider_profiles`).
		Scan(&e.Providers, &e.Deleted, &e.Plaintext, &e.Connections, &e.Tokens)
}

// plaintextPair: empty texts count as absent.
const plaintextPair = "(client_id <> '' OR client_secret <> '')"

// openSample opens some of the tokens at random, those of active connections first, and
// returns how many. It refuses if one does not open: better no upgrade than a broker that
// cannot hand out what users have consented to. It refuses too if another key than the
// first opens one of the existing broker's: that broker could not open what ours seals.
func openSample(ctx context.Context, tx *sql.Tx, keys *seal.Keyring) (opened int, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT c.id, t.encrypted_data FROM tokens t JOIN connections c ON c.id = t.connection_id
		ORDER BY c.status <> 'active', random() LIMIT $1`, sampled)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	var closed []string
	others := 0 // under another key than the first
	for rows.Next() {
		var id uuid.UUID
		var sealed string
		if err := rows.Scan(&id, &sealed); err != nil {
			return 0, err
		}
		if keys == nil {
			return 0, ErrNoKey
		}
		if _, err := keys.Open(broker.TokenPurpose(id), sealed); err != nil {
			closed = append(closed, id.String())
		} else if _, err := keys.First().Open(broker.TokenPurpose(id), sealed); err != nil && !seal.Sealed(sealed) {
			others++
		}
		opened++
	}
	if len(closed) > 0 {
		return opened, fmt.Errorf("%w: it does not open %d of %s, among them that of connection %s",
			ErrWrongKey, len(closed), lookedAt(opened), closed[0])
	}
	if others > 0 {
		return opened, fmt.Errorf("%w: it does not open %d of %s", ErrKeyOrder, others, lookedAt(opened))
	}
	return opened, rows.Err()
}

func lookedAt(n int) string {
	if n == 1 {
		return "1 token that was looked at"
	}
	return fmt.Sprintf("%d tokens that were looked at", n)
}

// CheckKeys refuses keys that would part two brokers that use one database: while its
// upgrade is not finished, what is sealed there must open, and what will be must open for
// the existing broker. It opens a sample. Of any other database it asks nothing.
func (m *Migrator) CheckKeys(ctx context.Context) error {
	s, err := m.Status(ctx)
	if err != nil || !s.Unfinished {
		return err
	}
	tx, err := m.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	_, err = openSample(ctx, tx, m.keys)
	return err
}

// expand makes the tables what migration 00001 describes and applies the others. What is
// there stays: a column keeps its type, and a NULL may be where a new database has none.
func (m *Migrator) expand(ctx context.Context, tx *sql.Tx) error {
	triggers, err := touchTriggers(ctx, tx)
	if err != nil {
		return err
	}
	for _, name := range triggers {
		if _, err := tx.ExecContext(ctx, "DROP TRIGGER "+name+" ON provider_profiles"); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, expandTables); err != nil {
		return fmt.Errorf("adding the newer columns: %w", err)
	}
	versions, err := database.NewStore(database.DialectPostgres, versionTable)
	if err != nil {
		return err
	}
	if err := versions.CreateVersionTable(ctx, tx); err != nil {
		return err
	}
	if err := versions.Insert(ctx, tx, database.InsertRequest{Version: 0}); err != nil {
		return err
	}
	for i, step := range m.steps {
		if i > 0 { // the first is done
			text, err := files.ReadFile(step.file)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, string(text)); err != nil {
				return fmt.Errorf("migration %d (%s): %w", step.Version, step.Name, err)
			}
		}
		if err := versions.Insert(ctx, tx, database.InsertRequest{Version: step.Version}); err != nil {
			return err
		}
	}
	return nil
}

// touchTriggers returns the names, quoted, of the triggers that set updated_at before a
// provider is updated. Ours does that from now on; it may have the same name.
func touchTriggers(ctx context.Context, tx *sql.Tx) (names []string, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT quote_ident(t.tgname) FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
		WHERE t.tgrelid = 'provider_profiles'::regclass AND NOT t.tgisinternal
			AND t.tgtype & 19 = 19 AND (p.prosrc ~* 'updated_at' OR t.tgname = 'provider_profiles_touch')`) // ROW, BEFORE, UPDATE
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// expandTables gives the existing broker's tables what migration 00001 has more. The
// indexes are made unless there are others to the same effect.
var expandTables = strings.Join([]string{
	`ALTER TABLE provider_profiles
		ADD COLUMN IF NOT EXISTS last_health_check_at timestamptz,
		ADD COLUMN IF NOT EXISTS health_status varchar(50) DEFAULT 'unknown',
		ADD COLUMN IF NOT EXISTS health_message text`,
	`ALTER TABLE connections
		ADD COLUMN IF NOT EXISTS last_health_check_at timestamptz,
		ADD COLUMN IF NOT EXISTS health_status varchar(50) DEFAULT 'unknown',
		ADD COLUMN IF NOT EXISTS revoked_at timestamptz,
		ADD COLUMN IF NOT EXISTS revocation_reason text`,
	`CREATE TABLE IF NOT EXISTS provider_aliases (
		id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
		provider_id uuid NOT NULL REFERENCES provider_profiles (id),
		alias       text NOT NULL,
		alias_norm  text NOT NULL UNIQUE,
		created_at  timestamptz NOT NULL DEFAULT now())`,
	`DO $$ BEGIN
		IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = 'provider_profiles'::regclass AND i.indisunique AND i.indnkeyatts = 1 AND a.attname = 'name'
				AND pg_get_expr(i.indpred, i.indrelid) = '(deleted_at IS NULL)') THEN
			CREATE UNIQUE INDEX provider_profiles_name_active ON provider_profiles (name) WHERE deleted_at IS NULL;
		END IF;
		IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = 'tokens'::regclass AND i.indisunique AND i.indnkeyatts = 1 AND a.attname = 'connection_id'
				AND i.indpred IS NULL) THEN
			CREATE UNIQUE INDEX tokens_connection_id_key ON tokens (connection_id);
		END IF;
	END $$`,
	`CREATE OR REPLACE FUNCTION provider_profiles_touch() RETURNS trigger AS $$
		BEGIN NEW.updated_at := now(); RETURN NEW; END;
	$$ LANGUAGE plpgsql`,
	`CREATE TRIGGER provider_profiles_touch BEFORE UPDATE ON provider_profiles FOR EACH ROW EXECUTE FUNCTION provider_profiles_touch()`,
	`CREATE TABLE existing_broker (adopted_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz)`,
	`INSERT INTO existing_broker DEFAULT VALUES`,
}, ";\n")

package migrations_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
)

func ring(t *testing.T) *seal.Keyring {
	t.Helper()
	r, err := seal.NewKeyring([]byte(strings.Repeat("k", seal.KeyBytes)))
	require.NoError(t, err)
	return r
}

// existing is a database of the existing broker with these rows, brought up to date.
func existing(t *testing.T, rows string) (database, store, *migrations.Migrator) {
	t.Helper()
	d := postgresDatabase(t)
	tables, err := os.ReadFile("postgres/00001_tables_of_the_existing_broker.sql")
	require.NoError(t, err)
	d.exec(t, string(tables))
	d.exec(t, rows)
	s, m := d.opened(t)
	m = m.WithKeys(ring(t))
	_, err = m.Up(t.Context())
	require.NoError(t, err)
	return d, s, m
}

func TestANewDatabaseIsBornFinished(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		_, m := d.opened(t)
		_, err := m.Up(t.Context())
		require.NoError(t, err)
		done, err := m.Finish(t.Context(), true)
		require.NoError(t, err)
		require.Equal(t, migrations.Finished{Already: true, New: true}, done)
	})
}

func TestTheKeyIsNeeded(t *testing.T) {
	_, _, m := existing(t, `INSERT INTO provider_profiles (name, client_id) VALUES ('p', 'x')`)
	_, err := m.WithKeys(nil).Finish(t.Context(), true)
	require.ErrorIs(t, err, migrations.ErrNoKey)
	status, err := m.Status(t.Context())
	require.NoError(t, err)
	require.True(t, status.Unfinished)
	require.Equal(t, 1, status.Plaintext)
}

// TestTheKeyIsTheEarlierBrokers: under another key the credentials would be lost, and under
// a key that only our replicas have the earlier broker's would not open what is sealed.
func TestTheKeyIsTheEarlierBrokers(t *testing.T) {
	const provider, connection = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
	key, another := []byte(strings.Repeat("k", seal.KeyBytes)), []byte(strings.Repeat("x", seal.KeyBytes))
	rows := fmt.Sprintf(`INSERT INTO provider_profiles (id, name, client_id, client_secret) VALUES ('%s', 'p', 'x', 'y');
		INSERT INTO connections (id, workspace_id, provider_id, status) VALUES ('%s', 'w', '%[1]s', 'active');
		INSERT INTO tokens (connection_id, encrypted_data) VALUES ('%[2]s', '%[3]s')`,
		provider, connection, ring(t).SealAsBefore([]byte("{}")))
	d := postgresDatabase(t)
	tables, err := os.ReadFile("postgres/00001_tables_of_the_existing_broker.sql")
	require.NoError(t, err)
	d.exec(t, string(tables))
	d.exec(t, rows)
	s, m := d.opened(t)
	for _, step := range []func(*migrations.Migrator) error{
		func(m *migrations.Migrator) error { _, err := m.Up(t.Context()); return err },
		func(m *migrations.Migrator) error { _, err := m.Finish(t.Context(), true); return err },
	} {
		for want, keys := range map[error][][]byte{migrations.ErrWrongKey: {another}, migrations.ErrKeyOrder: {another, key}} {
			wrong, err := seal.NewKeyring(keys...)
			require.NoError(t, err)
			require.ErrorIs(t, step(m.WithKeys(wrong)), want)
		}
		right, err := seal.NewKeyring(key, another)
		require.NoError(t, err)
		require.NoError(t, step(m.WithKeys(right)))
	}
	p, err := s.Provider(t.Context(), uuid.MustParse(provider))
	require.NoError(t, err)
	require.Equal(t, "p", p.Credentials.Key)
}

// TestKeysOfWhatIsSealed: a pair gets its provider's name where that is possible, and what
// is taken stays as it is.
func TestKeysOfWhatIsSealed(t *testing.T) {
	const ids = "00000000-0000-4000-8000-0000000000"
	d, s, m := existing(t, `INSERT INTO provider_profiles (id, name, client_id, client_secret, auth_header, deleted_at) VALUES
		('`+ids+`01', 'google', 'a', 'b', NULL, NULL), ('`+ids+`02', 'New Provider Name', 'a', 'b', NULL, NULL),
		('`+ids+`03', 'taken', 'a', 'b', NULL, NULL), ('`+ids+`04', 'google', 'a', 'b', NULL, now()),
		('`+ids+`05', 'id.`+ids+`04', 'a', 'b', 'none', NULL)`)
	d.exec(t, `INSERT INTO connections (workspace_id, provider_id, status) VALUES ('w', '`+ids+`04', 'active')`)
	d.exec(t, `INSERT INTO sealed_secrets VALUES ('taken/client_id', 'nb1.x', NULL, 1, now(), now())`)
	before, err := s.Provider(t.Context(), uuid.MustParse(ids+"01"))
	require.NoError(t, err)
	done, err := m.Finish(t.Context(), true)
	require.NoError(t, err)
	require.Equal(t, 5, done.Pairs)
	require.Equal(t, 1, done.OfDeleted)
	for id, key := range map[string]string{"01": "google", "02": "id." + ids + "02", "03": "id." + ids + "03", "04": "id." + ids + "04", "05": "id." + ids + "05"} {
		p, err := s.Provider(t.Context(), uuid.MustParse(ids+id))
		require.NoError(t, err)
		require.Equal(t, key, p.Credentials.Key)
		require.Equal(t, credentials.Internal, p.Credentials.Backend)
		require.Equal(t, id == "05", p.Credentials.Public)
		row, found, err := s.(internalbackend.Rows).SealedRow(t.Context(), key+"/client_secret")
		require.NoError(t, err)
		require.True(t, found)
		plain, err := ring(t).Open("secret/"+key+"/client_secret", row.Sealed)
		require.NoError(t, err)
		require.Equal(t, "b", string(plain))
		if id == "01" {
			require.Equal(t, before.UpdatedAt, p.UpdatedAt, "it is no change of the profile")
			require.Greater(t, p.Credentials.Generation, before.Credentials.Generation)
		}
	}
	events, err := broker.All(s.AuditEvents(t.Context(), audit.Filter{Type: audit.CredentialsWritten}))
	require.NoError(t, err)
	require.Len(t, events, 5)
}

// TestFinishWaitsForAnOperation: a change of a provider that is under way is not cut off.
func TestFinishWaitsForAnOperation(t *testing.T) {
	_, s, m := existing(t, `INSERT INTO provider_profiles (id, name, client_id) VALUES ('00000000-0000-4000-8000-000000000001', 'p', 'x')`)
	id := uuid.MustParse("00000000-0000-4000-8000-000000000001")
	op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: time.Hour}
	p, err := s.BeginOp(t.Context(), id, op, false)
	require.NoError(t, err)
	finished := make(chan error, 1)
	go func() { _, err := m.Finish(t.Context(), true); finished <- err }()
	select {
	case err := <-finished:
		t.Fatalf("it has not waited: %v", err)
	case <-time.After(time.Second): // long enough for one that does not wait
	}
	require.NoError(t, s.EndOp(t.Context(), id, op, p.Credentials.State, p.Credentials.Generation))
	require.NoError(t, <-finished)
}

// TestFinishLeavesAnInterruptedChangeToTheSweep: where the pair lies in a secret backend,
// only its marks tell whether a change that was cut off has left it whole.
func TestFinishLeavesAnInterruptedChangeToTheSweep(t *testing.T) {
	const id = "00000000-0000-4000-8000-000000000001"
	d, s, m := existing(t, `INSERT INTO provider_profiles (id, name, client_id) VALUES ('`+id+`', 'p', 'x')`)
	d.exec(t, `UPDATE provider_profiles SET secret_backend = 'hashicorp-vault', secret_key = 'p', secret_managed = true, credentials_state = 'incomplete'`)
	op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: -time.Minute}
	_, err := s.BeginOp(t.Context(), uuid.MustParse(id), op, false)
	require.NoError(t, err)
	done, err := m.Finish(t.Context(), true)
	require.NoError(t, err)
	require.Equal(t, 1, done.Superseded)
	expired, err := s.ExpiredOps(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, expired, 1)
}

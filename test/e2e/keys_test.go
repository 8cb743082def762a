package e2e_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver that the rows are written with
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // as above

	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestAKilledRotationGoesOn: keys rotate is killed again and again among a few thousand
// tokens, some of them in the old format; run to its end afterwards, everything is under
// the new key and opens.
func TestAKilledRotationGoesOn(t *testing.T) {
	t.Parallel()
	const tokens = 3000
	oldKey, newKey := randomKey("the-old-encryption-key."), randomKey("the-new-encryption-key.")
	for name, database := range map[string]func(t *testing.T) (driver, source, url string){
		"sqlite": func(t *testing.T) (string, string, string) {
			path := filepath.Join(t.TempDir(), "nexus.db")
			return "sqlite", path + "?_pragma=busy_timeout(10000)", "sqlite:" + path
		},
		"postgres": func(t *testing.T) (string, string, string) {
			url := servers.PostgresCluster(t, "fsync=off").Database(t)
			return "pgx", url, url
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			driver, source, url := database(t)
			e := base().with(env{"DATABASE_URL": url, "ENCRYPTION_KEY": oldKey})
			command(t, e, 0, "migrate", "up")
			db, err := sql.Open(driver, source)
			require.NoError(t, err)
			t.Cleanup(func() { _ = db.Close() })
			insertTokens(t, db, driver == "sqlite", tokens, oldKey)

			e = e.with(env{"ENCRYPTION_KEY": newKey + "," + oldKey})
			printed := command(t, e, 1, "keys", "rotate", "--check")
			require.Contains(t, printed, `run "nexus-broker keys rotate"`)
			under := ringOf(t, newKey)
			count := func() (n int) {
				require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM tokens WHERE encrypted_data LIKE $1",
					"nb1."+under.CurrentID()+".%").Scan(&n))
				return n
			}
			interrupted := 0
			for _, at := range []int{1, tokens / 4, tokens / 2} {
				p := launch(t, e, "keys", "rotate")
				for deadline := time.Now().Add(time.Minute); count() < at; time.Sleep(time.Millisecond) {
					require.True(t, time.Now().Before(deadline), "it does not get to %d", at)
				}
				p.kill()
				if count() < tokens {
					interrupted++
				}
			}
			require.Positive(t, interrupted, "none was killed in the middle")
			printed = command(t, e, 0, "keys", "rotate")
			require.Contains(t, printed, fmt.Sprintf("tokens: %d of %d\n", tokens, tokens))
			command(t, e.with(env{"ENCRYPTION_KEY": newKey}), 0, "keys", "rotate", "--check")
			requireTokensOpen(t, db, tokens, under)
		})
	}
}

// command runs the broker's binary to its end and returns what it printed.
func command(t *testing.T, e env, code int, args ...string) string {
	t.Helper()
	p := launch(t, e, args...)
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		t.Fatalf("%v does not end\n%s", args, p.log)
	}
	require.Equal(t, code, p.cmd.ProcessState.ExitCode(), "%v\n%s", args, p.log)
	return p.log.String()
}

func rawKey(t *testing.T, text string) []byte {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(text)
	require.NoError(t, err)
	return key
}

func ringOf(t *testing.T, key string) *seal.Keyring {
	t.Helper()
	ring, err := seal.NewKeyring(rawKey(t, key))
	require.NoError(t, err)
	return ring
}

// insertTokens stores connections with tokens under a key, every third as the existing
// broker has sealed it.
func insertTokens(t *testing.T, db *sql.DB, sqlite bool, n int, key string) {
	t.Helper()
	var now any = time.Now()
	if sqlite {
		now = time.Now().UnixMicro()
	}
	ring := ringOf(t, key)
	block, err := aes.NewCipher(rawKey(t, key))
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	exec := func(statement string, args ...any) {
		_, err := tx.ExecContext(t.Context(), statement, args...)
		require.NoError(t, err)
	}
	provider := uuid.NewString()
	exec("INSERT INTO provider_profiles (id, name, created_at, updated_at) VALUES ($1, 'p', $2, $2)", provider, now)
	for i := range n {
		id := uuid.NewString()
		plain := []byte(plainToken(id))
		sealed := ring.Seal("token/"+id, plain)
		if i%3 == 0 {
			nonce := make([]byte, aead.NonceSize())
			_, _ = rand.Read(nonce)
			sealed = base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, plain, nil))
		}
		exec(`INSERT INTO connections (id, workspace_id, provider_id, status, created_at, updated_at)
			VALUES ($1, 'ws', $2, 'active', $3, $3)`, id, provider, now)
		exec("INSERT INTO tokens (id, connection_id, encrypted_data, created_at) VALUES ($1, $2, $3, $4)", uuid.NewString(), id, sealed, now)
	}
	require.NoError(t, tx.Commit())
}

func plainToken(connection string) string {
	return `{"access_token":"` + connection + `","padding":"` + strings.Repeat("x", 500) + `"}`
}

// requireTokensOpen opens every token with a ring.
func requireTokensOpen(t *testing.T, db *sql.DB, n int, ring *seal.Keyring) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT connection_id, encrypted_data FROM tokens")
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	found := 0
	for ; rows.Next(); found++ {
		var id, sealed string
		require.NoError(t, rows.Scan(&id, &sealed))
		plain, err := ring.Open("token/"+id, sealed)
		require.NoError(t, err)
		require.Equal(t, plainToken(id), string(plain))
	}
	require.NoError(t, rows.Err())
	require.Equal(t, n, found)
}

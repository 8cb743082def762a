//go:build !race

package broker_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// Ten thousand providers move, and what that takes of memory does not grow with them: rows
// are read in pages and results are told, not kept. The race detector makes of SQLite's
// 60,000 transactions minutes: "make test" runs this test by itself, without it.
func TestTenThousandProvidersMove(t *testing.T) {
	if os.Getenv("NEXUS_TEST_SERVERS") != "1" && os.Getenv("CI") != "true" {
		t.Skip("takes a quarter of a minute: run 'make test'")
	}
	const providers, most = 10_000, 64 << 20
	o := options{internal: true, path: filepath.Join(inMemory(t), "broker.db"), vault: memory.NewFaulty(memory.New())}
	h := newHouse(t, o)
	db, err := sql.Open("sqlite", o.path)
	require.NoError(t, err)
	defer db.Close()
	insertProviders(t, db, providers, func(key string) string { return keyring(t, "").Seal("secret/"+key, []byte("value of "+key)) })

	before := heap()
	var copied int
	var peak uint64
	move := outwards
	move.Patience = time.Minute
	move.Report = func(r broker.MoveResult) {
		require.Equal(t, broker.MoveCopied, r.Outcome, "%+v", r)
		if copied++; copied%1000 == 0 {
			peak = max(peak, heap())
		}
	}
	began := time.Now()
	require.NoError(t, h.Migrate(t.Context(), move))
	t.Logf("%d providers in %s, at most %d KiB of heap more", copied, time.Since(began), (max(peak, before)-before)>>10)
	require.Equal(t, providers, copied)
	require.Less(t, max(peak, before)-before, uint64(most))
	require.Equal(t, "value of p-9999/client_secret", h.inVault("p-9999/client_secret"))
	left, err := h.CountLeft(t.Context(), credentials.Internal)
	require.NoError(t, err)
	require.Equal(t, providers, left)
}

// inMemory returns a folder whose commits wait for no disk, where there is one.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "nexus-broker-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func insertProviders(t *testing.T, db *sql.DB, n int, seal func(key string) string) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	exec := func(statement string, args ...any) {
		_, err := tx.ExecContext(t.Context(), statement, args...)
		require.NoError(t, err)
	}
	now := time.Now().UnixMicro()
	for i := range n {
		id, name := uuid.NewString(), fmt.Sprintf("p-%d", i)
		exec(`INSERT INTO provider_profiles (id, name, created_at, updated_at, secret_backend, secret_key, secret_managed, credentials_state, credentials_generation)
			VALUES ($1, $2, $3, $3, 'internal', $2, 1, 'ready', 1)`, id, name, now+int64(i))
		for _, field := range []string{"/client_id", "/client_secret"} {
			exec("INSERT INTO sealed_secrets (key, sealed, owner, version, created_at, updated_at) VALUES ($1, $2, $3, 1, $4, $4)",
				name+field, seal(name+field), "nexus-broker/"+id+"/1", now)
		}
	}
	require.NoError(t, tx.Commit())
}

package sqlite_test

import (
	"database/sql"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
)

// A file that cannot be written to opens, and tokens cannot be handed out from it.
func TestAFileThatIsReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	s := open(t, path)
	require.NoError(t, s.Ping(t.Context()))
	require.NoError(t, s.Close())

	protect(t, path, true)
	s, err := sqlite.Open(t.Context(), path)
	require.NoError(t, err)
	for range 3 { // also after SQLite has noticed
		require.ErrorIs(t, s.Ping(t.Context()), broker.ErrReadOnly)
	}
	require.ErrorIs(t, s.Record(t.Context(), event(t)), broker.ErrReadOnly)
	require.NoError(t, s.Close())

	protect(t, path, false)
	s, err = sqlite.Open(t.Context(), path)
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	require.NoError(t, s.Ping(t.Context()))
}

// protect makes SQLite take a file for one that it must not write to, whoever runs the
// test: rights do not bind root. "If the write version is greater than 2 the file must be
// treated as read-only" (https://www.sqlite.org/fileformat.html, 1.3.3).
func protect(t *testing.T, path string, on bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	version := byte(2)
	if on {
		version = 3
	}
	_, err = f.WriteAt([]byte{version}, 18)
	require.NoError(t, err)
}

// Who only wants to know whether the database can be written to does not wait for who
// writes.
func TestPingWaitsForNoWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nexus.db")
	s := open(t, path)
	defer func() { _ = s.Close() }()
	other, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	other.SetMaxOpenConns(1)
	_, err = other.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	require.NoError(t, err)
	require.NoError(t, s.Ping(t.Context()))
	_, err = other.ExecContext(t.Context(), "ROLLBACK")
	require.NoError(t, err)
}

// SQLite makes files beside the database also to read it. Who may not is told what to do.
// No mode of a folder stops root: the test runs itself again as somebody else.
func TestADatabaseInAFolderThatIsReadOnly(t *testing.T) {
	if path := flag.Arg(0); path != "" {
		_, err := sqlite.Open(t.Context(), path)
		require.ErrorContains(t, err, ": run this as a user who may write to the file and its folder")
		return
	}
	folder, err := os.MkdirTemp("/tmp", "nexus-read-only-") // which everybody may enter
	require.NoError(t, err)
	path := filepath.Join(folder, "nexus.db")
	t.Cleanup(func() {
		require.NoError(t, os.Chmod(folder, 0o700))
		require.NoError(t, os.RemoveAll(folder))
	})
	require.NoError(t, open(t, path).Close())
	binary, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "again"), binary, 0o755))
	require.NoError(t, os.Chmod(path, 0o444))
	require.NoError(t, os.Chmod(folder, 0o555))
	again := exec.Command(filepath.Join(folder, "again"), "-test.run=^"+t.Name()+"$", path)
	again.Dir = folder
	if os.Getuid() == 0 {
		again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	output, err := again.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Contains(t, string(output), "PASS")
}

// Package docs_test keeps README.md and docs/vault.md honest: it runs their commands
// as they stand there, against the real binary, a real Vault and an OAuth provider
// on loopback, applies their policies, and provokes the failures whose messages they
// quote. A document that says something else than what happens fails here.
//
// Where a document shows the command line of Vault and no "vault" or "bao" is
// configured (VAULT_BIN), this program stands in for it under the name "vault": see
// vaultcli_test.go. It proves the requests that the commands make, not that the real
// program takes these flags.
package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "vault" {
		os.Exit(vaultCommand(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	code := servers.Main(m)
	if binary.folder != "" {
		_ = os.RemoveAll(binary.folder)
	}
	os.Exit(code)
}

// binary is the folder that holds nexus-broker, built when it is first needed.
var binary struct {
	once   sync.Once
	folder string
	err    error
}

func built(t *testing.T) (folder string) {
	t.Helper()
	binary.once.Do(func() {
		if binary.folder, binary.err = os.MkdirTemp("", "nexus-broker-docs-"); binary.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", binary.folder, "github.com/nexus-broker/nexus-broker/cmd/nexus-broker").CombinedOutput()
		if err != nil {
			binary.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	require.NoError(t, binary.err)
	return binary.folder
}

// needsPrograms skips a test that runs commands, unless "make test" runs it; in CI it
// fails instead.
func needsPrograms(t *testing.T, names ...string) {
	t.Helper()
	if os.Getenv("NEXUS_TEST_SERVERS") != "1" {
		if os.Getenv("CI") == "true" {
			t.Fatal("NEXUS_TEST_SERVERS is not 1: run the tests with 'make test'")
		}
		t.Skip("runs the commands of the documents: run 'make test'")
	}
	for _, name := range names {
		_, err := exec.LookPath(name)
		require.NoError(t, err, "the documents use %s: install it", name)
	}
}

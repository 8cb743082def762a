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
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "vault" {
		os.Exit(vaultCommand(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	code := servers.Main(m)
	if folder, err := built(); err == nil {
		_ = os.RemoveAll(folder)
	}
	os.Exit(code)
}

// built is a folder that holds nexus-broker, built once.
var built = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "nexus-broker-docs-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", filepath.Join(folder, "nexus-broker"),
		"github.com/nexus-broker/nexus-broker/cmd/nexus-broker")
	var out bytes.Buffer
	build.Stdout, build.Stderr = &out, &out
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out.String())
	}
	return folder, nil
})

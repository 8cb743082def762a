package docs_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// scenarios are the names that a document's comments may use.
func scenarios() []string {
	return append([]string{"internal", "vault", "approle", "print-policy", "doctor-lines", "keys", "upgrade", "manifests", "presets", "migrating"}, logins...)
}

// client is the provider's. Its secret is awkward to quote, as real ones are.
func client() oauthtest.Client {
	return oauthtest.Client{ID: "quick-start-client", Secret: `quick "start" $secret /+:%`, Auth: oauthtest.ClientSecretBasic}
}

func inputsFor(op *oauthtest.Server) map[string]string {
	return map[string]string{"ISSUER": op.Issuer(), "CLIENT_ID": client().ID, "CLIENT_SECRET": client().Secret}
}

func TestQuickStartOnYourMachine(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{Clients: []oauthtest.Client{client()}})
	newShell(t, inputsFor(op)).run(scenario(t, "internal"))
}

// The quick start of the README goes on in docs/vault.md, with rotations.
func TestQuickStartWithVault(t *testing.T) {
	t.Parallel()
	op := oauthtest.Start(t, oauthtest.Options{Clients: []oauthtest.Client{client()}})
	v := servers.Vault(t)
	s := newShell(t, inputsFor(op))
	s.inputs["VAULT_ADDR"], s.inputs["VAULT_TOKEN"] = v.Addr, v.RootToken
	for _, name := range []string{"NEW_SECRET", "NEXT_SECRET"} {
		secret := name + ` of the "provider"`
		s.inputs[name] = secret
		s.onInput[name] = func() { op.SetSecret(client().ID, secret) } // the provider has it from here on
	}
	s.run(scenario(t, "vault"))
	info, err := os.Stat(s.dir + "/broker.token")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestAppRole(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.Policy("nexus-broker", policy(t, "rw-v2"))
	s := newShell(t, map[string]string{})
	s.send("export VAULT_ADDR=" + v.Addr + " VAULT_TOKEN=" + v.RootToken)
	s.run(scenario(t, "approle"))
}

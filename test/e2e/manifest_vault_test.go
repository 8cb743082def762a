package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// operator has a manifest, a broker's address and its key, and nothing else.
type operator struct {
	t      *testing.T
	canary *canary
	env    env
	file   string
}

// write replaces the manifest.
func (o *operator) write(manifest string) {
	o.t.Helper()
	require.NoError(o.t, os.WriteFile(o.file, []byte(manifest), 0o600))
}

// replace changes a text of the manifest.
func (o *operator) replace(old, with string) {
	o.t.Helper()
	manifest, err := os.ReadFile(o.file)
	require.NoError(o.t, err)
	require.Contains(o.t, string(manifest), old)
	o.write(strings.ReplaceAll(string(manifest), old, with))
}

// providers runs "providers ARG...", which never prints a credential.
func (o *operator) providers(code int, args ...string) string {
	o.t.Helper()
	ended, output := exits(o.t, o.env, append([]string{"providers"}, args...)...)
	o.canary.search("providers", []byte(output))
	require.Equal(o.t, code, ended, output)
	return output
}

func (o *operator) plan(code int, more ...string) string {
	return o.providers(code, append([]string{"plan", "-f", o.file, "--detailed-exitcode"}, more...)...)
}

func (o *operator) apply(code int, more ...string) string {
	return o.providers(code, append([]string{"apply", "-f", o.file, "--yes"}, more...)...)
}

const vaultManifest = `version: 1
providers:
  - name: managed
    client_id: ${MANAGED_ID}
    client_secret: ${MANAGED_SECRET}
    auth_url: ${OP}/authorize
    token_url: ${OP}/token
  - name: team
    credentials_ref: {client_id: "team-a/oauth#id", client_secret: "team-a/oauth#secret"}
    auth_url: ${OP}/authorize
    token_url: ${OP}/token
  - name: theirs
    auth_url: ${OP}/authorize
    token_url: ${OP}/token
`

// TestManifestOnVault: the command line, from elsewhere, against a broker whose credentials
// lie in a Vault. It sees no credential, so it says that it does not know them.
func TestManifestOnVault(t *testing.T) {
	t.Parallel()
	c := newCanary()
	v := servers.Vault(t)
	w := vaultWorld(sqliteWorld(t), "", v, "secret", 2, env{"VAULT_TOKEN": "none", "SECRET_REF_ALLOWED_PREFIXES": "team-a", "SECRET_CACHE_TTL": "0"})
	v.Policy("manifests", printedPolicy(t, w.env)+`path "secret/data/team-a/*" { capabilities = ["read"] }`)
	w.env = w.env.with(env{"VAULT_TOKEN": v.Token([]string{"manifests"}, map[string]any{"period": "1h"})})
	c.protect("Vault token", w.env["VAULT_TOKEN"])
	secrets := map[string]string{"managed": "CANARY-managed-secret", "rotated": "CANARY-rotated-secret", "team": "CANARY-team-secret", "theirs": "CANARY-their-secret"}
	var clients []oauthtest.Client
	for _, name := range []string{"managed", "team", "theirs"} {
		c.protect("secret of "+name, secrets[name])
		clients = append(clients, oauthtest.Client{ID: name + "-id", Secret: secrets[name], RedirectURIs: []string{publicURL + "/auth/callback"}})
	}
	c.protect("rotated secret", secrets["rotated"])
	op := oauthtest.Start(t, oauthtest.Options{Clients: clients})
	v.Write("secret/data/team-a/oauth", map[string]any{"data": map[string]any{"id": "team-id", "secret": secrets["team"]}})
	w.set(t, "theirs/client_id", "theirs-id")
	w.set(t, "theirs/client_secret", secrets["theirs"])
	b := start(t, w.env)
	o := &operator{t: t, canary: c, file: filepath.Join(t.TempDir(), "providers.yaml"), env: env{
		"BROKER_BASE_URL": b.URL, "API_KEY": apiKey, "OP": op.Issuer(), "MANAGED_ID": "managed-id", "MANAGED_SECRET": secrets["managed"],
	}}
	version := func(key string) any {
		return v.Read(strings.Replace(w.path(key), "secret/", "secret/metadata/", 1))["data"].(map[string]any)["current_version"]
	}

	// From nothing to what the manifest says: written, referred to, and adopted where it lies.
	o.write(vaultManifest)
	require.Contains(t, o.plan(2), "Plan: 3 to create, 0 to update, 0 to delete, 0 unchanged, 0 not in the manifest\n")
	o.apply(0)
	require.Equal(t, secrets["managed"], w.look(t, "managed/client_secret"))
	ids := map[string]string{}
	for _, name := range []string{"managed", "team", "theirs"} {
		ids[name] = b.call("GET", "/providers/by-name/"+name, nil).want(200).text("id")
		b.refresh(b.connect(ids[name])).want(200)
	}

	// The credentials that the manifest gives are unknown, which is nothing to do.
	unknown := o.plan(0)
	require.Contains(t, unknown, "  managed\n    client_id, client_secret: unknown\n  team\n  theirs\n")
	require.Contains(t, unknown, "The credentials of 1 provider are unknown: the broker does not show them. --set-credentials sends them;\n")
	o.env["MANAGED_SECRET"] = secrets["rotated"]
	require.Equal(t, unknown, o.plan(0), "it cannot tell another value")
	o.apply(0)
	require.Equal(t, secrets["managed"], w.look(t, "managed/client_secret"), "what is unknown is left alone")

	// --set-credentials sends them; what is stored already is not written again.
	require.Contains(t, o.plan(2, "--set-credentials"), "~ managed\n    client_id: sent\n    client_secret: sent\n")
	require.Contains(t, o.apply(0, "--set-credentials"), "update managed: done\n")
	require.Equal(t, secrets["rotated"], w.look(t, "managed/client_secret"))
	op.SetSecret("managed-id", secrets["rotated"])
	b.refresh(b.connect(ids["managed"])).want(200)
	before := version("managed/client_secret")
	o.apply(0, "--set-credentials")
	require.Equal(t, before, version("managed/client_secret"))

	// A reference is compared like any member, and must be allowed.
	v.Write("secret/data/team-a/newer", map[string]any{"data": map[string]any{"id": "managed-id", "secret": secrets["rotated"]}})
	o.replace("team-a/oauth#", "team-a/newer#")
	require.Contains(t, o.plan(2), `"team-a/oauth#id" -> "team-a/newer#id"`)
	o.apply(0)
	authURL, _ := b.begin(ids["team"])
	require.Equal(t, "managed-id", mustURL(t, authURL).Query().Get("client_id"))
	o.replace("team-a/newer#", "team-b/oauth#")
	require.Contains(t, o.apply(1), "credentials_ref_not_allowed")
	o.replace("team-b/oauth#", "team-a/newer#")
	o.plan(0)

	// What is exported is what is there, without a credential.
	exported := o.providers(0, "export")
	require.Contains(t, exported, "${MANAGED_CLIENT_SECRET}")
	require.Contains(t, exported, "team-a/newer#secret")
	require.NotContains(t, exported, "${THEIRS_CLIENT_SECRET}", "somebody else keeps it")

	// What the manifest does not name goes, with the credentials that the broker wrote.
	o.write("version: 1\nproviders: []\n")
	require.Contains(t, o.plan(0), "? managed (not in the manifest; --prune deletes it)\n")
	require.Contains(t, o.plan(2, "--prune"), "Plan: 0 to create, 0 to update, 3 to delete")
	o.apply(0, "--prune")
	w.gone(t, "managed/client_secret")
	require.Equal(t, secrets["theirs"], w.look(t, "theirs/client_secret"))
	require.NotEmpty(t, v.Read("secret/data/team-a/oauth"))
	c.checkBroker(t, b)
}

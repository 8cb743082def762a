package docs_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/keys.md, on the database of a broker that knew the old key only.
func TestKeysAreRotatedAsDocumented(t *testing.T) {
	t.Parallel()
	key := func(c string) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 32))) }
	inputs := map[string]string{"OLD_KEY": key("o"), "NEW_KEY": key("n")}
	s := newShell(t, inputs)
	b := start(t, env{"ENCRYPTION_KEY": inputs["OLD_KEY"]})
	registered := b.call("POST", "/providers", map[string]any{"profile": map[string]any{
		"name": "acme", "client_id": "id", "client_secret": "a secret",
		"auth_url": "https://idp.example/authorize", "token_url": "https://idp.example/token",
	}})
	require.Equal(t, 201, registered.Status)
	b.stop()
	inputs["DATABASE_URL"] = "sqlite:" + b.Dir + "/nexus-data/nexus.db"
	s.run(scenario(t, "keys"))
}

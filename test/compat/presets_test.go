package compat_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/presets"
)

// TestPresetsAtABroker registers every preset with the command line at a real broker,
// which validates it, and looks at the authorization URL that the broker then builds.
func TestPresetsAtABroker(t *testing.T) {
	t.Parallel()
	s := newStage(t, databases["SQLite"](t), nil)
	m := manifestTool{t, s}
	all, err := presets.All()
	require.NoError(t, err)
	run := func(t *testing.T, args ...string) (stdout string, err error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), binary(t), append([]string{"providers"}, args...)...)
		cmd.Env = []string{"BROKER_BASE_URL=" + s.url, "API_KEY=" + apiKey}
		cmd.Stdin = strings.NewReader("the secret\n")
		var out, failed bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &failed
		err = cmd.Run()
		t.Log(failed.String())
		return out.String(), err
	}
	listed, err := run(t, "presets")
	require.NoError(t, err)
	for _, p := range all {
		t.Run(p.Name, func(t *testing.T) {
			require.Contains(t, listed, p.Name+" ")
			args := []string{"add", p.Name, "--client-id", "an-id", "--client-secret-file", "-"}
			for _, need := range slices.Sorted(maps.Keys(p.Needs)) {
				args = append(args, "--set", need+"=example.com")
			}
			out, err := run(t, args...)
			require.NoError(t, err)
			require.NotContains(t, out, "the secret")
			id := strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), " "):])

			var profile map[string]any
			require.NoError(t, json.Unmarshal(m.do("GET", "/providers/"+id, nil, 200), &profile))
			require.Equal(t, "the secret", profile["client_secret"], "without the line's end")
			var consent struct{ AuthURL string }
			require.NoError(t, json.Unmarshal(m.do("POST", "/auth/consent-spec",
				map[string]any{"workspace_id": "w", "provider_id": id, "return_url": "https://app.test/", "scopes": []string{"a"}}, 200), &consent))
			u, err := url.Parse(consent.AuthURL)
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(consent.AuthURL, profile["auth_url"].(string)+"?"))
			for name, value := range p.Params {
				if name != "token_request_format" && !strings.HasPrefix(name, "skip_") {
					require.Equal(t, value, u.Query().Get(name), "the parameter %s", name)
				}
			}
			require.Equal(t, p.Params["skip_scope_on_auth"] != true, u.Query().Has("scope"))
		})
	}
	dry, err := run(t, "add", "shopify", "--set", "shop=a", "--name", "dry", "--scopes", "read_orders", "--client-id", "i", "--client-secret-file", "-", "--dry-run")
	require.NoError(t, err)
	require.Contains(t, dry, `"auth_url": "https://a.myshopify.com/admin/oauth/authorize"`)
	require.Contains(t, dry, "read_orders")
	require.NotContains(t, dry, "the secret")
	m.do("GET", "/providers/by-name/dry", nil, 404)
	_, err = run(t, "add", "nobody", "--without-credentials")
	require.Error(t, err)
	_, err = run(t, "add", "shopify", "--client-id", "i", "--client-secret-file", "-")
	require.Error(t, err, "the shop is missing")
}

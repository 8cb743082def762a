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

// addWith runs "providers ARG..." against the broker, with a secret on stdin.
func (s *stage) addWith(t *testing.T, args ...string) (stdout string, err error) {
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

// TestPresetsAtABroker registers every preset at a real broker, which validates it, and
// looks at the authorization URL that the broker then builds. A few of them, with all
// that a preset can have, go through the command line.
func TestPresetsAtABroker(t *testing.T) {
	t.Parallel()
	s := newStage(t, databases["SQLite"](t), nil)
	m := manifestTool{t, s}
	all, err := presets.All()
	require.NoError(t, err)
	listed, err := s.addWith(t, "presets")
	require.NoError(t, err)
	for _, p := range all {
		t.Run(p.Name, func(t *testing.T) {
			require.Contains(t, listed, p.Name+" ")
			var id string
			if slices.Contains([]string{"google", "notion", "shopify"}, p.Name) {
				id = s.addPreset(t, p)
			} else {
				id = m.registerPreset(p)
			}
			var profile map[string]any
			require.NoError(t, json.Unmarshal(m.do("GET", "/providers/"+id, nil, 200), &profile))
			require.Equal(t, "the secret", profile["client_secret"], "without the line's end")
			m.requireConsent(p, id, profile["auth_url"].(string))
		})
	}
	_, err = s.addWith(t, "add", "nobody", "--without-credentials")
	require.Error(t, err)
}

// values are what a preset needs.
func values(p presets.Preset) map[string]string {
	all := map[string]string{}
	for need := range p.Needs {
		all[need] = "example.com"
	}
	return all
}

// addPreset registers with the command line.
func (s *stage) addPreset(t *testing.T, p presets.Preset) (id string) {
	t.Helper()
	args := []string{"add", p.Name, "--client-id", "an-id", "--client-secret-file", "-"}
	given := values(p)
	for _, need := range slices.Sorted(maps.Keys(given)) {
		args = append(args, "--set", need+"="+given[need])
	}
	out, err := s.addWith(t, args...)
	require.NoError(t, err)
	require.NotContains(t, out, "the secret")
	words := strings.Fields(out)
	return words[len(words)-1]
}

// registerPreset registers as the command line does, without starting it.
func (m manifestTool) registerPreset(p presets.Preset) (id string) {
	m.t.Helper()
	profile, err := p.Profile(values(p))
	require.NoError(m.t, err)
	profile["client_id"], profile["client_secret"] = "an-id", "the secret"
	var created struct{ ID string }
	require.NoError(m.t, json.Unmarshal(m.do("POST", "/providers", map[string]any{"profile": profile}, 201), &created))
	return created.ID
}

// requireConsent: the user is sent to the preset's endpoint, with its parameters.
func (m manifestTool) requireConsent(p presets.Preset, id, authURL string) {
	m.t.Helper()
	var consent struct{ AuthURL string }
	require.NoError(m.t, json.Unmarshal(m.do("POST", "/auth/consent-spec",
		map[string]any{"workspace_id": "w", "provider_id": id, "return_url": "https://app.test/", "scopes": []string{"a"}}, 200), &consent))
	u, err := url.Parse(consent.AuthURL)
	require.NoError(m.t, err)
	require.True(m.t, strings.HasPrefix(consent.AuthURL, authURL+"?"))
	for name, value := range p.Params {
		if name != "token_request_format" && !strings.HasPrefix(name, "skip_") {
			require.Equal(m.t, value, u.Query().Get(name), "the parameter %s", name)
		}
	}
	require.Equal(m.t, p.Params["skip_scope_on_auth"] != true, u.Query().Has("scope"))
}

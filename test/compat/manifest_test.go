package compat_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// manifestTool does what the existing command line for manifests does: it lists the
// providers, gets each profile with its credentials, creates what is missing, and
// patches, with the bare profile, only the members that differ.
type manifestTool struct {
	t *testing.T
	s *stage
}

func (m manifestTool) do(method, path string, body any, status int) []byte {
	m.t.Helper()
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		require.NoError(m.t, err)
		reader = strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(m.t.Context(), method, m.s.url+path, reader)
	require.NoError(m.t, err)
	req.Header.Set("X-API-Key", apiKey)
	resp, err := m.s.client(m.t).Do(req)
	require.NoError(m.t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(m.t, err)
	require.Equal(m.t, status, resp.StatusCode, "%s %s: %s", method, path, answer)
	return answer
}

// apply brings the broker to what the manifest says, and returns the requests that
// changed something.
func (m manifestTool) apply(manifest []map[string]any) (changes []string) {
	m.t.Helper()
	var list []struct{ ID, Name string }
	require.NoError(m.t, json.Unmarshal(m.do("GET", "/providers", nil, 200), &list))
	stored := map[string]map[string]any{}
	for _, p := range list {
		var profile map[string]any
		require.NoError(m.t, json.Unmarshal(m.do("GET", "/providers/"+p.ID, nil, 200), &profile))
		stored[p.Name] = profile
	}
	for _, want := range manifest {
		name := want["name"].(string)
		have, ok := stored[name]
		if !ok {
			m.do("POST", "/providers", map[string]any{"profile": want}, 201)
			changes = append(changes, "POST "+name)
			continue
		}
		different := map[string]any{}
		for member, value := range want {
			if fmt.Sprint(have[member]) != fmt.Sprint(value) {
				different[member] = value
			}
		}
		if len(different) > 0 {
			require.Empty(m.t, m.do("PATCH", "/providers/"+have["id"].(string), different, 200))
			changes = append(changes, fmt.Sprint("PATCH ", name, " ", len(different)))
		}
	}
	return changes
}

// TestManifestWorkflow: what is stored can be compared with the manifest, the secret
// included; what differs is patched, and after that nothing differs any more.
func TestManifestWorkflow(t *testing.T) {
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := manifestTool{t, newStage(t, database(t), nil)}
			google := map[string]any{
				"name": "google", "auth_type": "oauth2", "auth_header": "client_secret_post", "client_id": "id", "client_secret": "secret & <more>",
				"auth_url": "https://op.example.com/a", "token_url": "https://op.example.com/t", "scopes": []any{"email", "profile"},
				"params": map[string]any{"access_type": "offline"}, "enable_discovery": false,
			}
			weather := map[string]any{"name": "weather", "auth_type": "api_key", "description": "Weather"}
			manifest := []map[string]any{google, weather}
			require.Equal(t, []string{"POST google", "POST weather"}, m.apply(manifest))
			require.Empty(t, m.apply(manifest), "nothing differs")

			google["client_secret"], weather["description"] = "rotated", "The weather"
			require.Equal(t, []string{"PATCH google 1", "PATCH weather 1"}, m.apply(manifest))
			require.Empty(t, m.apply(manifest))
			google["params"], google["scopes"] = map[string]any{"access_type": "online"}, []any{"email"}
			require.Equal(t, []string{"PATCH google 2"}, m.apply(manifest))
			require.Empty(t, m.apply(manifest))

			var events []json.RawMessage
			require.NoError(t, json.Unmarshal(m.do("GET", "/audit?event_type=provider.updated", nil, 200), &events))
			require.Len(t, events, 3, "what does not differ is not written")
		})
	}
}

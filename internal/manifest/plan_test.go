package manifest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/manifest"
)

const first = `version: 1
providers:
- name: google
  client_id: ${ID}
  client_secret: ${SECRET}
  auth_header: Basic
  auth_url: https://a.example.com/auth
  token_url: https://a.example.com/token
  scopes: [openid, email]
  params: {access_type: offline, app_secret: "${APP}", nested: {n: 1.50, list: [1, two]}}
  description: holds ${SECRET} by mistake
- name: weather
  auth_type: api_key
`

func TestPlanAndApply(t *testing.T) {
	for _, backend := range []string{credentials.Internal, external} {
		t.Run(backend, func(t *testing.T) {
			w := deploy(t, backend)
			w.env = map[string]string{"ID": "canary-id", "SECRET": "canary-secret", "APP": "canary-app"}
			p := w.apply(first, manifest.Options{})
			require.Equal(t, 2, p.Count(manifest.Create))
			out := printed(t, p)
			require.Contains(t, out, "+ google\n")
			require.Contains(t, out, "    client_secret: set\n")
			require.Contains(t, out, "    params.app_secret: set\n")
			require.Contains(t, out, `    description: "holds [masked] by mistake"`)

			second := strings.NewReplacer("Basic", "client_secret_basic", "1.50", "1.5", "[openid, email]", "[openid]",
				"access_type: offline, ", "", "  description: holds ${SECRET} by mistake\n", "  category: c\n").Replace(first)
			p = w.plan(second, manifest.Options{})
			out = printed(t, p)
			require.Contains(t, out, "~ google\n    description: \"holds [masked] by mistake\" -> (none)\n    category: (none) -> \"c\"\n")
			require.Contains(t, out, `    scopes: ["openid","email"] -> ["openid"]`)
			require.Contains(t, out, `    params.access_type: "offline" -> (none)`)
			require.NotContains(t, out, "auth_header")
			require.NotContains(t, out, "nested")
			require.Contains(t, out, "  weather\n")
			w.apply(second, manifest.Options{})
			got := w.profile("google")
			require.Empty(t, got.Description)
			require.Equal(t, []string{"openid"}, got.Scopes)
			require.JSONEq(t, `{"app_secret":"canary-app","nested":{"n":1.5,"list":[1,"two"]}}`, string(got.Params))

			// Left out, credentials stay as they are.
			w.apply(strings.NewReplacer("  client_id: ${ID}\n", "", "  client_secret: ${SECRET}\n", "").Replace(second), manifest.Options{})

			w.env["SECRET"] = "canary-rotated"
			out = printed(t, w.plan(second, manifest.Options{}))
			if backend == credentials.Internal {
				require.Contains(t, out, "~ google\n    client_secret: changed\n")
				w.apply(second, manifest.Options{})
				require.Equal(t, "canary-rotated", w.profile("google").ClientSecret.Reveal())
				return
			}
			require.Contains(t, out, "    client_id, client_secret: unknown\n")
			require.Contains(t, out, "--set-credentials")
			require.True(t, w.plan(second, manifest.Options{}).Empty())
			out = printed(t, w.apply(second, manifest.Options{SetCredentials: true}))
			require.Contains(t, out, "client_id: sent")
			stored, err := w.vault.Get(t.Context(), "google/client_secret")
			require.NoError(t, err)
			require.Equal(t, "canary-rotated", stored)
			generation := w.profile("google").Credentials
			w.apply(second, manifest.Options{SetCredentials: true})
			require.Equal(t, generation, w.profile("google").Credentials)
		})
	}
}

func TestOrphansAndPrune(t *testing.T) {
	w := deploy(t, credentials.Internal)
	w.apply("version: 1\nproviders:\n- {name: a, auth_type: api_key}\n- {name: b, auth_type: api_key}\n", manifest.Options{})
	one := "version: 1\nproviders:\n- {name: a, auth_type: api_key}\n"
	p := w.plan(one, manifest.Options{})
	require.True(t, p.Empty())
	require.Equal(t, 1, p.Count(manifest.Orphan))
	require.Contains(t, printed(t, p), "? b (not in the manifest")
	p = w.plan(one, manifest.Options{Prune: true})
	require.Contains(t, printed(t, p), "- b (not in the manifest)")
	require.Equal(t, 1, p.WithoutDeletions().Count(manifest.Orphan))
	w.apply(one, manifest.Options{Prune: true})
	require.Empty(t, w.profile("b").ID)
}

// A failure does not stop the others, but what would be deleted stays.
func TestPartialFailureIsRepeated(t *testing.T) {
	w := deploy(t, external)
	w.apply("version: 1\nproviders:\n- {name: old, auth_type: api_key}\n", manifest.Options{})
	text := `version: 1
providers:
- {name: fails, auth_url: "https://a.example.com", token_url: "https://a.example.com"}
- {name: works, auth_type: api_key}
`
	var results []manifest.Result
	p := w.plan(text, manifest.Options{Prune: true})
	require.Equal(t, 2, manifest.Apply(t.Context(), w.client, p, func(r manifest.Result) { results = append(results, r) }))
	require.Len(t, results, 3)
	require.Contains(t, results[0].Error, "409 credentials_not_found")
	require.Empty(t, results[1].Error)
	require.True(t, results[2].Skipped)
	require.NotEmpty(t, w.profile("old").ID)

	require.NoError(t, w.vault.Set(t.Context(), "fails/client_id", "canary-i"))
	require.NoError(t, w.vault.Set(t.Context(), "fails/client_secret", "canary-s"))
	w.apply(text, manifest.Options{Prune: true})
	require.Empty(t, w.profile("old").ID)

	// These are not the broker's: it would refuse to change them.
	given := strings.Replace(text, "{name: fails,", "{name: fails, client_id: canary-other, client_secret: canary-other,", 1)
	p = w.apply(given, manifest.Options{SetCredentials: true})
	require.Contains(t, printed(t, p), "they are changed where they lie")
}

func TestRenameKeepsTheProvider(t *testing.T) {
	w := deploy(t, credentials.Internal)
	w.apply("version: 1\nproviders:\n- {name: a, auth_type: api_key}\n", manifest.Options{})
	id := w.profile("a").ID
	renamed := "version: 1\nproviders:\n- {name: b, previous_name: a, auth_type: api_key}\n"
	p := w.apply(renamed, manifest.Options{Prune: true})
	require.Contains(t, printed(t, p), "~ b\n    name: \"a\" -> \"b\"\n")
	require.Equal(t, id, w.profile("b").ID)
}

func TestReferences(t *testing.T) {
	w := deploy(t, external)
	for _, path := range []string{"team-a/x", "team-a/y"} {
		_, err := w.placed.Place(path, "canary-"+path)
		require.NoError(t, err)
	}
	text := `version: 1
providers:
- name: sales
  auth_url: https://a.example.com/auth
  token_url: https://a.example.com/token
  credentials_ref: {client_id: team-a/x, client_secret: team-a/x}
`
	w.apply(text, manifest.Options{})
	moved := strings.Replace(text, "client_secret: team-a/x", "client_secret: team-a/y", 1)
	require.Contains(t, printed(t, w.apply(moved, manifest.Options{})), `credentials_ref.client_secret: "team-a/x" -> "team-a/y"`)
	none, _, _ := strings.Cut(text, "  credentials_ref")
	require.True(t, w.plan(none, manifest.Options{}).Empty(), "left out, it stays")
	own := none + "  client_id: canary-id\n  client_secret: canary-secret\n"
	w.apply(own, manifest.Options{})
	require.Nil(t, w.profile("sales").CredentialsRef)
}

// What is exported plans to no change, and holds no credential.
func TestExport(t *testing.T) {
	for _, backend := range []string{credentials.Internal, external} {
		t.Run(backend, func(t *testing.T) {
			w := deploy(t, backend)
			w.env = map[string]string{"ID": "canary-id", "SECRET": "canary-secret", "APP": "canary-app"}
			text := strings.Replace(first, "description: holds ${SECRET} by mistake", `description: "yes $${NOT} \" : # \n é"`, 1) +
				"- {name: 3-public, auth_header: none, client_id: '${ID}', issuer: 'https://i.example.com', enable_discovery: true, params: {a: 'true', b: true, c: null, d: '12', e: 12345678901234567890, f: {}, g: []}}\n"
			w.apply(text, manifest.Options{})
			e, err := manifest.Export(t.Context(), w.client)
			require.NoError(t, err)
			var b strings.Builder
			require.NoError(t, e.Write(&b))
			require.NotContains(t, b.String(), "canary")
			require.Contains(t, b.String(), "client_secret: ${GOOGLE_CLIENT_SECRET}\n")
			require.Equal(t, []string{"_3_PUBLIC_CLIENT_ID", "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "GOOGLE_APP_SECRET"}, e.Variables)
			w.env = map[string]string{"_3_PUBLIC_CLIENT_ID": "canary-id", "GOOGLE_CLIENT_ID": "canary-id", "GOOGLE_CLIENT_SECRET": "canary-secret", "GOOGLE_APP_SECRET": "canary-app"}
			p := w.plan(b.String(), manifest.Options{Prune: true})
			require.True(t, p.Empty(), printed(t, p))
			require.Equal(t, 3, p.Count(manifest.Unchanged))

			again, err := manifest.Export(t.Context(), w.client)
			require.NoError(t, err)
			var c strings.Builder
			require.NoError(t, again.Write(&c))
			require.Equal(t, b.String(), c.String())
		})
	}
}

// One pair that does not open keeps nobody from exporting the other providers.
func TestExportGoesOnWithoutWhatCannotBeRead(t *testing.T) {
	code := "credentials_invalid"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/providers":
			_, _ = io.WriteString(w, `[{"id":"1","name":"broken"},{"id":"2","name":"fine"}]`)
		case "/providers/1":
			w.WriteHeader(http.StatusBadGateway)
			_, _ = fmt.Fprintf(w, `{"error":%q,"message":"it does not open"}`, code)
		default:
			_, _ = io.WriteString(w, `{"id":"2","name":"fine","auth_type":"api_key","description":"a\u202eb \ud83d\ude00 \udb40\udc41\n\tc","params":{"x\u2066":"\u00a0"}}`)
		}
	}))
	t.Cleanup(srv.Close)
	at, err := url.Parse(srv.URL)
	require.NoError(t, err)
	client := apiclient.New(apiclient.Options{BaseURL: at})
	e, err := manifest.Export(t.Context(), client)
	require.NoError(t, err)
	require.Len(t, e.Unreadable, 1)
	require.Equal(t, "broken", e.Unreadable[0].Name)
	require.ErrorContains(t, e.Unreadable[0].Reason, "it does not open")
	var b strings.Builder
	require.NoError(t, e.Write(&b))
	require.NotContains(t, b.String(), "broken")

	// Whoever reviews it sees everything that is in it.
	require.Contains(t, b.String(), `"a\u202eb \U0001F600 \U000E0041\n\tc"`)
	require.Contains(t, b.String(), `"x\u2066": "\u00a0"`)
	m, err := manifest.Parse([]manifest.File{{Name: "m.yaml", Content: []byte(b.String())}}, func(string) string { return "" })
	require.NoError(t, err)
	require.Equal(t, "a\u202eb 😀 \U000e0041\n\tc", m.Providers[0].Description)
	require.Equal(t, map[string]any{"x\u2066": "\u00a0"}, m.Providers[0].Params)

	code = "secret_backend_unavailable"
	_, err = manifest.Export(t.Context(), client)
	require.ErrorContains(t, err, "secret_backend_unavailable", "of an outage nothing can be concluded")
}

func TestKeysOfOtherRoles(t *testing.T) {
	w := deploy(t, credentials.Internal)
	w.env = map[string]string{"ID": "canary-id", "SECRET": "canary-secret", "APP": "canary-app"}
	w.apply(first, manifest.Options{})
	_, err := manifest.MakePlan(t.Context(), w.as(agentKey), w.parse(first), manifest.Options{})
	require.ErrorIs(t, err, apiclient.ErrForbidden)
	require.Contains(t, err.Error(), "a key whose role is admin")
	require.NotContains(t, err.Error(), "canary")

	p, err := manifest.MakePlan(t.Context(), w.as(auditorKey), w.parse(first), manifest.Options{})
	require.NoError(t, err)
	require.True(t, p.Empty())
	require.Contains(t, printed(t, p), "client_id, client_secret: unknown")

	_, err = manifest.MakePlan(t.Context(), w.as("canary-wrong"), w.parse(first), manifest.Options{})
	require.ErrorIs(t, err, apiclient.ErrKey)
	require.NotContains(t, err.Error(), "canary")
}

func TestThePlanAsJSONHoldsNoCredential(t *testing.T) {
	w := deploy(t, credentials.Internal)
	w.env = map[string]string{"ID": "canary-id", "SECRET": "canary-secret", "APP": "canary-app"}
	b, err := json.Marshal(w.plan(first, manifest.Options{}))
	require.NoError(t, err)
	require.NotContains(t, string(b), "canary")
	require.Contains(t, string(b), `{"field":"client_secret","old":null,"new":null,"masked":"set"}`)
}

// TestPruneLeavesWhatAManifestCannotName: a manifest that was exported leaves these out.
func TestPruneLeavesWhatAManifestCannotName(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `[{"id":"1","name":"New Provider Name"},{"id":"2","name":"left-over"}]`)
	}))
	t.Cleanup(srv.Close)
	at, err := url.Parse(srv.URL)
	require.NoError(t, err)
	p, err := manifest.MakePlan(t.Context(), apiclient.New(apiclient.Options{BaseURL: at}), manifest.Manifest{}, manifest.Options{Prune: true})
	require.NoError(t, err)
	require.Equal(t, 1, p.Count(manifest.Delete))
	out := printed(t, p)
	require.Contains(t, out, "? New Provider Name (a manifest cannot hold its name: left alone)\n")
	require.Contains(t, out, "- left-over (not in the manifest)\n")
}

package presets_test

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/presets"
)

func TestPresetsAreWhole(t *testing.T) {
	all, err := presets.All()
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 25)
	seen := map[string]bool{}
	for _, p := range all {
		t.Run(p.Name, func(t *testing.T) {
			require.False(t, seen[p.Name], "there twice")
			seen[p.Name] = true
			require.NotEmpty(t, p.Title)
			require.True(t, strings.HasPrefix(p.Source, "https://"))
			_, err := time.Parse(time.DateOnly, p.Checked)
			require.NoError(t, err)
			requireEvidence(t, p)
			require.Contains(t, []string{"yes", "no", "optional", "unknown"}, p.Rotates)
			values := map[string]string{}
			for name, what := range p.Needs {
				require.NotEmpty(t, what)
				require.Contains(t, p.AuthURL, "{"+name+"}")
				values[name] = "a.b"
			}
			profile, err := p.Profile(values)
			require.NoError(t, err)
			for _, member := range []string{"auth_url", "token_url", "revocation_url", "issuer"} {
				text, ok := profile[member].(string)
				if !ok {
					require.Contains(t, []string{"revocation_url", "issuer"}, member)
					continue
				}
				u, err := url.Parse(text)
				require.NoError(t, err)
				require.Equal(t, "https", u.Scheme)
				require.NotContains(t, text, "{", "a place that is not declared")
			}
		})
	}
	for _, name := range strings.Fields("google microsoft github gitlab salesforce slack atlassian hubspot notion zoom dropbox box asana " +
		"linear figma discord stripe-connect shopify quickbooks xero zendesk okta auth0 linkedin x") {
		require.True(t, slices.ContainsFunc(all, func(p presets.Preset) bool { return p.Name == name }), name)
	}
}

// requireEvidence: a preset claims no more than what it says was confirmed.
func requireEvidence(t *testing.T, p presets.Preset) {
	t.Helper()
	members := map[string]bool{
		"auth_url": true, "token_url": true, "auth_header": true, "rotates": p.Rotates != "unknown",
		"revocation_url": p.RevocationURL != "", "issuer": p.Issuer != "", "params": len(p.Params) > 0,
	}
	for _, name := range p.Confirmed {
		require.True(t, members[name], "%s cannot be confirmed", name)
	}
	endpoints := slices.Contains(p.Confirmed, "auth_url") && slices.Contains(p.Confirmed, "token_url")
	switch p.Evidence {
	case "vendor":
		require.True(t, endpoints)
	case "partly":
		require.False(t, endpoints)
		require.NotEmpty(t, p.Confirmed)
	case "code", "unconfirmed":
		require.Empty(t, p.Confirmed)
	default:
		t.Fatalf("there is no evidence %q", p.Evidence)
	}
}

// TestDocument compares the table of docs/presets.md with the presets.
func TestDocument(t *testing.T) {
	all, err := presets.All()
	require.NoError(t, err)
	document, err := os.ReadFile("../../docs/presets.md")
	require.NoError(t, err)
	var rows strings.Builder
	for _, p := range all {
		needs := strings.Join(slices.Sorted(maps.Keys(p.Needs)), ", ")
		fmt.Fprintf(&rows, "| `%s` | [%s](%s) | %s | %s | %s %s | %s | %s |\n",
			p.Name, p.Title, p.Source, needs, p.Rotates, p.Evidence, p.Checked, strings.Join(p.Confirmed, ", "), p.Notes)
	}
	require.Contains(t, string(document), rows.String(), "the table should be:\n%s", rows.String())
}

// TestValuesAreHostNames: what is put into a URL cannot lead elsewhere.
func TestValuesAreHostNames(t *testing.T) {
	p, err := presets.Find("shopify")
	require.NoError(t, err)
	for _, wrong := range []string{"", "evil.test/", "a@evil.test", "a?b", "a#", "..", "a b", "{shop}", "-a"} {
		_, err := p.Profile(map[string]string{"shop": wrong})
		require.ErrorContains(t, err, "--set shop=", wrong)
	}
	_, err = p.Profile(map[string]string{"shop": "a", "other": "b"})
	require.ErrorContains(t, err, "other")
	profile, err := p.Profile(map[string]string{"shop": "my-shop"})
	require.NoError(t, err)
	require.Equal(t, "https://my-shop.myshopify.com/admin/oauth/authorize", profile["auth_url"])
}

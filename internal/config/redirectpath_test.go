package config_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	nexusbroker "github.com/nexus-broker/nexus-broker"
	"github.com/nexus-broker/nexus-broker/internal/config"
)

// A redirect path takes precedence over the API's routes, so it must be none of them.
func TestRedirectPathIsNoneOfTheAPI(t *testing.T) {
	contract := regexp.MustCompile(`(?m)^  (/.*):$`).FindAllSubmatch(nexusbroker.OpenAPI, -1) // the keys of paths
	require.Greater(t, len(contract), 10)
	refused := []string{"/connections", "/providers/anything", "/connections/any/thing", "/health/x", "/audit/x", "/auth/capture-schema/x"}
	for _, key := range contract {
		if path := string(key[1]); path != "/auth/callback" {
			refused = append(refused, strings.NewReplacer("{", "", "}", "").Replace(path))
		}
	}
	for _, path := range refused {
		_, err := config.Load(environ(valid(), "REDIRECT_PATH="+path), config.Options{})
		require.ErrorContains(t, err, "REDIRECT_PATH is a path of the broker's own API", path)
	}
	for _, path := range []string{"/auth/callback", "/auth", "/callback", "/provider", "/healthy", "/oauth/providers", "/auth/consent-spec2"} {
		require.Equal(t, path, load(t, valid(), "REDIRECT_PATH="+path).Server.RedirectPath)
	}
}

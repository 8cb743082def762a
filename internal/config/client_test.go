package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoadClient(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	for content, want := range map[string]string{
		"plain\n":                          "plain",
		"agent:a\n\nadmin:b\nc\n":          "b",
		"agent:a\nauditor:b\n":             "a",
		"other:a\r\n":                      "other:a",
		"admin:\n  agent:a  \n  admin:b\n": "b",
	} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		c, err := LoadClient([]string{"API_KEY_FILE=" + file}, "https://b.example.com/x/")
		require.NoError(t, err)
		require.Equal(t, want, c.Client.APIKey.Reveal(), content)
		require.Equal(t, "https://b.example.com/x", c.Client.BaseURL.String())
	}
	c, err := LoadClient([]string{"API_KEY=admin:verbatim", "BROKER_BASE_URL=http://b.example.com", "SECRET_BACKEND=nonsense"}, "")
	require.NoError(t, err, "nothing else is read")
	require.Equal(t, "admin:verbatim", c.Client.APIKey.Reveal())
	require.Len(t, c.Warnings, 1)

	for _, environ := range [][]string{
		nil,
		{"BROKER_BASE_URL=ftp://canary"},
		{"BROKER_BASE_URL=https://b", "API_KEY=canary\ncanary"},
		{"BROKER_BASE_URL=https://b", "API_KEY=canary", "API_KEY_FILE=" + file},
		{"BROKER_BASE_URL=https://b", "API_KEY_FILE=/canary"},
	} {
		_, err := LoadClient(environ, "")
		var problems Problems
		require.ErrorAs(t, err, &problems)
		require.Len(t, problems, 1)
		require.NotContains(t, err.Error(), "canary")
	}
}

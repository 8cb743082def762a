package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

// Each login has a mount of its own by default, reads its own variables, and no others.
func TestVaultLogins(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "jwt")
	require.NoError(t, os.WriteFile(file, []byte("x\n"), 0o600))
	cert, key := issue(t, dir, "client", time.Now().Add(time.Hour))
	logins := map[string]struct {
		env  string
		want config.Vault
	}{
		"kubernetes": {"VAULT_K8S_ROLE=r|VAULT_K8S_TOKEN_PATH=" + file, config.Vault{Role: "r", TokenPath: file}},
		"jwt":        {"VAULT_JWT_ROLE=r|VAULT_JWT_PATH=" + file, config.Vault{Role: "r", TokenPath: file}},
		"aws":        {"VAULT_AWS_ROLE=r", config.Vault{Role: "r"}},
		"cert":       {"VAULT_CERT_ROLE=r|VAULT_CLIENT_CERT=" + cert + "|VAULT_CLIENT_KEY=" + key, config.Vault{Role: "r", ClientCert: cert, ClientKey: key}},
		"approle":    {"VAULT_ROLE_ID=r|VAULT_SECRET_ID_WRAPPED_FILE=" + file, config.Vault{RoleID: "r", SecretIDWrappedFile: file}},
	}
	for method, login := range logins {
		t.Run(method, func(t *testing.T) {
			changes := append(strings.Split(login.env, "|"), "VAULT_TOKEN=", "VAULT_AUTH_METHOD="+method)
			c := load(t, withVault(), changes...)
			want := login.want
			want.Addr, want.Mount, want.PathPrefix = c.Secrets.Vault.Addr, c.Secrets.Vault.Mount, c.Secrets.Vault.PathPrefix
			want.AuthMethod, want.AuthMount = method, method
			require.Equal(t, want, c.Secrets.Vault)
			require.Empty(t, c.Warnings)
			require.Contains(t, c.Settings, config.Setting{Name: "VAULT_AUTH_MOUNT", Value: method, Source: config.FromDefault})

			c = load(t, withVault(), append(changes, "VAULT_AUTH_MOUNT=team/login")...)
			require.Equal(t, "team/login", c.Secrets.Vault.AuthMount)
			for other, o := range logins {
				name, _, _ := strings.Cut(o.env, "=")
				c = load(t, withVault(), append(changes, name+"=r")...)
				if other == method {
					require.Empty(t, c.Warnings)
				} else {
					require.Equal(t, []string{name + " is set but VAULT_AUTH_METHOD=" + method}, c.Warnings)
				}
			}
		})
	}
	v := load(t, withVault(), "VAULT_TOKEN=", "VAULT_AUTH_METHOD=approle", "VAULT_ROLE_ID=r", "VAULT_SECRET_ID_WRAPPED=w").Secrets.Vault
	require.Equal(t, "w", v.SecretIDWrapped.Reveal())
}

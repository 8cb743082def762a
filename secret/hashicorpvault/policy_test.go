package hashicorpvault_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
)

func TestPolicyNamesMountPrefixAndNamespace(t *testing.T) {
	t.Parallel()
	const undecided = "# For KV version 2, which is what Vault mounts at secret. For version 1 set VAULT_KV_VERSION=1.\n"
	for name, c := range map[string]struct {
		config hashicorpvault.Config
		need   secret.Access
		want   string
	}{
		"v2": {hashicorpvault.Config{KVVersion: 2, PathPrefix: "/secret/data/nexus/providers/"}, secret.ReadWrite,
			"path \"secret/data/nexus/providers/*\" {\n  capabilities = [\"create\", \"read\", \"update\"]\n}\n" +
				"path \"secret/metadata/nexus/providers/*\" {\n  capabilities = [\"delete\"]\n}\n"},
		"v2 read-only": {hashicorpvault.Config{KVVersion: 2, Mount: "team/kv"}, secret.ReadOnly,
			"path \"team/kv/data/*\" {\n  capabilities = [\"read\"]\n}\n"},
		"v1": {hashicorpvault.Config{KVVersion: 1, Mount: "kv1", PathPrefix: "a"}, secret.ReadWrite,
			"path \"kv1/a/*\" {\n  capabilities = [\"create\", \"read\", \"update\", \"delete\"]\n}\n"},
		"v1 read-only": {hashicorpvault.Config{KVVersion: 1, Mount: "kv1"}, secret.ReadOnly,
			"path \"kv1/*\" {\n  capabilities = [\"read\"]\n}\n"},
		"version not configured": {hashicorpvault.Config{PathPrefix: "a"}, secret.ReadOnly,
			undecided + "path \"secret/data/a/*\" {\n  capabilities = [\"read\"]\n}\n"},
		"references": {hashicorpvault.Config{KVVersion: 2, PathPrefix: "nexus", ReferencePrefixes: []string{"team-a/", "nexus/google", "team-a/x", "b"}}, secret.ReadOnly,
			"path \"secret/data/nexus/*\" {\n  capabilities = [\"read\"]\n}\n" +
				"path \"secret/data/team-a\" {\n  capabilities = [\"read\"]\n}\npath \"secret/data/team-a/*\" {\n  capabilities = [\"read\"]\n}\n" +
				"path \"secret/data/b\" {\n  capabilities = [\"read\"]\n}\npath \"secret/data/b/*\" {\n  capabilities = [\"read\"]\n}\n"},
		"references v1": {hashicorpvault.Config{KVVersion: 1, Mount: "kv1", PathPrefix: "a", ReferencePrefixes: []string{"team-a"}}, secret.ReadOnly,
			"path \"kv1/a/*\" {\n  capabilities = [\"read\"]\n}\n" +
				"path \"kv1/team-a\" {\n  capabilities = [\"read\"]\n}\npath \"kv1/team-a/*\" {\n  capabilities = [\"read\"]\n}\n"},
		"one namespace": {hashicorpvault.Config{KVVersion: 2, Namespace: "/platform/prod/", PathPrefix: "a"}, secret.ReadOnly,
			"# In the namespace platform/prod.\npath \"secret/data/a/*\" {\n  capabilities = [\"read\"]\n}\n"},
		"login above": {hashicorpvault.Config{KVVersion: 2, Namespace: "platform/prod", AuthNamespace: "platform", PathPrefix: "a"}, secret.ReadOnly,
			"# In the namespace platform.\npath \"prod/secret/data/a/*\" {\n  capabilities = [\"read\"]\n}\n"},
		"login in the root": {hashicorpvault.Config{KVVersion: 2, Namespace: "platform", AuthNamespace: "root", PathPrefix: "a"}, secret.ReadOnly,
			"path \"platform/secret/data/a/*\" {\n  capabilities = [\"read\"]\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			// Nothing listens there: a policy needs no connection.
			c.config.Address, c.config.Login = "http://127.0.0.1:9", hashicorpvault.TokenLogin{Token: secret.NewValue("t")}
			got, err := open(t, c.config, hashicorpvault.Options{}).Policy(t.Context(), c.need)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	for _, prefix := range []string{`a"b`, `a\b`, "a/+/b", "{{identity.entity.id}}"} {
		_, err := open(t, hashicorpvault.Config{
			Address: "http://127.0.0.1:9", PathPrefix: prefix, Login: hashicorpvault.TokenLogin{Token: secret.NewValue("t")},
		}, hashicorpvault.Options{}).Policy(t.Context(), secret.ReadOnly)
		require.ErrorIs(t, err, secret.ErrInvalid, prefix)
	}
	for _, prefix := range []string{`a"b`, "{{identity.entity.id}}", "data/a"} {
		_, err := open(t, hashicorpvault.Config{
			Address: "http://127.0.0.1:9", PathPrefix: "a", ReferencePrefixes: []string{prefix}, Login: hashicorpvault.TokenLogin{Token: secret.NewValue("t")},
		}, hashicorpvault.Options{}).Policy(t.Context(), secret.ReadOnly)
		require.ErrorIs(t, err, secret.ErrInvalid, prefix)
	}
}

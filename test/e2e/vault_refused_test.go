package e2e_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestARefusedVaultLoginEndsTheStart: with a proof that Vault refuses the broker does not
// start, whatever the login; with the right one it does, from the same variables.
func TestARefusedVaultLoginEndsTheStart(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t, servers.VaultTLS())
	v.Policy("nexus", `
path "secret/data/nexus/providers/*"     { capabilities = ["create", "read", "update"] }
path "secret/metadata/nexus/providers/*" { capabilities = ["delete"] }`)
	ca, issuer, cluster, sts := servers.NewAuthority(t), servers.NewIssuer(t), servers.NewKubernetes(t), servers.NewSTS(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	policies := []string{"nexus"}
	roleID, secretID := v.AppRole("broker", policies, nil)
	v.Kubernetes("kubernetes", cluster, "broker", policies, nil)
	v.JWT("jwt", issuer, "broker", policies, nil)
	v.Cert("cert", ca, "broker", policies, nil)
	v.AWS("aws", sts, "broker", policies, nil)
	sts.Credentials("broker", "AKIDBROKER", "CANARY-right", "")
	client := func(name string) env {
		cert, key := ca.Client(name, name)
		return env{"VAULT_CERT_ROLE": "broker", "VAULT_CLIENT_CERT": cert, "VAULT_CLIENT_KEY": key}
	}
	sound := base().with(env{"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": v.Addr, "VAULT_CACERT": v.CAFile})
	for name, login := range map[string]struct{ of, wrong, right env }{
		"approle": {env{"VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": roleID},
			env{"VAULT_SECRET_ID": "CANARY-wrong"}, env{"VAULT_SECRET_ID": secretID}},
		"wrapped": {env{"VAULT_AUTH_METHOD": "approle", "VAULT_ROLE_ID": roleID},
			env{"VAULT_SECRET_ID_WRAPPED": "hvs.CANARY-wrong"}, env{"VAULT_SECRET_ID_WRAPPED": v.WrappedSecretID("broker", time.Hour)}},
		"kubernetes": {env{"VAULT_AUTH_METHOD": "kubernetes", "VAULT_K8S_ROLE": "broker"},
			env{"VAULT_K8S_TOKEN_PATH": file("intruder", cluster.Token("intruder"))}, env{"VAULT_K8S_TOKEN_PATH": file("sa", cluster.Token("broker"))}},
		"jwt": {env{"VAULT_AUTH_METHOD": "jwt", "VAULT_JWT_ROLE": "broker"},
			env{"VAULT_JWT_PATH": file("expired", issuer.Token("broker", -time.Second))}, env{"VAULT_JWT_PATH": file("jwt", issuer.Token("broker", time.Hour))}},
		"aws": {env{"VAULT_AUTH_METHOD": "aws", "VAULT_AWS_ROLE": "broker", "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKIDBROKER"},
			env{"AWS_SECRET_ACCESS_KEY": "CANARY-wrong"}, env{"AWS_SECRET_ACCESS_KEY": "CANARY-right"}},
		"cert": {env{"VAULT_AUTH_METHOD": "cert"}, client("intruder"), client("broker")},
	} {
		t.Run(name, func(t *testing.T) {
			e := sound.with(login.of)
			code, output := exits(t, e.with(login.wrong).with(env{"DATABASE_URL": "sqlite:" + filepath.Join(t.TempDir(), "refused.db")}))
			require.Equal(t, 1, code, output)
			require.Contains(t, output, "login refused")
			require.NotContains(t, output, "CANARY-")
			b := start(t, e.with(login.right).with(env{"DATABASE_URL": "sqlite:" + filepath.Join(t.TempDir(), "broker.db")}))
			b.waitReady(t, "ready", "ok")
			require.NotContains(t, b.log.String(), "CANARY-")
		})
	}
}

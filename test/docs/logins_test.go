package docs_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// logins are the scenarios that set up a login other than AppRole's.
var logins = []string{"wrapped", "kubernetes", "jwt", "aws", "cert"}

// A broker logs in with what the commands of docs/vault.md have set up. The inputs are what
// stands behind Vault: the test's own servers in the place of a cluster, an issuer and AWS.
func TestLogins(t *testing.T) {
	t.Parallel()
	for _, login := range logins {
		t.Run(login, func(t *testing.T) {
			v := servers.Vault(t, servers.VaultTLS())
			v.Policy("nexus-broker", policy(t, "rw-v2"))
			s := newShell(t, map[string]string{})
			e := env{"SECRET_BACKEND": "hashicorp-vault", "VAULT_ADDR": v.Addr, "VAULT_CACERT": v.CAFile, "VAULT_AUTH_METHOD": login}
			write := func(name, content string) string {
				path := filepath.Join(s.dir, name)
				require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
				return path
			}
			switch login {
			case "wrapped":
				role, _ := v.AppRole("nexus-broker", []string{"nexus-broker"}, nil)
				e["VAULT_AUTH_METHOD"], e["VAULT_ROLE_ID"], e["VAULT_SECRET_ID_WRAPPED_FILE"] = "approle", role, filepath.Join(s.dir, "wrapped")
			case "kubernetes":
				cluster := servers.NewKubernetes(t)
				host, authority, reviewer := cluster.Access()
				s.inputs["KUBERNETES_HOST"] = host
				write("ca.crt", authority)
				write("reviewer.jwt", reviewer)
				e["VAULT_K8S_ROLE"], e["VAULT_K8S_TOKEN_PATH"] = "nexus-broker", write("token", cluster.Token("nexus-broker"))
			case "jwt":
				issuer := servers.NewIssuer(t)
				s.inputs["JWKS_URL"], s.inputs["JWT_ISSUER"], s.inputs["JWT_SUBJECT"] = issuer.URL(), issuer.Name(), "nexus-broker"
				e["VAULT_JWT_ROLE"], e["VAULT_JWT_PATH"] = "nexus-broker", write("jwt", issuer.Token("nexus-broker", time.Hour))
			case "aws":
				sts := servers.NewSTS(t)
				sts.Credentials("nexus-broker", "AKIDDOCS", "a secret key", "")
				s.inputs["STS_ENDPOINT"], s.inputs["IAM_ROLE_ARN"] = sts.URL, "arn:aws:iam::123456789012:role/nexus-broker"
				e["VAULT_AWS_ROLE"], e["AWS_REGION"], e["AWS_ACCESS_KEY_ID"], e["AWS_SECRET_ACCESS_KEY"] = "nexus-broker", "eu-central-1", "AKIDDOCS", "a secret key"
			case "cert":
				ca := servers.NewAuthority(t)
				authority, err := os.ReadFile(ca.File)
				require.NoError(t, err)
				write("client-ca.pem", string(authority))
				e["VAULT_CERT_ROLE"] = "nexus-broker"
				e["VAULT_CLIENT_CERT"], e["VAULT_CLIENT_KEY"] = ca.Client("client", "nexus-broker")
			}
			s.send("export VAULT_ADDR=" + v.Addr + " VAULT_TOKEN=" + v.RootToken + " VAULT_CACERT=" + v.CAFile + " SSL_CERT_FILE=" + v.CAFile)
			s.run(scenario(t, login))
			b := start(t, e)
			require.Equal(t, "ready", b.call("GET", "/health/ready", nil).text("status"), b.log.String())
		})
	}
}

package hashicorpvault_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// loginWorld is a real Vault with every login enabled, and what stands behind each.
type loginWorld struct {
	v         *servers.VaultServer
	ca        *servers.Authority
	cert, key string // of the client "broker"
	issuer    *servers.Issuer
	cluster   *servers.Kubernetes
	sts       *servers.STS
}

// The credentials of the AWS SDK in the tests.
const (
	awsKeyID  = "AKIDBROKER"
	awsSecret = "canary-aws-secret-key"
)

func newLoginWorld(t *testing.T) *loginWorld {
	t.Helper()
	w := &loginWorld{
		v: servers.Vault(t, servers.VaultTLS()), ca: servers.NewAuthority(t),
		issuer: servers.NewIssuer(t), cluster: servers.NewKubernetes(t), sts: servers.NewSTS(t),
	}
	w.cert, w.key = w.ca.Client("client", "broker")
	w.sts.Credentials("broker", awsKeyID, awsSecret, "")
	w.v.Policy("rw", readWriteV2)
	w.v.Write("secret/data/nexus/providers/a/b", map[string]any{"data": map[string]any{"value": "v"}})
	return w
}

// setAWS makes the environment of the tests that of a broker with credentials of AWS,
// whatever the machine has.
func setAWS(set func(name, value string)) {
	withoutAWS(set)
	set("AWS_ACCESS_KEY_ID", awsKeyID)
	set("AWS_SECRET_ACCESS_KEY", awsSecret)
	set("AWS_REGION", "eu-central-1")
}

// withoutAWS clears what the environment says about AWS.
func withoutAWS(set func(name, value string)) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "AWS_") {
			set(name, "")
		}
	}
	set("AWS_CONFIG_FILE", os.DevNull)
	set("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	set("AWS_EC2_METADATA_DISABLED", "true")
}

// proxy stands in front of the server and passes the client's certificate on.
func (w *loginWorld) proxy(t *testing.T) *servers.FaultProxy {
	t.Helper()
	return servers.NewTLSFaultProxy(t, w.v.Addr, w.ca, w.cert, w.key)
}

func (w *loginWorld) through(p *servers.FaultProxy, login hashicorpvault.Login) hashicorpvault.Config {
	cfg := below(p, login)
	cfg.TLS = hashicorpvault.TLS{CACertFile: w.ca.File, ClientCertFile: w.cert, ClientKeyFile: w.key}
	return cfg
}

// everyLogin is the table that the tests of all logins share.
var everyLogin = []struct {
	name  string
	mount string // below auth/
	// valid creates a role of this name and returns a login that the server accepts.
	valid func(t *testing.T, w *loginWorld, role string, policies []string, settings map[string]any) hashicorpvault.Login
	// refused returns one that it refuses, and what makes it valid.
	refused func(t *testing.T, w *loginWorld) (l hashicorpvault.Login, mend func())
}{
	{"approle", "approle", func(t *testing.T, w *loginWorld, role string, policies []string, settings map[string]any) hashicorpvault.Login {
		id, secretID := w.v.AppRole(role, policies, settings)
		return hashicorpvault.AppRoleLogin{RoleID: id, SecretID: secret.NewValue(secretID)}
	}, func(t *testing.T, w *loginWorld) (hashicorpvault.Login, func()) {
		id, secretID := w.v.AppRole("mended", []string{"rw"}, nil)
		file := writeFile(t, "secret-id", "canary-wrong")
		return hashicorpvault.AppRoleLogin{RoleID: id, SecretIDFile: file}, func() { replaceFile(t, file, secretID) }
	}},
	{"wrapped", "approle", func(t *testing.T, w *loginWorld, role string, policies []string, settings map[string]any) hashicorpvault.Login {
		id, _ := w.v.AppRole(role, policies, settings)
		return hashicorpvault.AppRoleLogin{RoleID: id, WrappedSecretID: secret.NewValue(w.v.WrappedSecretID(role, time.Hour))}
	}, func(t *testing.T, w *loginWorld) (hashicorpvault.Login, func()) {
		id, _ := w.v.AppRole("unwrapped", []string{"rw"}, nil)
		file := writeFile(t, "wrapped", "hvs.canary-that-was-used")
		return hashicorpvault.AppRoleLogin{RoleID: id, WrappedSecretIDFile: file},
			func() { replaceFile(t, file, w.v.WrappedSecretID("unwrapped", time.Hour)+"\n") }
	}},
	{"kubernetes", "team/k8s", func(t *testing.T, w *loginWorld, role string, policies []string, settings map[string]any) hashicorpvault.Login {
		w.v.Kubernetes("team/k8s", w.cluster, role, policies, settings)
		return hashicorpvault.KubernetesLogin{Mount: "/team/k8s/", Role: role, TokenFile: writeFile(t, "sa", w.cluster.Token("broker")+"\n")}
	}, func(t *testing.T, w *loginWorld) (hashicorpvault.Login, func()) {
		w.v.Kubernetes("team/k8s", w.cluster, "mended", []string{"rw"}, nil)
		file := writeFile(t, "sa", w.cluster.Token("intruder"))
		return hashicorpvault.KubernetesLogin{Mount: "team/k8s", Role: "mended", TokenFile: file},
			func() { replaceFile(t, file, w.cluster.Token("broker")) }
	}},
	{"jwt", "team/jwt", func(t *testing.T, w *loginWorld, role string, policies []string, settings map[string]any) hashicorpvault.Login {
		w.v.JWT("team/jwt", w.issuer, role, policies, settings)
		return hashicorpvault.JWTLogin{Mount: "team/jwt", Role: role, File: writeFile(t, "jwt", w.issuer.Token("broker", time.Hour)+"\n")}
	}, func(t *testing.T, w *loginWorld) (hashicorpvault.Login, func()) {
		w.v.JWT("team/jwt", w.issuer, "mended", []string{"rw"}, nil)
		file := writeFile(t, "jwt", w.issuer.Token("broker", -time.Second))
		return hashicorpvault.JWTLogin{Mount: "team/jwt", Role: "mended", File: file},
			func() { replaceFile(t, file, w.issuer.Token("broker", time.Hour)) }
	}},
	{"aws", "team/aws", func(t *testing.T, w *loginWorld, role string, policies []string, settings map[string]any) hashicorpvault.Login {
		w.v.AWS("team/aws", w.sts, role, policies, settings)
		return hashicorpvault.AWSLogin{Mount: "team/aws", Role: role}
	}, func(t *testing.T, w *loginWorld) (hashicorpvault.Login, func()) {
		w.v.AWS("team/aws", w.sts, "mended", []string{"rw"}, nil)
		w.sts.Credentials("broker", awsKeyID, "another secret key", "")
		return hashicorpvault.AWSLogin{Mount: "team/aws", Role: "mended"},
			func() { w.sts.Credentials("broker", awsKeyID, awsSecret, "") }
	}},
	{"cert", "team/cert", func(t *testing.T, w *loginWorld, role string, policies []string, settings map[string]any) hashicorpvault.Login {
		w.v.Cert("team/cert", w.ca, role, policies, settings)
		return hashicorpvault.CertLogin{Mount: "team/cert", Role: role}
	}, func(t *testing.T, w *loginWorld) (hashicorpvault.Login, func()) {
		w.v.Cert("team/cert", w.ca, "mended", []string{"rw"}, nil)
		w.ca.Client("client", "intruder")
		return hashicorpvault.CertLogin{Mount: "team/cert", Role: "mended"}, func() { w.ca.Client("client", "broker") }
	}},
}

// isLogin selects the login requests.
func isLogin(mount string) servers.Match { return servers.PathIs("/v1/auth/" + mount + "/login") }

package servers

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strconv"
)

// MountKV mounts a KV engine of version 1 or 2 at path and waits until it answers:
// version 2 refuses requests for a moment after it has been mounted.
func (v *VaultServer) MountKV(path string, version int) {
	v.t.Helper()
	v.Write("sys/mounts/"+path, map[string]any{
		"type": "kv", "options": map[string]string{"version": strconv.Itoa(version)},
	})
	probe := path + "/ready"
	if version == 2 {
		probe = path + "/data/ready"
	}
	err := waitFor(v.process, func() error {
		if status, _ := v.Do(http.MethodGet, probe, nil); status != http.StatusNotFound {
			return fmt.Errorf("mount %s answers %d", path, status)
		}
		return nil
	})
	if err != nil {
		v.t.Fatalf("Vault: %v", err)
	}
}

// Policy writes an ACL policy in HCL.
func (v *VaultServer) Policy(name, hcl string) {
	v.t.Helper()
	v.Write("sys/policies/acl/"+name, map[string]any{"policy": hcl})
}

// Token creates a token with the policies and, from settings, further parameters
// of auth/token/create, for example "ttl": "2s".
func (v *VaultServer) Token(policies []string, settings map[string]any) string {
	v.t.Helper()
	body := map[string]any{"policies": policies, "no_parent": true}
	for name, value := range settings {
		body[name] = value
	}
	auth, _ := v.Write("auth/token/create", body)["auth"].(map[string]any)
	return v.text(auth, "client_token")
}

// Revoke revokes a token.
func (v *VaultServer) Revoke(token string) {
	v.t.Helper()
	v.Write("auth/token/revoke", map[string]any{"token": token})
}

// AppRole enables the AppRole method, if it is not enabled yet, creates the role and
// returns its id and a secret id. settings are further parameters of the role, for
// example "token_ttl": "2s".
func (v *VaultServer) AppRole(role string, policies []string, settings map[string]any) (roleID, secretID string) {
	v.t.Helper()
	if auths, _ := v.Read("sys/auth")["data"].(map[string]any); auths["approle/"] == nil {
		v.Write("sys/auth/approle", map[string]any{"type": "approle"})
	}
	body := map[string]any{"token_policies": policies}
	for name, value := range settings {
		body[name] = value
	}
	v.Write("auth/approle/role/"+role, body)
	data, _ := v.Read("auth/approle/role/" + role + "/role-id")["data"].(map[string]any)
	return v.text(data, "role_id"), v.SecretID(role)
}

// SecretID creates another secret id of the role.
func (v *VaultServer) SecretID(role string) string {
	v.t.Helper()
	data, _ := v.Write("auth/approle/role/"+role+"/secret-id", nil)["data"].(map[string]any)
	return v.text(data, "secret_id")
}

// DestroySecretID makes a secret id of the role worthless.
func (v *VaultServer) DestroySecretID(role, secretID string) {
	v.t.Helper()
	v.Write("auth/approle/role/"+role+"/secret-id/destroy", map[string]any{"secret_id": secretID})
}

func (v *VaultServer) text(data map[string]any, field string) string {
	v.t.Helper()
	s, _ := data[field].(string)
	if s == "" {
		v.t.Fatalf("Vault: the answer has no %s", field)
	}
	return s
}

// trust makes the client for the root's requests accept the server's CA.
func (v *VaultServer) trust() error {
	ca, err := os.ReadFile(v.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return fmt.Errorf("no certificate in %s", v.CAFile)
	}
	v.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	return nil
}

package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// EnableAuth mounts a login method at auth/<mount>, unless something is mounted there.
func (v *VaultServer) EnableAuth(mount, method string) {
	v.t.Helper()
	if auths, _ := v.Read("sys/auth")["data"].(map[string]any); auths[mount+"/"] == nil {
		v.Write("sys/auth/"+mount, map[string]any{"type": method})
	}
}

// role writes a role below auth/<path>: settings over what every such role needs.
func (v *VaultServer) role(path string, policies []string, defaults, settings map[string]any) {
	v.t.Helper()
	body := map[string]any{"token_policies": policies}
	maps.Copy(body, defaults)
	maps.Copy(body, settings)
	v.Write("auth/"+path, body)
}

// WrappedSecretID creates another secret id of the role, behind a response-wrapping token
// that lasts for ttl.
func (v *VaultServer) WrappedSecretID(role string, ttl time.Duration) string {
	v.t.Helper()
	return v.wrapped("auth/approle/role/"+role+"/secret-id", nil, ttl)
}

// Wrap returns a response-wrapping token for what was written to sys/wrapping/wrap.
func (v *VaultServer) Wrap(data map[string]any, ttl time.Duration) string {
	v.t.Helper()
	return v.wrapped("sys/wrapping/wrap", data, ttl)
}

func (v *VaultServer) wrapped(path string, body map[string]any, ttl time.Duration) string {
	v.t.Helper()
	_, answer := v.do(http.MethodPost, path, body, http.Header{"X-Vault-Wrap-Ttl": {ttl.String()}})
	info, _ := answer["wrap_info"].(map[string]any)
	return v.text(info, "token")
}

// Issuer issues JSON Web Tokens and publishes its keys.
type Issuer struct {
	t      TB
	signer jose.Signer
	keys   *httptest.Server
	silent atomic.Bool
}

// NewIssuer starts one. It ends with the test.
func NewIssuer(t TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("issuer: %v", err)
	}
	i := &Issuer{t: t}
	if i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil); err != nil {
		t.Fatalf("issuer: %v", err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatalf("issuer: %v", err)
	}
	i.keys = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if i.silent.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(set)
	}))
	t.Cleanup(i.keys.Close)
	return i
}

// URL returns where the keys are, as a JSON Web Key Set.
func (i *Issuer) URL() string { return i.keys.URL }

// Silence makes the keys unavailable, or available again.
func (i *Issuer) Silence(silent bool) { i.silent.Store(silent) }

// Sign returns a token with the claims.
func (i *Issuer) Sign(claims map[string]any) string {
	i.t.Helper()
	token, err := jwt.Signed(i.signer).Claims(claims).Serialize()
	if err != nil {
		i.t.Fatalf("issuer: %v", err)
	}
	return token
}

const issuerName = "https://issuer.test"

// Name returns what the tokens call their issuer.
func (i *Issuer) Name() string { return issuerName }

// Token returns a token for the audience "vault", of the subject, that lasts for ttl.
func (i *Issuer) Token(subject string, ttl time.Duration) string {
	i.t.Helper()
	now := time.Now()
	return i.Sign(map[string]any{
		"iss": issuerName, "aud": "vault", "sub": subject, "jti": serial().String(),
		"iat": now.Add(-time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(ttl).Unix(),
	})
}

// JWT enables the JWT method at auth/<mount>, trusting the issuer, and creates a role for
// the subject "broker".
func (v *VaultServer) JWT(mount string, i *Issuer, role string, policies []string, settings map[string]any) {
	v.t.Helper()
	v.EnableAuth(mount, "jwt")
	v.Write("auth/"+mount+"/config", map[string]any{"jwks_url": i.keys.URL, "bound_issuer": issuerName})
	v.role(mount+"/role/"+role, policies, map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": "broker",
		"clock_skew_leeway": -1, "expiration_leeway": -1, "not_before_leeway": -1,
	}, settings)
}

// Kubernetes is as much of a Kubernetes API server as Vault asks for: it issues the tokens
// of service accounts and reviews them (authentication.k8s.io/v1, TokenReview).
type Kubernetes struct {
	issuer   *Issuer
	api      *httptest.Server
	reviewer string // the token that Vault itself shows to the API server

	mu     sync.Mutex
	issued map[string]string // token → service account
}

// NewKubernetes starts one. It ends with the test.
func NewKubernetes(t TB) *Kubernetes {
	t.Helper()
	k := &Kubernetes{issuer: NewIssuer(t), issued: map[string]string{}}
	k.reviewer = k.issuer.Sign(map[string]any{"sub": "system:serviceaccount:vault:reviewer"})
	k.api = httptest.NewTLSServer(http.HandlerFunc(k.review))
	t.Cleanup(k.api.Close)
	return k
}

// Token returns a projected token of a service account in the namespace "agents".
func (k *Kubernetes) Token(account string) string {
	now := time.Now()
	token := k.issuer.Sign(map[string]any{
		"iat": now.Add(-time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(),
		"iss": "https://kubernetes.default.svc.cluster.local", "aud": []string{"https://kubernetes.default.svc.cluster.local"},
		"sub": "system:serviceaccount:agents:" + account, "jti": serial().String(),
		"kubernetes.io": map[string]any{"namespace": "agents", "serviceaccount": map[string]any{"name": account, "uid": "uid-of-" + account}},
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	k.issued[token] = account
	return token
}

// Access returns what Vault needs to review tokens: the URL of the API server, its
// authority in PEM, and the token of the reviewer.
func (k *Kubernetes) Access() (url, authority, reviewer string) {
	return k.api.URL, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.api.Certificate().Raw})), k.reviewer
}

// Withdraw makes a token invalid, as the deletion of its pod does.
func (k *Kubernetes) Withdraw(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.issued, token)
}

func (k *Kubernetes) review(w http.ResponseWriter, r *http.Request) {
	var review struct {
		Spec struct {
			Token     string   `json:"token"`
			Audiences []string `json:"audiences"`
		} `json:"spec"`
	}
	switch {
	case r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || r.Method != http.MethodPost:
		w.WriteHeader(http.StatusNotFound)
		return
	case r.Header.Get("Authorization") != "Bearer "+k.reviewer:
		w.WriteHeader(http.StatusForbidden)
		return
	case json.NewDecoder(r.Body).Decode(&review) != nil:
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	account, valid := k.issued[review.Spec.Token]
	k.mu.Unlock()
	status := map[string]any{"authenticated": valid}
	if valid {
		status["audiences"] = review.Spec.Audiences
		status["user"] = map[string]any{"username": "system:serviceaccount:agents:" + account, "uid": "uid-of-" + account}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
}

// Kubernetes enables the Kubernetes method at auth/<mount>, with k as its API server, and
// creates a role for the service account "broker".
func (v *VaultServer) Kubernetes(mount string, k *Kubernetes, role string, policies []string, settings map[string]any) {
	v.t.Helper()
	v.EnableAuth(mount, "kubernetes")
	host, authority, reviewer := k.Access()
	v.Write("auth/"+mount+"/config", map[string]any{
		"kubernetes_host": host, "kubernetes_ca_cert": authority, "token_reviewer_jwt": reviewer, "disable_local_ca_jwt": true,
	})
	v.role(mount+"/role/"+role, policies, map[string]any{
		"bound_service_account_names": "broker", "bound_service_account_namespaces": "agents",
	}, settings)
}

// Cert enables the certificate method at auth/<mount> and creates an entry for the client
// certificates of the authority that are issued to "broker".
func (v *VaultServer) Cert(mount string, a *Authority, role string, policies []string, settings map[string]any) {
	v.t.Helper()
	v.EnableAuth(mount, "cert")
	authority, err := os.ReadFile(a.File)
	if err != nil {
		v.t.Fatalf("Vault: %v", err)
	}
	v.role(mount+"/certs/"+role, policies, map[string]any{"certificate": string(authority), "allowed_common_names": "broker"}, settings)
}

// AWS enables the AWS method at auth/<mount>, with s as the STS that it asks, and creates a
// role for the IAM role "broker" of the account of s.
func (v *VaultServer) AWS(mount string, s *STS, role string, policies []string, settings map[string]any) {
	v.t.Helper()
	v.EnableAuth(mount, "aws")
	v.Write("auth/"+mount+"/config/client", map[string]any{"sts_endpoint": s.URL, "max_retries": 0})
	v.role(mount+"/role/"+role, policies, map[string]any{
		"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::" + stsAccount + ":role/broker", "resolve_aws_unique_ids": false,
	}, settings)
}

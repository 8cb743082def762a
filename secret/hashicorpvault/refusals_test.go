package hashicorpvault_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// loginAnswer is an answer to a login, and whether it is a refusal; else it is an outage.
type loginAnswer struct {
	status int
	body   string
	login  bool
}

// answersToEveryLogin are understood alike for each.
var answersToEveryLogin = map[string]loginAnswer{
	"no such auth mount":          {404, `{"errors":["no handler for route \"auth/x/login\""]}`, true},
	"another method's auth mount": {405, `{"errors":["1 error occurred:\n\t* unsupported operation\n\n"]}`, true},
	"denied":                      {403, `{"errors":["permission denied"]}`, true},
	"invalid":                     {400, `{"errors":["invalid role name \"` + canarySecretID + `\""]}`, true},
	"sealed":                      {503, `{"errors":["Vault is sealed"]}`, false},
	"standby":                     {400, `{"errors":["Vault is in standby mode"]}`, false},
	"DR secondary":                {400, `{"errors":["path disabled in replication DR secondary mode"]}`, false},
	"trouble":                     {500, `{"errors":["internal error"]}`, false},
	"HTML 400":                    {400, `<html>`, false},
	"HTML 403":                    {403, `<html>`, false},
	"HTML 200":                    {200, `<html>`, false},
	"no token":                    {200, `{"request_id":"1","auth":{"client_token":""}}`, false},
	"no auth":                     {200, `{"request_id":"1","data":{}}`, false},
	"a header in the token":       {200, `{"request_id":"1","auth":{"client_token":"a\nb"}}`, false},
}

// wireLogin is a login at a server that the test plays.
type wireLogin struct {
	name    string
	login   func(t *testing.T, mount string) hashicorpvault.Login
	answers map[string]loginAnswer
	// body checks what is presented.
	body func(t *testing.T, body map[string]string)
}

var wireLogins = []wireLogin{
	{"approle", func(_ *testing.T, mount string) hashicorpvault.Login {
		return hashicorpvault.AppRoleLogin{Mount: mount, RoleID: "r", SecretID: secret.NewValue(canarySecretID)}
	}, map[string]loginAnswer{
		"Vault 1.13, wrong secret id": {500, `{"errors":["invalid secret id"]}`, true},
		"Vault 1.21, wrong secret id": {400, `{"errors":["invalid role or secret ID"]}`, true},
		"wrong role id":               {400, `{"errors":["invalid role ID"]}`, true},
		"with the secret id in it":    {400, `{"errors":["invalid secret_id \"` + canarySecretID + `\""]}`, true},
		"CIDR":                        {500, `{"errors":["source address \"127.0.0.1\" unauthorized through CIDR restrictions"]}`, true},
	}, func(t *testing.T, body map[string]string) {
		if body["role_id"] != "r" || body["secret_id"] != canarySecretID || len(body) != 2 {
			t.Errorf("it presents %d fields", len(body))
		}
	}},
	{"kubernetes", func(t *testing.T, mount string) hashicorpvault.Login {
		return hashicorpvault.KubernetesLogin{Mount: mount, Role: "r", TokenFile: writeFile(t, "sa", canarySecretID+"\n")}
	}, map[string]loginAnswer{
		"not configured":     {500, `{"errors":["could not load backend configuration"]}`, true},
		"no service account": {500, `{"errors":["service account namespace and name must be set"]}`, true},
		"another namespace":  {403, `{"errors":["namespace not authorized"]}`, true},
	}, wantJWT},
	{"jwt", func(t *testing.T, mount string) hashicorpvault.Login {
		return hashicorpvault.JWTLogin{Mount: mount, Role: "r", File: writeFile(t, "jwt", canarySecretID+"\n")}
	}, map[string]loginAnswer{
		"expired":            {400, `{"errors":["error validating token: invalid expiration time (exp) claim: token is expired"]}`, true},
		"the keys are away":  {400, `{"errors":["error validating token: failed to verify signature: fetching keys oidc: get keys failed: 502"]}`, false},
		"discovery is away":  {400, `{"errors":["error configuring token validator: keyset configuration error: dial tcp: connection refused"]}`, false},
		"a claim is missing": {400, `{"errors":["error validating claims: claim \"x\" is missing"]}`, true},
	}, wantJWT},
	{"aws", func(_ *testing.T, mount string) hashicorpvault.Login {
		return hashicorpvault.AWSLogin{Mount: mount, Role: "r"}
	}, map[string]loginAnswer{
		"another principal": {400, `{"errors":["IAM Principal \"arn:aws:sts::1:assumed-role/x/y\" does not belong to the role \"r\""]}`, true},
		"a wrong signature": {400, `{"errors":["error making upstream request: received error code 403 from STS: <Code>SignatureDoesNotMatch</Code>"]}`, true},
		"STS is away":       {400, `{"errors":["error making upstream request: error making request: Post \"https://sts.amazonaws.com//\": dial tcp: i/o timeout"]}`, false},
		"STS in trouble":    {400, `{"errors":["error making upstream request: received error code 503 from STS: "]}`, false},
		"STS throttles":     {400, `{"errors":["error making upstream request: received error code 400 from STS: <Code>Throttling</Code>"]}`, false},
		"not STS":           {400, `{"errors":["error making upstream request: body of GetCallerIdentity is invalid"]}`, false},
	}, wantSigned},
	{"cert", func(_ *testing.T, mount string) hashicorpvault.Login {
		return hashicorpvault.CertLogin{Mount: mount, Role: "r"}
	}, map[string]loginAnswer{
		"another authority":   {400, `{"errors":["invalid certificate or no client certificate supplied"]}`, true},
		"a bad chain":         {500, `{"errors":["failed to verify client's certificate: x509: certificate specifies an incompatible key usage"]}`, true},
		"no certificate":      {500, `{"errors":["no client certificate found"]}`, true},
		"TLS ended before it": {500, `{"errors":["tls connection not found"]}`, true},
	}, func(t *testing.T, body map[string]string) {
		if body["name"] != "r" || len(body) != 1 {
			t.Errorf("it presents %v", body)
		}
	}},
}

func wantJWT(t *testing.T, body map[string]string) {
	if body["role"] != "r" || body["jwt"] != canarySecretID || len(body) != 2 {
		t.Errorf("it presents %d fields", len(body))
	}
}

// wantSigned checks the AWS login as the real STS would: with a verification of the
// signature that is not the SDK's.
func wantSigned(t *testing.T, body map[string]string) {
	decode := func(field string) string {
		b, err := base64.StdEncoding.DecodeString(body[field])
		if err != nil {
			t.Errorf("%s: %v", field, err)
		}
		return string(b)
	}
	var header http.Header
	if err := json.Unmarshal([]byte(decode("iam_request_headers")), &header); err != nil || body["role"] != "r" || len(body) != 5 {
		t.Errorf("the headers are %q: %v", decode("iam_request_headers"), err)
	}
	for name := range header { // Vault refuses others that begin with X-Amz
		if name != "Authorization" && name != "Content-Type" && name != "X-Amz-Date" && name != "X-Amz-Security-Token" {
			t.Errorf("it sends the header %s", name)
		}
	}
	sts := servers.NewSTS(t)
	sts.Credentials("broker", awsKeyID, awsSecret, "session-token")
	at, err := url.Parse(decode("iam_request_url"))
	if err != nil || at.Host != wantSTS.host || at.Path != "/" || at.RawQuery != "" {
		t.Errorf("the URL is %s: %v", at, err)
	}
	req, err := http.NewRequest(body["iam_http_request_method"], sts.URL+"//", strings.NewReader(decode("iam_request_body")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header, req.Host = header, at.Host
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || !strings.Contains(header.Get("Authorization"), "/"+wantSTS.region+"/sts/") {
		t.Errorf("STS answers %s %s to %s", resp.Status, text, header.Get("Authorization"))
	}
}

// wantSTS is what the environment of a test says about STS.
var wantSTS struct{ host, region string }

func signWith(t *testing.T, host, region string, variables map[string]string) {
	withoutAWS(t.Setenv)
	t.Setenv("AWS_ACCESS_KEY_ID", awsKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", awsSecret)
	t.Setenv("AWS_SESSION_TOKEN", "session-token")
	for name, value := range variables {
		t.Setenv(name, value)
	}
	wantSTS.host, wantSTS.region = host, region
}

// wireVault plays a Vault over TLS.
type wireVault struct {
	cfg hashicorpvault.Config

	mu     sync.Mutex
	logins []*http.Request
	bodies []map[string]string
}

func newWireVault(t *testing.T, handler http.HandlerFunc) *wireVault {
	t.Helper()
	w := &wireVault{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/auth/") && strings.HasSuffix(r.URL.Path, "/login") {
			var body map[string]string
			_ = json.NewDecoder(r.Body).Decode(&body) // what is no such object shows
			w.mu.Lock()
			w.logins, w.bodies = append(w.logins, r), append(w.bodies, body)
			w.mu.Unlock()
		}
		handler(rw, r)
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	cert, key := servers.NewAuthority(t).Client("client", "broker")
	w.cfg = hashicorpvault.Config{Address: srv.URL, KVVersion: 2, TLS: hashicorpvault.TLS{
		CACertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), ClientCertFile: cert, ClientKeyFile: key,
	}}
	return w
}

func TestWhatARefusedLoginLooksLike(t *testing.T) {
	signWith(t, "", "", map[string]string{"AWS_REGION": "eu-central-1"})
	for _, l := range wireLogins {
		t.Run(l.name, func(t *testing.T) {
			var given loginAnswer
			w := newWireVault(t, func(rw http.ResponseWriter, _ *http.Request) { answer(rw, given.status, given.body) })
			for _, answers := range []map[string]loginAnswer{answersToEveryLogin, l.answers} {
				for name, a := range answers {
					given = a
					w.cfg.Login = l.login(t, "")
					b := open(t, w.cfg, hashicorpvault.Options{})
					want := secret.ErrUnavailable
					if a.login {
						want = secret.ErrDenied
					}
					_, get := b.Get(t.Context(), "a/b")
					for _, err := range []error{get, b.Probe(t.Context(), secret.ReadOnly)} {
						if !isOnly(t, err, want) || errors.Is(err, secret.ErrLogin) != a.login || strings.Contains(err.Error(), "canary") {
							t.Errorf("%s: %v", name, err)
						}
					}
				}
			}
		})
	}
}

func TestEveryLoginAtTheWire(t *testing.T) {
	signWith(t, "sts.eu-central-1.amazonaws.com", "eu-central-1", map[string]string{"AWS_REGION": "eu-central-1"})
	for _, l := range wireLogins {
		for mount, path := range map[string]string{"": "auth/" + l.name + "/login", "/team/x/": "auth/team/x/login"} {
			t.Run(l.name+" "+path, func(t *testing.T) {
				w := newWireVault(t, func(rw http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/login") {
						answer(rw, 200, `{"request_id":"1","auth":{"client_token":"hvs.t","lease_duration":3600,"renewable":true}}`)
						return
					}
					oneSecret(rw, r)
				})
				w.cfg.Login, w.cfg.Namespace, w.cfg.AuthNamespace = l.login(t, mount), "kv-ns", "login-ns"
				wantV(t, open(t, w.cfg, hashicorpvault.Options{}), "at the wire")
				if len(w.logins) != 1 {
					t.Fatalf("%d logins", len(w.logins))
				}
				r := w.logins[0]
				if r.URL.Path != "/v1/"+path || r.Header.Get("X-Vault-Namespace") != "login-ns" || r.Header.Get("X-Vault-Token") != "" {
					t.Errorf("it logs in at %s in the namespace %q", r.URL.Path, r.Header.Get("X-Vault-Namespace"))
				}
				l.body(t, w.bodies[0])
			})
		}
	}
}

// The region and the endpoint of STS are the SDK's; without any they are Vault's defaults.
func TestWhatTheAWSLoginSigns(t *testing.T) {
	for name, test := range map[string]struct {
		host, region string
		variables    map[string]string
	}{
		"nothing said":          {"sts.amazonaws.com", "us-east-1", nil},
		"a region":              {"sts.ap-south-1.amazonaws.com", "ap-south-1", map[string]string{"AWS_REGION": "ap-south-1"}},
		"China":                 {"sts.cn-north-1.amazonaws.com.cn", "cn-north-1", map[string]string{"AWS_REGION": "cn-north-1"}},
		"FIPS":                  {"sts-fips.us-west-2.amazonaws.com", "us-west-2", map[string]string{"AWS_REGION": "us-west-2", "AWS_USE_FIPS_ENDPOINT": "true"}},
		"an endpoint":           {"sts.vpc.example.com", "eu-west-1", map[string]string{"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_STS": "https://sts.vpc.example.com"}},
		"an endpoint, no more":  {"sts.vpc.example.com", "us-east-1", map[string]string{"AWS_ENDPOINT_URL_STS": "https://sts.vpc.example.com/"}},
		"an endpoint for all":   {"aws.example.com", "eu-west-1", map[string]string{"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "https://aws.example.com"}},
		"the old region's name": {"sts.us-east-1.amazonaws.com", "us-east-1", map[string]string{"AWS_REGION": "us-east-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			signWith(t, test.host, test.region, test.variables)
			w := newWireVault(t, func(rw http.ResponseWriter, _ *http.Request) { answer(rw, 403, `{"errors":["permission denied"]}`) })
			w.cfg.Login = hashicorpvault.AWSLogin{Role: "r"}
			if _, err := open(t, w.cfg, hashicorpvault.Options{}).Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrLogin) {
				t.Fatal(err)
			}
			wantSigned(t, w.bodies[0])
		})
	}
}

// A machine without AWS credentials is no refusal of Vault's: it may get some.
func TestNoAWSCredentials(t *testing.T) {
	withoutAWS(t.Setenv)
	w := newWireVault(t, func(rw http.ResponseWriter, _ *http.Request) { answer(rw, 500, `{"errors":["x"]}`) })
	w.cfg.Login = hashicorpvault.AWSLogin{}
	check := func(why, says string) {
		t.Helper()
		_, err := open(t, w.cfg, hashicorpvault.Options{}).Get(t.Context(), "a/b")
		if !isOnly(t, err, secret.ErrUnavailable) || errors.Is(err, secret.ErrLogin) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", why, err)
		}
	}
	check("none", "finds no credentials")
	t.Setenv("AWS_PROFILE", "canary")
	check("a profile that is not there", "cannot read its configuration")
	if len(w.logins) != 0 {
		t.Errorf("%d logins", len(w.logins))
	}
}

func TestLoginsThatCannotWork(t *testing.T) {
	t.Parallel()
	cert, key := servers.NewAuthority(t).Client("client", "broker")
	pair := hashicorpvault.TLS{ClientCertFile: cert, ClientKeyFile: key}
	for says, cfg := range map[string]hashicorpvault.Config{
		"the Kubernetes role is missing":          {Login: hashicorpvault.KubernetesLogin{}},
		"Kubernetes mount":                        {Login: hashicorpvault.KubernetesLogin{Role: "r", Mount: "a/../b"}},
		"the file of the JWT is missing":          {Login: hashicorpvault.JWTLogin{Role: "r"}},
		"JWT mount":                               {Login: hashicorpvault.JWTLogin{File: "/f", Mount: "a\n"}},
		"AWS mount":                               {Login: hashicorpvault.AWSLogin{Mount: ".."}},
		"certificate mount":                       {TLS: pair, Login: hashicorpvault.CertLogin{Mount: ".."}},
		"needs a client certificate and its key":  {Login: hashicorpvault.CertLogin{}},
		"needs an https address":                  {Address: "http://v", TLS: pair, Login: hashicorpvault.CertLogin{}},
		"given twice, wrapped and as it is":       {Login: hashicorpvault.AppRoleLogin{RoleID: "r", SecretIDFile: "/f", WrappedSecretID: secret.NewValue("canary")}},
		"the wrapping token is given twice":       {Login: hashicorpvault.AppRoleLogin{RoleID: "r", WrappedSecretIDFile: "/f", WrappedSecretID: secret.NewValue("canary")}},
		"the wrapping token has a character that": {Login: hashicorpvault.AppRoleLogin{RoleID: "r", WrappedSecretID: secret.NewValue("canary\n")}},
	} {
		if cfg.Address == "" {
			cfg.Address = "https://vault.example.com"
		}
		_, err := hashicorpvault.New(cfg, hashicorpvault.Options{})
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", says, err)
		}
	}
}

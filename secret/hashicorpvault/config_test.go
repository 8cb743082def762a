package hashicorpvault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

const (
	canaryToken    = "hvs.canary-token"
	canarySecretID = "canary-secret-id"
	somebody       = "somebody" // an owner
)

var staticToken = hashicorpvault.TokenLogin{Token: secret.NewValue(canaryToken)}

// fakeVault answers every request with handler and records the requests.
type fakeVault struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
}

func newFakeVault(t *testing.T, handler http.HandlerFunc) *fakeVault {
	t.Helper()
	f := &fakeVault{}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r.Clone(context.Background()))
		f.mu.Unlock()
		handler(w, r)
	}))
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.Start()
	t.Cleanup(f.Close)
	return f
}

// seen returns the requests for path, all if it is "".
func (f *fakeVault) seen(path string) []*http.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []*http.Request
	for _, r := range f.requests {
		if path == "" || r.URL.Path == path {
			found = append(found, r)
		}
	}
	return found
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// oneSecret answers reads of KV version 2 with the value "v".
func oneSecret(w http.ResponseWriter, _ *http.Request) {
	answer(w, 200, `{"request_id":"1","data":{"data":{"value":"v"},"metadata":{"version":1}}}`)
}

func TestNewListsEveryProblemOfTheConfiguration(t *testing.T) {
	t.Parallel()
	_, err := hashicorpvault.New(hashicorpvault.Config{
		Address: "vault:8200", Mount: "a/../b", PathPrefix: "x\ny", KVVersion: 3,
		Login: hashicorpvault.AppRoleLogin{SecretID: secret.NewValue(canarySecretID), SecretIDFile: "/f"},
		TLS:   hashicorpvault.TLS{ClientCertFile: "/c"},
	}, hashicorpvault.Options{})
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range []string{"address", "mount", "path prefix", "KV version 3", "role id is missing", "secret id is given twice", "client certificate"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q:\n%v", part, err)
		}
	}
	if strings.Contains(err.Error(), canarySecretID) {
		t.Errorf("the error shows the secret id: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := func() hashicorpvault.Config {
		return hashicorpvault.Config{Address: "https://vault.example.com:8200", Login: staticToken}
	}
	if _, err := hashicorpvault.New(good(), hashicorpvault.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*hashicorpvault.Config){
		"no address":              func(c *hashicorpvault.Config) { c.Address = "" },
		"an address with a user":  func(c *hashicorpvault.Config) { c.Address = "https://u:canary@vault" },
		"an address with a query": func(c *hashicorpvault.Config) { c.Address = "https://vault?token=canary" },
		"a broken address":        func(c *hashicorpvault.Config) { c.Address = "https://u:canary@[vault" },
		"another scheme":          func(c *hashicorpvault.Config) { c.Address = "unix:///canary" },
		"no login":                func(c *hashicorpvault.Config) { c.Login = nil },
		"no token":                func(c *hashicorpvault.Config) { c.Login = hashicorpvault.TokenLogin{} },
		"a pasted token": func(c *hashicorpvault.Config) {
			c.Login = hashicorpvault.TokenLogin{Token: secret.NewValue("canary\n")}
		},
		"a missing CA":        func(c *hashicorpvault.Config) { c.TLS.CACertFile = "/does/not/exist" },
		"a missing CA folder": func(c *hashicorpvault.Config) { c.TLS.CACertDir = "/does/not/exist" },
		"a CA that is none":   func(c *hashicorpvault.Config) { c.TLS.CACertPEM = []byte("canary") },
		"a missing client certificate": func(c *hashicorpvault.Config) {
			c.TLS.ClientCertFile, c.TLS.ClientKeyFile = "/does/not/exist", "/does/not/exist"
		},
		"a header in the namespace": func(c *hashicorpvault.Config) { c.Namespace = "a\r\nX-Vault-Token: b" },
	} {
		cfg := good()
		change(&cfg)
		_, err := hashicorpvault.New(cfg, hashicorpvault.Options{})
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "canary") || !strings.HasPrefix(err.Error(), "hashicorp-vault: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		mount, prefix string
		version       int
		want          string
	}{
		{"", "", 0, "secret/g/client_id"},
		{"secret", "nexus/providers", 0, "secret/nexus/providers/g/client_id"},
		{"/secret/", "//nexus//providers/ ", 2, "secret/nexus/providers/g/client_id"},
		{"secret", "data/nexus", 0, "secret/nexus/g/client_id"},
		{"secret", "metadata/nexus", 2, "secret/nexus/g/client_id"},
		{"secret", "secret/data/nexus", 2, "secret/nexus/g/client_id"},
		{"team/kv", "/v1/team/kv/data/nexus", 0, "team/kv/nexus/g/client_id"},
		{"nexus", "nexus/providers", 0, "nexus/nexus/providers/g/client_id"},
		{"secret", "nexus/data/x", 0, "secret/nexus/data/x/g/client_id"},
		{"secret", "data/nexus", 1, "secret/data/nexus/g/client_id"},
		{"secret", "v1/nexus", 0, "secret/v1/nexus/g/client_id"},
	} {
		b := open(t, hashicorpvault.Config{
			Address: "http://127.0.0.1:1", Mount: test.mount, PathPrefix: test.prefix, KVVersion: test.version, Login: staticToken,
		}, hashicorpvault.Options{})
		if got := b.Locate("g/client_id"); got != test.want {
			t.Errorf("mount %q, prefix %q: %s, want %s", test.mount, test.prefix, got, test.want)
		}
	}
}

func TestTheEnvironmentChangesNothing(t *testing.T) {
	elsewhere := newFakeVault(t, oneSecret)
	for name, value := range map[string]string{
		"VAULT_ADDR": elsewhere.URL, "VAULT_AGENT_ADDR": elsewhere.URL, "VAULT_PROXY_ADDR": elsewhere.URL, "VAULT_HTTP_PROXY": elsewhere.URL,
		"VAULT_TOKEN": "hvs.environment", "VAULT_NAMESPACE": "environment", "VAULT_HEADERS": `{"X-Environment":"1"}`,
		"VAULT_WRAP_TTL": "60", "VAULT_CLIENT_TIMEOUT": "1ns", "VAULT_MAX_RETRIES": "9", "VAULT_RATE_LIMIT": "0.001:1",
		"VAULT_DISABLE_REDIRECTS": "true", "VAULT_SRV_LOOKUP": "true", "VAULT_SKIP_VERIFY": "true",
	} {
		t.Setenv(name, value)
	}
	v := newFakeVault(t, oneSecret)
	b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
	for range 3 {
		if _, err := b.Get(t.Context(), "a/b"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(elsewhere.seen("")); n != 0 {
		t.Errorf("%d requests went where the environment says", n)
	}
	for _, r := range v.seen("") {
		if got := r.Header.Get("X-Vault-Token"); got != canaryToken {
			t.Errorf("the token is %q", got)
		}
		for _, h := range []string{"X-Vault-Namespace", "X-Environment", "X-Vault-Wrap-Ttl"} {
			if r.Header.Get(h) != "" {
				t.Errorf("the environment has set the header %s", h)
			}
		}
	}
	secure := newTLSServer(t, nil, oneSecret)
	b = open(t, hashicorpvault.Config{Address: secure.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrUnavailable) {
		t.Errorf("the environment has switched verification off: %v", err)
	}
}

func TestAnEnvironmentThatTheLibraryCannotReadIsReported(t *testing.T) {
	t.Setenv("VAULT_PROXY_ADDR", "http://u:canary@[proxy")
	_, err := hashicorpvault.New(hashicorpvault.Config{Address: "https://vault", Login: staticToken}, hashicorpvault.Options{})
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("the error is %v", err)
	}
}

func TestNewNeedsNoServerAndFirstUseFindsIt(t *testing.T) {
	t.Parallel()
	var up sync.Mutex
	v := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
		if !up.TryLock() {
			panic(http.ErrAbortHandler)
		}
		up.Unlock()
		switch r.URL.Path {
		case "/v1/sys/internal/ui/mounts/secret":
			answer(w, 200, `{"request_id":"1","data":{"type":"kv","path":"secret/","options":{"version":"2"}}}`)
		case "/v1/auth/approle/login":
			answer(w, 200, `{"request_id":"1","auth":{"client_token":"t","lease_duration":3600,"renewable":true}}`)
		default:
			oneSecret(w, r)
		}
	})
	up.Lock()
	b := open(t, hashicorpvault.Config{Address: v.URL, Login: hashicorpvault.AppRoleLogin{RoleID: "r"}}, hashicorpvault.Options{})
	if n := len(v.seen("")); n != 0 {
		t.Errorf("New has sent %d requests", n)
	}
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrUnavailable) {
		t.Errorf("while the server is down: %v", err)
	}
	up.Unlock()
	if v, err := b.Get(t.Context(), "a/b"); err != nil || v != "v" {
		t.Errorf("after the server has come: %q, %v", v, err)
	}
}

func TestNothingShowsTheTokenOrTheSecretID(t *testing.T) {
	t.Parallel()
	v := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/login"):
			answer(w, 200, `{"request_id":"1","auth":{"client_token":"`+canaryToken+`","lease_duration":3600,"renewable":true}}`)
		case strings.HasSuffix(r.URL.Path, "/bad"):
			answer(w, 400, `{"errors":["invalid token `+canaryToken+` and `+canarySecretID+`"]}`)
		default:
			oneSecret(w, r)
		}
	})
	var out servers.Log // safe for concurrent use
	logger := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, login := range []hashicorpvault.Login{
		hashicorpvault.AppRoleLogin{RoleID: "r", SecretID: secret.NewValue(canarySecretID)}, staticToken,
	} {
		cfg := hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: login}
		b := open(t, cfg, hashicorpvault.Options{Logger: logger, OnLogin: func(err error) { fmt.Fprintln(&out, err) }})
		_, err := b.Get(t.Context(), "a/good")
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Get(t.Context(), "a/bad")
		for _, x := range []any{b, cfg, login, err, struct{ a, B any }{b, cfg}} {
			fmt.Fprintf(&out, "%v %+v %#v %s %q %x", x, x, x, x, x, x)
			slog.New(slog.NewTextHandler(&out, nil)).Info("x", "x", x)
			if j, err := json.Marshal(x); err == nil {
				_, _ = out.Write(j)
			}
		}
	}
	for _, canary := range []string{canaryToken, canarySecretID, fmt.Sprintf("%x", canaryToken), fmt.Sprintf("%x", canarySecretID)} {
		if strings.Contains(out.String(), canary) {
			t.Errorf("%s is shown in\n%s", canary, out.String())
		}
	}
}

func TestASingleRequestEndsWithoutADeadline(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	v := newFakeVault(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{Timeout: 50 * time.Millisecond})
	if _, err := b.Get(context.Background(), "a/b"); !errors.Is(err, secret.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}

func TestProblemsAreListedInOneOrder(t *testing.T) {
	t.Parallel()
	const up = ".."
	var first string
	for range 20 {
		_, err := hashicorpvault.New(hashicorpvault.Config{Mount: up, PathPrefix: up, Namespace: up, AuthNamespace: up}, hashicorpvault.Options{})
		if err == nil {
			t.Fatal("no error")
		}
		if first == "" {
			first = err.Error()
		}
		if err.Error() != first {
			t.Fatalf("%v\nand\n%s", err, first)
		}
	}
}

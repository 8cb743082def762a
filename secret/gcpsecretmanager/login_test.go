package gcpsecretmanager_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

// google stands in for Google's token services: whatever host is asked, it answers.
type google struct {
	*httptest.Server
	status  atomic.Int64 // of the refusal, 0 for none
	tokens  atomic.Int64 // of oauth2.googleapis.com
	borrows atomic.Int64 // of iamcredentials.googleapis.com
}

const robot = "broker@test-project.iam.gserviceaccount.com"

func startGoogle(t *testing.T) *google {
	t.Helper()
	g := &google{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if s := int(g.status.Load()); s != 0 {
			w.WriteHeader(s)
			fmt.Fprintf(w, `{"error":"invalid_grant","error_description":%q}`, gcpserver.ForeignText)
			return
		}
		switch {
		case r.Host == "oauth2.googleapis.com":
			g.tokens.Add(1)
			fmt.Fprint(w, `{"access_token":"base-token","token_type":"Bearer","expires_in":3600}`)
		case r.Host == "iamcredentials.googleapis.com" && strings.HasSuffix(r.URL.Path, robot+":generateAccessToken"):
			if r.Header.Get("Authorization") != "Bearer base-token" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			g.borrows.Add(1)
			_ = json.NewEncoder(w).Encode(map[string]string{"accessToken": "robot-token", "expireTime": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(g.Close)
	return g
}

// client sends everything to g.
func (g *google) client() *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Host = r.URL.Host
		r.URL.Scheme, r.URL.Host = "http", strings.TrimPrefix(g.URL, "http://")
		return http.DefaultTransport.RoundTrip(r)
	})}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// withoutGoogle clears what the environment of the tests may say.
func withoutGoogle(t *testing.T) {
	t.Helper()
	for _, name := range []string{"GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_QUOTA_PROJECT", "GOOGLE_CLOUD_UNIVERSE_DOMAIN", "GOOGLE_API_USE_CLIENT_CERTIFICATE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GCE_METADATA_HOST", "127.0.0.1:1")
}

// credentials writes the file of a user's login, and makes it the default.
func credentials(t *testing.T, content string) {
	t.Helper()
	withoutGoogle(t)
	path := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
}

const userCredentials = `{"type":"authorized_user","client_id":"i","client_secret":"s","refresh_token":"r","quota_project_id":"payer"}`

// openTLS returns a backend that logs in at g and speaks TLS to s.
func openTLS(t *testing.T, s *gcpserver.Server, g *google, account string) *gcpsecretmanager.GCPBackend {
	return open(t, nil, gcpsecretmanager.Config{ImpersonateServiceAccount: account}, gcpsecretmanager.Options{
		Endpoint: s.Addr, RootCAs: s.RootCAs, LoginClient: g.client(),
	})
}

func TestApplicationDefaultCredentials(t *testing.T) {
	credentials(t, userCredentials)
	s, g := gcpserver.StartTLS(t), startGoogle(t)
	s.RequireToken("base-token")
	b := openTLS(t, s, g, "")
	if g.tokens.Load() != 0 || len(s.Calls()) != 0 {
		t.Error("New sends requests")
	}
	for range 5 {
		set(t, b, fmt.Sprint(time.Now()))
	}
	if g.tokens.Load() != 1 {
		t.Errorf("%d logins for many calls", g.tokens.Load())
	}
	if err := b.Probe(t.Context(), secret.ReadWrite); err != nil {
		t.Error(err)
	}
}

func TestImpersonation(t *testing.T) {
	credentials(t, userCredentials)
	s, g := gcpserver.StartTLS(t), startGoogle(t)
	s.RequireToken("robot-token")
	b := openTLS(t, s, g, robot)
	for range 5 {
		set(t, b, fmt.Sprint(time.Now()))
	}
	if g.borrows.Load() != 1 {
		t.Errorf("%d tokens were borrowed for many calls", g.borrows.Load())
	}
	g.status.Store(http.StatusForbidden)
	_, err := openTLS(t, s, g, robot).Get(t.Context(), key)
	if !isOnly(t, err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) || !strings.Contains(err.Error(), "serviceAccountTokenCreator") {
		t.Errorf("%v", err)
	}
	wantQuiet(t, err)
}

func TestALoginThatFails(t *testing.T) {
	s, g := gcpserver.StartTLS(t), startGoogle(t)
	s.RequireToken("base-token")
	for _, test := range []struct {
		what, file string
		status     int
		want       error
		says       string
	}{
		{"refused", userCredentials, 400, secret.ErrDenied, "refuses"},
		{"refused", userCredentials, 401, secret.ErrDenied, "refuses"},
		{"throttled", userCredentials, 429, secret.ErrUnavailable, "token service"},
		{"out", userCredentials, 503, secret.ErrUnavailable, "token service"},
		{"no JSON", "canary", 0, secret.ErrDenied, "cannot be read"},
		{"no known type", `{"type":"canary"}`, 0, secret.ErrDenied, "cannot be read"},
	} {
		t.Run(fmt.Sprint(test.what, " ", test.status), func(t *testing.T) {
			credentials(t, test.file)
			g.status.Store(int64(test.status))
			b := openTLS(t, s, g, "")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for op, err := range map[string]error{"get": second(b.Get(ctx, key)), "probe": b.Probe(ctx, secret.ReadOnly)} {
				if errors.Is(err, context.DeadlineExceeded) && test.status >= 429 {
					continue // the library tries again for as long as it may
				}
				if !isOnly(t, err, test.want) || errors.Is(err, secret.ErrLogin) != errors.Is(test.want, secret.ErrDenied) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("%s: %v", op, err)
				}
				wantQuiet(t, err)
			}
			g.status.Store(0)
			if test.file == userCredentials {
				wait(t, "a login that works again", func() bool { _, err := b.Get(t.Context(), key); return isOnly(t, err, secret.ErrNotFound) })
			}
		})
	}
	credentials(t, userCredentials)
	s.RequireToken("another")
	if _, err := openTLS(t, s, g, "").Get(t.Context(), key); !isOnly(t, err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) {
		t.Errorf("a token that Google does not accept: %v", err)
	}
}

// TestAMetadataServerThatComesLater starts a backend while nothing gives credentials, as
// a pod does whose metadata server is not up yet.
func TestAMetadataServerThatComesLater(t *testing.T) {
	withoutGoogle(t)
	var up atomic.Bool
	m := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !up.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Header.Get("Metadata-Flavor") == "Google" && strings.HasSuffix(r.URL.Path, "/service-accounts/default/token"):
			w.Header().Set("Metadata-Flavor", "Google")
			fmt.Fprint(w, `{"access_token":"pod-token","token_type":"Bearer","expires_in":3600}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(m.Close)
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(m.URL, "http://"))
	s, g := gcpserver.StartTLS(t), startGoogle(t)
	s.RequireToken("pod-token")
	b := openTLS(t, s, g, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := b.Get(ctx, key); !isOnly(t, err, secret.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it is away: %v", err)
	}
	up.Store(true)
	wait(t, "a login", func() bool { _, err := b.Get(t.Context(), key); return isOnly(t, err, secret.ErrNotFound) })
}

func TestTLSIsVerified(t *testing.T) {
	credentials(t, userCredentials)
	s, g := gcpserver.StartTLS(t), startGoogle(t)
	b := open(t, nil, gcpsecretmanager.Config{}, gcpsecretmanager.Options{Endpoint: s.Addr, LoginClient: g.client()})
	if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("without the authority: %v", err)
	}
	if len(s.Calls()) != 0 {
		t.Errorf("it has sent %v", s.Calls())
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	for says, cfg := range map[string]gcpsecretmanager.Config{
		"the project must be":             {ProjectID: "No Project"},
		"the prefix must be":              {ProjectID: "my-project", Prefix: "a/b"},
		"a region looks like":             {ProjectID: "my-project", Locations: []string{"mars"}},
		"give one of the two":             {ProjectID: "my-project", Locations: []string{"europe-west3"}, Location: "europe-west3"},
		"the KMS key must read":           {ProjectID: "my-project", KMSKey: "k"},
		"must lie in the location global": {ProjectID: "my-project", KMSKey: berlinKey},
		"must lie in europe-west3":        {ProjectID: "my-project", Location: "europe-west3", KMSKey: berlinKey},
		"each location needs a KMS key":   {ProjectID: "my-project", Locations: []string{"europe-west10", "europe-west3"}, KMSKey: berlinKey},
		"at least 1 version":              {ProjectID: "my-project", KeepVersions: -1},
		"must be an email address":        {ProjectID: "my-project", ImpersonateServiceAccount: "me"},
	} {
		if _, err := gcpsecretmanager.New(cfg, gcpsecretmanager.Options{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", cfg, err, says)
		}
	}
	_, err := gcpsecretmanager.New(gcpsecretmanager.Config{Prefix: "/", KeepVersions: -1}, gcpsecretmanager.Options{})
	for _, says := range []string{"project", "prefix", "version"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("not every problem is listed: %v", err)
		}
	}
}

package servers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// OIDCClient is a client of an OIDCServer.
type OIDCClient struct {
	ID           string   `json:"client_id"`
	Secret       string   `json:"client_secret,omitempty"`
	Auth         string   `json:"token_endpoint_auth_method"`
	RedirectURIs []string `json:"redirect_uris"`
	GrantTypes   []string `json:"grant_types,omitempty"` // nil: code and refresh token
	// ApplicationType "native" lets a loopback redirect URI have any port (RFC 8252 §7.3).
	ApplicationType string `json:"application_type,omitempty"`
}

// OIDCOptions are how an OIDCServer starts.
type OIDCOptions struct {
	// Clients; nil: "basic", whose secret has characters that must be encoded, "post"
	// and "public", each with the redirect URI http://127.0.0.1/auth/callback and any port.
	Clients        []OIDCClient
	AccessTokenTTL time.Duration // zero: a minute
}

// DefaultOIDCClients returns the clients that a server has if OIDCOptions name none.
func DefaultOIDCClients(redirectURIs ...string) []OIDCClient {
	if len(redirectURIs) == 0 {
		redirectURIs = []string{"http://127.0.0.1/auth/callback"}
	}
	return []OIDCClient{
		{ID: "basic", Secret: "s3cr3t/+:% x", Auth: "client_secret_basic", RedirectURIs: redirectURIs, ApplicationType: "native"},
		{ID: "post", Secret: "post-secret", Auth: "client_secret_post", RedirectURIs: redirectURIs, ApplicationType: "native"},
		{ID: "public", Auth: "none", RedirectURIs: redirectURIs, ApplicationType: "native"},
	}
}

// OIDCServer is oidc-provider, an OpenID provider that is independent of this
// project and strict: it insists on PKCE and on form-encoded Basic credentials, it
// rotates refresh tokens, and a second use of one ends the grant. Every user agrees at
// once; the login_hint selects the account, "deny" refuses.
//
// What it cannot show: the ways in which other providers deviate from the standards,
// and a client that is refused because it authenticates in another way than it is
// registered with (it takes Basic for post).
type OIDCServer struct {
	*Process
	Issuer  string
	control string
	log     *Log
}

// OIDC starts a server of the test's own, which ends with the test. It needs node
// and what test/install/oidc-provider.sh installs.
func OIDC(t TB, o OIDCOptions) *OIDCServer {
	t.Helper()
	Enabled(t, "oidc-provider")
	if o.Clients == nil {
		o.Clients = DefaultOIDCClients()
	}
	cmd, err := oidcCommand(t.TempDir(), o)
	if err != nil {
		t.Fatalf("oidc-provider: %v", err)
	}
	s := &OIDCServer{log: new(Log)}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if s.Process, err = start(cmd, nil); err != nil {
		t.Fatalf("oidc-provider: %v", err)
	}
	t.Cleanup(s.Stop)
	var ready struct{ Issuer, Control string }
	err = waitFor(s.Process, func() error {
		return json.Unmarshal(firstJSONLine(s.log.String()), &ready)
	})
	if err != nil {
		t.Fatalf("oidc-provider: %v\n%s", err, s.log.String())
	}
	s.Issuer, s.control = ready.Issuer, ready.Control
	return s
}

// oidcCommand prepares a folder in which node finds both the server and the packages
// installed outside the repository.
func oidcCommand(folder string, o OIDCOptions) (*exec.Cmd, error) {
	source, err := testFolder("oidc-provider")
	if err != nil {
		return nil, err
	}
	lock, err := os.ReadFile(filepath.Join(source, "package-lock.json"))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(lock)
	packages := filepath.Join(CacheDir(), "oidc-provider-"+hex.EncodeToString(sum[:])[:16], "node_modules")
	if _, err := os.Stat(packages); err != nil {
		return nil, fmt.Errorf("%w: 'make test' installs it, or run test/install/oidc-provider.sh", err)
	}
	if err := os.Symlink(packages, filepath.Join(folder, "node_modules")); err != nil {
		return nil, err
	}
	for _, name := range []string{"op.mjs", "adapter.mjs"} {
		program, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(folder, name), program, 0o600); err != nil {
			return nil, err
		}
	}
	options, err := json.Marshal(map[string]any{
		"clients":          o.Clients,
		"access_token_ttl": int(o.AccessTokenTTL / time.Second),
	})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("node", "op.mjs")
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "NODE_ENV=production", "OIDC_OPTIONS="+string(options))
	return cmd, nil
}

// testFolder returns a folder below test/ of this module.
func testFolder(name string) (string, error) {
	at, err := os.Getwd()
	for ; err == nil; at = filepath.Dir(at) {
		folder := filepath.Join(at, "test", name)
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			if _, err := os.Stat(folder); err == nil {
				return folder, nil
			}
		}
		if at == filepath.Dir(at) {
			return "", errors.New("not inside the module")
		}
	}
	return "", err
}

// SetSecret changes a client's secret; the old one is refused from now on.
func (s *OIDCServer) SetSecret(t TB, clientID, secret string) {
	t.Helper()
	s.change(t, clientID, map[string]any{"client_secret": secret})
}

// SetRedirectURIs changes where a client's users may be sent back to.
func (s *OIDCServer) SetRedirectURIs(t TB, clientID string, uris ...string) {
	t.Helper()
	s.change(t, clientID, map[string]any{"redirect_uris": uris})
}

func (s *OIDCServer) change(t TB, clientID string, metadata map[string]any) {
	t.Helper()
	body, err := json.Marshal(metadata)
	if err != nil {
		t.Fatalf("oidc-provider: %v", err)
	}
	s.ask(t, http.MethodPatch, "/clients/"+url.PathEscape(clientID), body, nil)
}

// TokenRequests returns how many token requests with a grant type the server has
// answered, refusals included.
func (s *OIDCServer) TokenRequests(t TB, grantType string) int {
	t.Helper()
	var counts map[string]int
	s.ask(t, http.MethodGet, "/requests", nil, &counts)
	return counts[grantType]
}

// ask speaks to the server's control address.
func (s *OIDCServer) ask(t TB, method, path string, body []byte, into any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.control+path, bytes.NewReader(body))
	if err != nil {
		t.Fatalf("oidc-provider: %v", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("oidc-provider: %v\n%s", err, s.log.String())
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("oidc-provider: %s %s answered %d", method, path, resp.StatusCode)
	}
	if into == nil {
		return
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatalf("oidc-provider: %s %s: %v", method, path, err)
	}
}

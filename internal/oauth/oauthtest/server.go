// Package oauthtest is an OAuth 2.0 authorization server and OpenID provider on
// loopback, for tests and for the demo. It is strict where the standards are (PKCE,
// redirect URI, client authentication, codes that work once, rotation of refresh
// tokens with reuse detection), and can be told to answer wrongly in any way that
// real providers do.
//
// It shares no code with package oauth, so that a mistake is not made twice.
package oauthtest

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// The client authentication methods of a Client.
const (
	ClientSecretBasic = "client_secret_basic"
	ClientSecretPost  = "client_secret_post"
	NoClientAuth      = "none"
)

// Client is a registered client.
type Client struct {
	ID     string
	Secret string
	// Auth is the one method that the client may use; "" allows basic and post.
	Auth string
	// RedirectURIs are compared exactly. None: any on a loopback host.
	RedirectURIs []string
}

// Options are what a Server is made of. The zero Options are useful.
type Options struct {
	Addr           string        // to listen on; "": 127.0.0.1 and a free port
	Clients        []Client      // none: "test-client" with "test-secret", basic or post
	AccessTokenTTL time.Duration // zero: an hour
	// AskUser shows a page with two buttons at the authorization endpoint. Else the
	// user "alice", or the login_hint, agrees at once; the login_hint "deny" refuses.
	AskUser bool
	// StaticRefreshTokens: a refresh answers no refresh token and the old one goes on
	// working, as with Google. Else each works once, and a second use ends the grant.
	StaticRefreshTokens bool
	// TokenPrefix begins every code and token, so that a search can find them.
	TokenPrefix string
	// Tenant makes the server a multi-tenant one like Microsoft's: the endpoints are
	// below /<any tenant>/, discovery states an issuer with "{tenantid}", and ID
	// tokens have this tenant's id in iss and tid.
	Tenant string
	// URL is where clients reach the server, through something of the test's; "": where
	// it listens.
	URL string
	Now func() time.Time // nil: time.Now
}

// Server is a running provider. It is safe for concurrent use.
type Server struct {
	opts   Options
	addr   string
	url    string
	http   *http.Server
	closed chan struct{}
	stop   sync.Once

	mu       sync.Mutex
	clients  map[string]Client
	asked    map[string]authorization // by the id in the page's form
	codes    map[string]*grant
	access   map[string]*accessToken
	refresh  map[string]*refreshToken
	key      *signingKey
	claims   func(map[string]any)
	next     map[Endpoint][]Answer
	always   map[Endpoint]Answer
	requests []Request
	counts   map[string]int
}

// grant is what a user has agreed to. Ending it ends all its tokens.
type grant struct {
	authorization
	subject string
	expires time.Time // of the code
	used    bool      // the code
	ended   bool
}

type accessToken struct {
	grant   *grant
	expires time.Time
}

type refreshToken struct {
	grant *grant
	used  bool
}

// New starts a Server.
func New(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if len(o.Clients) == 0 {
		o.Clients = []Client{{ID: "test-client", Secret: "test-secret"}}
	}
	if o.AccessTokenTTL == 0 {
		o.AccessTokenTTL = time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		opts: o, closed: make(chan struct{}),
		clients: map[string]Client{}, asked: map[string]authorization{},
		codes: map[string]*grant{}, access: map[string]*accessToken{}, refresh: map[string]*refreshToken{},
		next: map[Endpoint][]Answer{}, always: map[Endpoint]Answer{}, counts: map[string]int{},
	}
	for _, c := range o.Clients {
		s.clients[c.ID] = c
	}
	listener, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	s.addr = listener.Addr().String()
	s.url = cmp.Or(o.URL, "http://"+s.addr)
	s.http = &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.http.Serve(listener) }()
	return s, nil
}

// TB is what Start needs of a *testing.T; the package does not import testing,
// because the demo is part of the broker's binary.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Start starts a Server that is closed when the test ends.
func Start(t TB, o Options) *Server {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatalf("starting the provider: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Close stops the server and ends every request.
func (s *Server) Close() error {
	s.stop.Do(func() { close(s.closed) })
	return s.http.Close()
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	at := ""
	if s.opts.Tenant != "" {
		at = "/{tenant}"
	}
	mux.Handle("GET "+at+s.path(Discovery), s.endpoint(Discovery, s.discovery))
	mux.Handle("GET "+at+s.path(Authorization), s.endpoint(Authorization, s.authorize))
	mux.Handle("POST /decision", http.HandlerFunc(s.decide))
	mux.Handle("POST "+at+s.path(Token), s.endpoint(Token, s.token))
	mux.Handle("POST "+at+s.path(Revocation), s.endpoint(Revocation, s.revoke))
	mux.Handle("GET "+at+s.path(Keys), s.endpoint(Keys, s.keys))
	mux.Handle("GET "+at+s.path(UserInfo), s.endpoint(UserInfo, s.userInfo))
	return mux
}

// Endpoint names one of the server's endpoints.
type Endpoint string

// The endpoints.
const (
	Authorization Endpoint = "authorization"
	Token         Endpoint = "token"
	Revocation    Endpoint = "revocation"
	Discovery     Endpoint = "discovery"
	Keys          Endpoint = "keys"
	UserInfo      Endpoint = "userinfo"
)

func (s *Server) path(e Endpoint) string {
	if s.opts.Tenant != "" {
		return map[Endpoint]string{
			Authorization: "/oauth2/v2.0/authorize",
			Token:         "/oauth2/v2.0/token",
			Revocation:    "/oauth2/v2.0/revoke",
			Discovery:     "/v2.0/.well-known/openid-configuration",
			Keys:          "/discovery/v2.0/keys",
			UserInfo:      "/oidc/userinfo",
		}[e]
	}
	return map[Endpoint]string{
		Authorization: "/authorize",
		Token:         "/token",
		Revocation:    "/revoke",
		Discovery:     "/.well-known/openid-configuration",
		Keys:          "/keys",
		UserInfo:      "/userinfo",
	}[e]
}

// URL returns where the endpoint is; below /common of a multi-tenant server.
func (s *Server) URL(e Endpoint) string {
	if s.opts.Tenant != "" {
		return s.url + "/common" + s.path(e)
	}
	return s.url + s.path(e)
}

// Addr returns where the server listens.
func (s *Server) Addr() string { return s.addr }

// Issuer returns the issuer to be configured at a client.
func (s *Server) Issuer() string {
	if s.opts.Tenant != "" {
		return s.url + "/common/v2.0"
	}
	return s.url
}

// SetSecret replaces a client's secret at once; the old one is refused from now on.
func (s *Server) SetSecret(clientID, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[clientID]
	c.ID, c.Secret = clientID, secret
	s.clients[clientID] = c
}

// EndGrants ends all that users have agreed to: a refresh is an invalid_grant, and
// no access token is accepted any more.
func (s *Server) EndGrants() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.refresh {
		t.grant.ended = true
	}
	for _, t := range s.access {
		t.grant.ended = true
	}
}

// redirectAllowed reports whether the client may be redirected to uri.
func (c Client) redirectAllowed(uri string) bool {
	if len(c.RedirectURIs) > 0 {
		return slices.Contains(c.RedirectURIs, uri)
	}
	u, err := url.Parse(uri)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// newToken returns a fresh code or token of the kind.
func (s *Server) newToken(kind string) string {
	var b [24]byte
	_, _ = rand.Read(b[:])
	return s.opts.TokenPrefix + kind + "-" + base64.RawURLEncoding.EncodeToString(b[:])
}

// signingKey is an RSA key with its id.
type signingKey struct {
	*rsa.PrivateKey
	id string
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// refuse writes an error answer (RFC 6749 §5.2).
func refuse(w http.ResponseWriter, status int, code, description string) {
	fields := map[string]string{"error": code}
	if description != "" {
		fields["error_description"] = description
	}
	writeJSON(w, status, fields)
}

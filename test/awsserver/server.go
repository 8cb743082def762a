// Package awsserver is a server for tests that speaks the published interface of AWS
// Secrets Manager (JSON 1.1 over HTTP, Signature Version 4) and of the part of AWS STS
// that a program needs to assume a role. It listens on loopback and keeps everything in
// memory. README.md beside it says where each behaviour comes from and what the server
// cannot prove.
package awsserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// TB is what starting a server needs of a *testing.T, so that a program that is no test
// can start one too. Fatalf does not return.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Where the server says it is, and the credentials that it knows from the start.
const (
	Region          = "eu-central-1"
	Account         = "123456789012"
	AccessKeyID     = "AKIAIOSFODNN7EXAMPLE"
	SecretAccessKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// Server is a running server. Its methods are safe for concurrent use.
type Server struct {
	// URL is what AWS_ENDPOINT_URL_SECRETS_MANAGER and AWS_ENDPOINT_URL_STS are set to.
	URL string

	http *http.Server
	now  func() time.Time

	mu       sync.Mutex
	secrets  map[string]*record // by name
	keys     map[string]*key    // KMS, by id
	users    map[string]*user   // by access key id
	roles    map[string]*Role   // by ARN
	settings settings
	journal  []Request
}

// Option changes how the server starts.
type Option func(*Server)

// WithClock makes the server take the time from now.
func WithClock(now func() time.Time) Option { return func(s *Server) { s.now = now } }

// WithLag makes reads see a write only after d (see Lag).
func WithLag(d time.Duration) Option { return func(s *Server) { s.settings.lag = d } }

// WithForceDelay sets how long a secret that is deleted without recovery is still there
// (see ForceDelay).
func WithForceDelay(d time.Duration) Option { return func(s *Server) { s.settings.forceDelay = d } }

// Start starts a server on a free port; it ends with the test.
func Start(t TB, opts ...Option) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("awsserver: %v", err)
	}
	s := &Server{
		URL: "http://" + ln.Addr().String(), now: time.Now,
		secrets: map[string]*record{}, keys: map[string]*key{}, users: map[string]*user{}, roles: map[string]*Role{},
	}
	s.settings.forceDelay = 20 * time.Millisecond
	s.users[AccessKeyID] = &user{secret: SecretAccessKey, arn: "arn:aws:iam::" + Account + ":user/nexus-broker"}
	for _, o := range opts {
		o(s)
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("awsserver: %v", err)) // a test without its server would fail in a stranger way
		}
	}()
	t.Cleanup(func() {
		s.Heal() // what hangs goes on
		_ = s.http.Close()
		<-done
	})
	return s
}

// randomID returns n characters of the alphabet that AWS uses at the end of an ARN.
func randomID(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand.Read never returns one
	}
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}

// newUUID returns a random UUID, as AWS makes one for a request or a version.
func newUUID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand.Read never returns one
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

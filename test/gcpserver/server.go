// Package gcpserver is a stand-in for Google Cloud's Secret Manager, for tests: the
// vendor's own gRPC interface, with the states, rules and limits that the documentation
// names, kept in memory. It listens on loopback, with or without TLS. README.md says
// which behaviour comes from where, and what the stand-in cannot prove.
package gcpserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// The project that is served. Requests name it by its id or its number, answers by its
// number.
const (
	Project       = "test-project"
	ProjectNumber = "123456789012"
)

// TB is what starting a server needs of a *testing.T. Fatalf does not return.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Server is a running server. All methods are safe for concurrent use.
type Server struct {
	secretmanagerpb.UnimplementedSecretManagerServiceServer

	// Addr is host:port.
	Addr string
	// RootCAs verify the server's certificate; nil without TLS.
	RootCAs *x509.CertPool

	certificate *tls.Certificate

	mu        sync.Mutex
	grpc      *grpc.Server // nil while down
	secrets   map[string]*record
	etag      uint64
	lag       time.Duration
	ahead     time.Duration // of the clock
	grants    []Grant       // nil: everything is allowed
	token     string        // "" none is asked for
	quotas    map[Class]int
	used      map[Class]int
	minute    int64
	keys      map[string]bool // KMS keys that are disabled
	intercept Interceptor
	calls     []Call
}

// Start starts a server that is stopped when the test ends.
func Start(t TB) *Server { t.Helper(); return start(t, nil) }

// StartTLS starts one that speaks TLS, for 127.0.0.1.
func StartTLS(t TB) *Server {
	t.Helper()
	certificate, roots, err := selfSigned()
	if err != nil {
		t.Fatalf("making a certificate: %v", err)
	}
	s := start(t, certificate)
	s.RootCAs = roots
	return s
}

func start(t TB, certificate *tls.Certificate) *Server {
	t.Helper()
	s := &Server{certificate: certificate, secrets: map[string]*record{}, etag: uint64(time.Now().UnixMicro()),
		keys: map[string]bool{}, used: map[Class]int{}}
	if err := s.listen("127.0.0.1:0"); err != nil {
		t.Fatalf("starting the Secret Manager of the tests: %v", err)
	}
	t.Cleanup(s.Down)
	return s
}

func (s *Server) listen(addr string) error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	opts := []grpc.ServerOption{grpc.UnaryInterceptor(s.serve)}
	if s.certificate != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*s.certificate}, MinVersion: tls.VersionTLS12})))
	}
	g := grpc.NewServer(opts...)
	secretmanagerpb.RegisterSecretManagerServiceServer(g, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grpc, s.Addr = g, l.Addr().String()
	go func() { _ = g.Serve(l) }() // ends with Stop
	return nil
}

// Down stops the server: connections are cut and refused. What is stored stays.
func (s *Server) Down() {
	s.mu.Lock()
	g := s.grpc
	s.grpc = nil
	s.mu.Unlock()
	if g != nil {
		g.Stop()
	}
}

// Up starts it again, at the same address. It waits for the port to be free.
func (s *Server) Up() error {
	var err error
	for range 100 {
		if err = s.listen(s.Addr); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("listening again at %s: %w", s.Addr, err)
}

// Advance sets the server's clock forward.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

func (s *Server) now() time.Time { return time.Now().Add(s.ahead) }

// nextETag returns an etag that no resource has had: quotes included (AIP-154).
func (s *Server) nextETag() string {
	s.etag++
	return fmt.Sprintf(`"%x"`, s.etag)
}

// selfSigned makes a certificate for 127.0.0.1 that is its own authority.
func selfSigned() (*tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Secret Manager of the tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, nil
}

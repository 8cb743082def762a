package httpserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/httpserver"
)

// issue writes a self-signed certificate for name and its key.
func issue(t *testing.T, dir, name string, notAfter time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write(t, filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	write(t, filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, content, 0o600))
}

// served returns the name in the certificate that a new connection is shown.
func served(t *testing.T, addr string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // whose certificate it is, is the question
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	tomorrow := time.Now().Add(24 * time.Hour)
	issue(t, dir, "first", tomorrow)
	r := serve(t, httpserver.Options{
		Handler: http.NotFoundHandler(), CertificateInterval: 5 * time.Millisecond,
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
	})
	require.Equal(t, "first", served(t, r.addr))

	issue(t, dir, "second", tomorrow)
	require.Eventually(t, func() bool { return served(t, r.addr) == "second" }, 10*time.Second, 10*time.Millisecond)

	for name, spoil := range map[string]func(){
		"no certificate":         func() { write(t, filepath.Join(dir, "cert.pem"), []byte("not PEM")) },
		"the key of another":     func() { write(t, filepath.Join(dir, "cert.pem"), otherCertificate(t)) },
		"no file":                func() { require.NoError(t, os.Remove(filepath.Join(dir, "key.pem"))) },
		"a certificate that was": func() { issue(t, dir, "expired", time.Now().Add(-time.Hour)) },
	} {
		said := strings.Count(r.log.String(), "cannot be used")
		spoil()
		require.Eventually(t, func() bool { return strings.Count(r.log.String(), "cannot be used") > said },
			10*time.Second, 5*time.Millisecond, name)
		require.Equal(t, "second", served(t, r.addr), name)
		good := strings.Count(r.log.String(), "was read again")
		issue(t, dir, "second", tomorrow)
		require.Eventually(t, func() bool { return strings.Count(r.log.String(), "was read again") > good },
			10*time.Second, 5*time.Millisecond, name)
	}

	issue(t, dir, "third", tomorrow)
	require.Eventually(t, func() bool { return served(t, r.addr) == "third" }, 10*time.Second, 10*time.Millisecond)
	require.NotContains(t, r.log.String(), "PRIVATE KEY")
}

func otherCertificate(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	issue(t, dir, "other", time.Now().Add(24*time.Hour))
	cert, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	require.NoError(t, err)
	return cert
}

func TestServeNeedsAUsableCertificate(t *testing.T) {
	dir := t.TempDir()
	issue(t, dir, "expired", time.Now().Add(-time.Hour))
	for name, cert := range map[string]string{
		"missing": filepath.Join(dir, "nothing.pem"), "expired": filepath.Join(dir, "cert.pem"), "no certificate": filepath.Join(dir, "key.pem"),
	} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		err = httpserver.Serve(context.Background(), ln, httpserver.Options{
			Handler: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler),
			CertFile: cert, KeyFile: filepath.Join(dir, "key.pem"),
		})
		require.ErrorContains(t, err, "TLS_CERT_FILE", name)
		_, err = net.Dial("tcp", ln.Addr().String())
		require.Error(t, err, "%s: the listener is closed", name)
	}
}

func TestOldTLSVersionsAreRefused(t *testing.T) {
	dir := t.TempDir()
	issue(t, dir, "broker", time.Now().Add(24*time.Hour))
	r := serve(t, httpserver.Options{
		Handler: http.NotFoundHandler(), CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
	})
	_, err := tls.Dial("tcp", r.addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	require.Error(t, err)
}

package httpserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A look in the middle of writing sees the beginning of a chain, which is a certificate
// and not the one that clients need.
func TestAChainThatIsHalfWrittenIsNotUsed(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(cert, key []byte) {
		require.NoError(t, os.WriteFile(keyFile, key, 0o600))
		require.NoError(t, os.WriteFile(certFile, cert, 0o600))
	}
	first, firstKey := selfSigned(t)
	write(first, firstKey)
	c, err := loadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	used := func() string { return string(c.current.Load().Certificate[0]) }
	look := func(want bool) {
		t.Helper()
		changed, err := c.look()
		require.NoError(t, err)
		require.Equal(t, want, changed)
	}
	old := used()

	leaf, key := selfSigned(t)
	issuer, _ := selfSigned(t)
	write(leaf, key)
	look(false)
	require.Equal(t, old, used())
	write(slices.Concat(leaf, issuer), key)
	look(false)
	require.Equal(t, old, used())
	look(true)
	require.NotEqual(t, old, used())
	require.Len(t, c.current.Load().Certificate, 2)
	look(false)
}

// selfSigned returns a certificate and its key.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

// issue writes a self-signed certificate and its key, and returns their files.
func issue(t *testing.T, dir, name string, notAfter time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: notAfter.Add(-48 * time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write := func(file, kind string, content []byte) string {
		path := filepath.Join(dir, name+file)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600))
		return path
	}
	return write(".crt", "CERTIFICATE", der), write(".key", "PRIVATE KEY", pkcs8)
}

func TestKeyPairsThatFit(t *testing.T) {
	cert, key := issue(t, t.TempDir(), "current", time.Now().Add(time.Hour))
	c := load(t, withVault(), "TLS_CERT_FILE="+cert, "TLS_KEY_FILE="+key, "VAULT_CLIENT_CERT="+cert, "VAULT_CLIENT_KEY="+key)
	require.Equal(t, cert, c.Server.TLSCertFile)
	require.Equal(t, key, c.Server.TLSKeyFile)
	require.Equal(t, cert, c.Secrets.Vault.ClientCert)
	require.Equal(t, key, c.Secrets.Vault.ClientKey)
	// Key and certificate may lie in one file, as some tools write them.
	certPEM, err := os.ReadFile(cert)
	require.NoError(t, err)
	keyPEM, err := os.ReadFile(key)
	require.NoError(t, err)
	both := filepath.Join(t.TempDir(), "both.pem")
	require.NoError(t, os.WriteFile(both, append(keyPEM, certPEM...), 0o600))
	require.Equal(t, config.Postgres, load(t, valid(), "TLS_CERT_FILE="+both, "TLS_KEY_FILE="+both).Database.Driver)
}

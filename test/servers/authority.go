package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority is a certificate authority of the test's own.
type Authority struct {
	File string // its certificate, PEM

	t    TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one, whose files go when the test ends.
func NewAuthority(t TB) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: t.TempDir()}
	a.File = filepath.Join(a.dir, "ca.pem")
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatalf("authority: %v", err)
	}
	a.cert = &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "nexus-broker test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err == nil {
		err = writePEM(a.File, "CERTIFICATE", der)
	}
	if err != nil {
		t.Fatalf("authority: %v", err)
	}
	return a
}

// Server issues a certificate for 127.0.0.1, localhost and the further names.
func (a *Authority) Server(further ...string) (cert, key string) {
	a.t.Helper()
	return a.issue("server-"+serial().String(), &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    append([]string{"localhost"}, further...), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
}

// Client issues a client certificate to somebody, into two files that are named after
// file. What is there is replaced.
func (a *Authority) Client(file, somebody string) (cert, key string) {
	a.t.Helper()
	return a.issue(file, &x509.Certificate{
		Subject: pkix.Name{CommonName: somebody}, NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (a *Authority) issue(name string, template *x509.Certificate) (cert, key string) {
	a.t.Helper()
	template.SerialNumber, template.NotBefore, template.KeyUsage = serial(), time.Now().Add(-time.Hour), x509.KeyUsageDigitalSignature
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatalf("authority: %v", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, leaf.Public(), a.key)
	if err != nil {
		a.t.Fatalf("authority: %v", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leaf)
	if err != nil {
		a.t.Fatalf("authority: %v", err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+"-key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := writePEM(file, block.Type, block.Bytes); err != nil {
			a.t.Fatalf("authority: %v", err)
		}
	}
	return cert, key
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		panic(fmt.Sprintf("no random number: %v", err)) // crypto/rand.Reader never fails
	}
	return n
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

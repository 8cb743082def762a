package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
)

// checkKeyPair reports a problem unless the PEM files hold a certificate and its
// private key. It returns the certificate, nil if there is none or a problem. What
// crypto/tls says of a wrong file is not passed on: it quotes the types of its PEM
// blocks.
func (l *loader) checkKeyPair(certName, certFile, keyName, keyFile string) *x509.Certificate {
	if certFile == "" || keyFile == "" {
		return nil // not set, or reported
	}
	certPEM, ok := l.readPEM(certName, certFile)
	if !ok {
		return nil
	}
	keyPEM, ok := l.readPEM(keyName, keyFile)
	if !ok {
		return nil
	}
	leaf := firstCertificate(certPEM)
	if leaf == nil {
		l.problem(certName, "names a file without a certificate", "name a PEM file with the certificate, then those of its issuers")
		return nil
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		l.problem(keyName, "names a file without the key of the certificate in "+certName, "name a PEM file with the private key that belongs to it, unencrypted")
		return nil
	}
	return leaf
}

func (l *loader) readPEM(name, path string) (content []byte, ok bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		l.problem(name, "names a file that cannot be read ("+reason(err)+")", "name a readable file")
	}
	return content, err == nil
}

// firstCertificate returns the first certificate of a PEM file, nil if there is none
// or it is broken.
func firstCertificate(content []byte) *x509.Certificate {
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return nil
		}
		if block.Type == "CERTIFICATE" {
			leaf, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil
			}
			return leaf
		}
	}
}

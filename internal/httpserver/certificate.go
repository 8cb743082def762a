package httpserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// certificate is a pair of files, read again when they change.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	certPEM, keyPEM []byte // what the files held at the last look; only watch touches them
	fault           string // of the last look, "" if it was fine
}

func loadCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if _, err := c.look(); err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE and TLS_KEY_FILE: %w", err)
	}
	return c, nil
}

// get implements tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// watch looks at the files every interval until ctx is done. A pair that cannot be
// used, also one that is half written, leaves the last one in use; the log says so
// once.
func (c *certificate) watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := c.look()
		switch {
		case err != nil && err.Error() != c.fault:
			c.fault = err.Error()
			c.log.Error("the new TLS certificate cannot be used; the last one stays in use", "err", err)
		case err == nil:
			c.fault = ""
		}
		if changed {
			c.log.Info("the TLS certificate was read again", "not_after", c.current.Load().Leaf.NotAfter)
		}
	}
}

// look reads the files and puts their pair into use if they have changed. They are
// compared by content: the time of a mounted secret tells little.
func (c *certificate) look() (changed bool, err error) {
	certPEM, err := os.ReadFile(c.certFile)
	if err != nil {
		return false, err
	}
	keyPEM, err := os.ReadFile(c.keyFile)
	if err != nil {
		return false, err
	}
	if bytes.Equal(certPEM, c.certPEM) && bytes.Equal(keyPEM, c.keyPEM) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return false, fmt.Errorf("%s and %s: %w", c.certFile, c.keyFile, err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return false, errors.New(c.certFile + ": the certificate has expired")
	}
	c.current.Store(&pair)
	c.certPEM, c.keyPEM = certPEM, keyPEM
	return true, nil
}

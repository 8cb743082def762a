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

	// Only watch touches the rest.
	used  content // what current was made of
	last  content // what the files held at the last look; another one than used may be half written
	fault string  // of the last look, "" if it was fine
}

// content is what the two files hold.
type content struct{ certPEM, keyPEM []byte }

func (c content) equal(d content) bool {
	return bytes.Equal(c.certPEM, d.certPEM) && bytes.Equal(c.keyPEM, d.keyPEM)
}

// settleTime is how long files that have changed must stay as they are before they are
// used. A chain that is half written is a certificate, and one that few clients trust.
const settleTime = time.Second

func loadCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	now, err := c.read()
	if err == nil {
		c.last = now
		_, err = c.use(now)
	}
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE and TLS_KEY_FILE: %w", err)
	}
	return c, nil
}

// get implements tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// watch looks at the files every interval until ctx is done, and once more a second after
// a look that finds a change (or an interval after it, if that is shorter). A pair that
// cannot be used leaves the last one in use; the log says so once.
func (c *certificate) watch(ctx context.Context, interval time.Duration) {
	next := time.NewTimer(interval)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		before := c.last
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
		if c.last.equal(before) || c.last.equal(c.used) {
			next.Reset(interval)
		} else {
			next.Reset(min(interval, settleTime))
		}
	}
}

// look reads the files and puts their pair into use if they have changed, and were the same
// at the look before. They are compared by content: the time of a mounted secret tells
// little.
func (c *certificate) look() (changed bool, err error) {
	now, err := c.read()
	if err != nil {
		return false, err
	}
	before := c.last
	c.last = now
	if now.equal(c.used) || !now.equal(before) {
		return false, nil
	}
	return c.use(now)
}

func (c *certificate) read() (now content, err error) {
	if now.certPEM, err = os.ReadFile(c.certFile); err != nil {
		return content{}, err
	}
	now.keyPEM, err = os.ReadFile(c.keyFile)
	return now, err
}

// use puts a pair into use.
func (c *certificate) use(now content) (changed bool, err error) {
	pair, err := tls.X509KeyPair(now.certPEM, now.keyPEM)
	if err != nil {
		return false, fmt.Errorf("%s and %s: %w", c.certFile, c.keyFile, err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return false, errors.New(c.certFile + ": the certificate has expired")
	}
	c.current.Store(&pair)
	c.used = now
	return true, nil
}

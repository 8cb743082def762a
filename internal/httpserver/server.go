// Package httpserver serves a handler: with time limits, with TLS whose certificate
// may change while it runs, and with an end that lets requests in flight finish.
package httpserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The limits that a server has unless Options say otherwise.
const (
	HeaderTimeout  = 10 * time.Second  // to read a request's header
	ReadTimeout    = 30 * time.Second  // to read a whole request
	WriteTimeout   = 90 * time.Second  // from the header's end to the answer's: a code exchange may take 60 s
	IdleTimeout    = 120 * time.Second // between requests on one connection
	MaxHeaderBytes = 64 << 10
	// CertificateInterval is how often the certificate's files are looked at.
	CertificateInterval = 10 * time.Second
)

// Options are what Serve works with. Handler and Logger are required; a zero limit
// means the constant of that name.
type Options struct {
	Handler http.Handler
	Logger  *slog.Logger
	// Grace is how long requests in flight may take to finish at the end.
	Grace time.Duration
	// CertFile and KeyFile are PEM files; both empty: no TLS.
	CertFile, KeyFile string

	HeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration
	CertificateInterval                                   time.Duration
}

// Serve answers requests on ln until ctx is done. Then ln is closed at once, so that
// nothing new comes in, a readiness probe neither; requests in flight have o.Grace to
// finish, and what has not finished by then is cut off, which is an error that wraps
// context.DeadlineExceeded. A clean end is nil.
//
// An error before the first request, such as a certificate that cannot be read, is
// returned at once. Serve closes ln in every case.
func Serve(ctx context.Context, ln net.Listener, o Options) error {
	defer func() { _ = ln.Close() }()
	srv := &http.Server{
		Handler:           o.Handler,
		ReadHeaderTimeout: cmp.Or(o.HeaderTimeout, HeaderTimeout),
		ReadTimeout:       cmp.Or(o.ReadTimeout, ReadTimeout),
		WriteTimeout:      cmp.Or(o.WriteTimeout, WriteTimeout),
		IdleTimeout:       cmp.Or(o.IdleTimeout, IdleTimeout),
		MaxHeaderBytes:    MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
	}
	serve := srv.Serve
	if o.CertFile != "" {
		cert, err := loadCertificate(o.CertFile, o.KeyFile, o.Logger)
		if err != nil {
			return err
		}
		watching, stop := context.WithCancel(ctx)
		defer stop()
		go cert.watch(watching, cmp.Or(o.CertificateInterval, CertificateInterval))
		srv.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get}
		serve = func(ln net.Listener) error { return srv.ServeTLS(ln, "", "") }
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(ln) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	_ = ln.Close()
	return shutdown(ctx, srv, o)
}

// lastHeader is how long a connection that has just been made may take to send its
// request before the server begins to close connections: net/http drops a request
// whose header it reads after that, unanswered.
const lastHeader = 250 * time.Millisecond

// shutdown lets requests in flight finish, and cuts off what takes too long.
func shutdown(ctx context.Context, srv *http.Server, o Options) error {
	o.Logger.Info("shutting down: finishing requests in flight", "grace", o.Grace.String())
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Grace)
	defer cancel()
	srv.SetKeepAlivesEnabled(false) // answers tell the caller to connect elsewhere
	select {
	case <-grace.Done():
	case <-time.After(lastHeader):
	}
	err := srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("requests were cut off after %s of grace: %w", o.Grace, err)
	}
	return errors.Join(err, srv.Close())
}

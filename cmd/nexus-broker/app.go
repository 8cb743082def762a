package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	nexusbroker "github.com/nexus-broker/nexus-broker"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/httpserver"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/tracing"
)

// app is a broker, wired: every part is made here and handed what it needs.
type app struct {
	config   config.Config
	db       database
	log      *slog.Logger
	keyFault string // what is wrong with ENCRYPTION_KEY, "" if nothing is
	service  *broker.Service
	keys     *httpapi.Keys // nil: no key is asked for
	handler  http.Handler
	listener net.Listener
	closers  []io.Closer // in the order of opening
}

// newApp opens everything that a broker needs, its listener included. On failure
// nothing stays open. Of environ are the variables of further secret backends.
func newApp(ctx context.Context, c config.Config, environ []string, log *slog.Logger) (_ *app, err error) {
	a := &app{config: c, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	db, err := openDatabase(ctx, c, log)
	if err != nil {
		return nil, err
	}
	a.db = db
	a.closers = append(a.closers, db)
	if a.keyFault, err = checkKey(ctx, db, c.Keys.Encryption, log); err != nil {
		return nil, err
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := metrics.New(registry)

	traces := tracing.Off()
	if c.Tracing.Enabled {
		if traces, err = tracing.New(ctx, readBuild().Version, log); err != nil {
			return nil, err
		}
	}
	a.closers = append(a.closers, traceCloser{traces})

	secrets, err := openBackends(ctx, c, db, m, traces.Tracer(), log)
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, secrets)
	if err := checkBackend(ctx, c.Secrets, secrets, log); err != nil {
		return nil, err
	}
	creds, err := credentials.New(credentials.Options{
		Backends: secrets.list, WriteTo: c.Secrets.Backend, ReadOnly: c.Secrets.ReadOnly,
		Further:           secrets.further(context.WithoutCancel(ctx), environ, m, log),
		ReferencePrefixes: c.Secrets.RefAllowedPrefixes,
		CacheTTL:          c.Secrets.CacheTTL, MaxStale: c.Secrets.CacheMaxStale,
		Audit: db, Metrics: m, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, closer(creds.Close))
	if err := checkNamed(ctx, db, creds, log); err != nil {
		return nil, err
	}

	if a.listener, err = net.Listen("tcp", c.Server.ListenAddr); err != nil {
		return nil, err
	}
	a.closers = append(a.closers, closer(func() { _ = a.listener.Close() }))
	a.service = broker.New(a.brokerConfig(), broker.Deps{
		Store: db, Credentials: creds, Keyring: c.Keys.Encryption, Metrics: m, Logger: log,
		OAuth: oauth.New(oauth.Options{HTTP: providerClient(c.Outbound, traces), OnDiscovery: m.Discovery}),
	})
	if err := a.openAPI(m, registry, traces.Tracer()); err != nil {
		return nil, err
	}
	return a, nil
}

// providerClient returns the HTTP client that providers are called with.
func providerClient(o config.Outbound, traces *tracing.Provider) *http.Client {
	client := oauth.NewHTTPClient(oauth.HTTPOptions{AllowPrivate: o.AllowPrivate})
	client.Transport = tracing.Transport(traces.Tracer(), client.Transport)
	return client
}

// traceCloser sends the last spans, to a collector that may not be there.
type traceCloser struct{ *tracing.Provider }

func (t traceCloser) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = t.Shutdown(ctx) // a collector that is away is no failure of the broker
	return nil
}

// closer makes an io.Closer of a function that cannot fail.
type closer func()

func (c closer) Close() error { c(); return nil }

func (a *app) brokerConfig() broker.Config {
	c := a.config
	port := a.listener.Addr().(*net.TCPAddr).Port
	return broker.Config{
		BaseURL: c.Server.PublicURL(port), RedirectPath: c.Server.RedirectPath,
		StateKey:         []byte(c.Keys.State.Reveal()),
		EnforceReturnURL: c.Access.EnforceReturnURL, AllowedReturnDomains: c.Access.AllowedReturnDomains,
		RedactClientSecrets: c.Secrets.RedactClientSecrets,
		AuditRetention:      c.Audit.Retention, SecretTimeout: c.Secrets.Timeout, KeyFault: a.keyFault,
	}
}

// openAPI makes the HTTP handler.
func (a *app) openAPI(m *metrics.Metrics, registry *prometheus.Registry, tracer trace.Tracer) error {
	access := a.config.Access
	if access.RequireAPIKey {
		keys, err := httpapi.NewKeys(httpapi.KeysOptions{
			APIKey: access.APIKey, APIKeys: access.APIKeys,
			APIKeyFile: access.APIKeyFile, APIKeysFile: access.APIKeysFile, Logger: a.log,
		})
		if err != nil {
			return err
		}
		a.keys = keys
	}
	a.handler = httpapi.New(httpapi.Options{
		Broker: a.service, Keys: a.keys,
		RequireAllowlist: access.RequireAllowlist, AllowedCIDRs: access.AllowedCIDRs,
		TrustedProxies: access.TrustedProxies, RateLimit: access.RateLimit,
		AnswerTime:   max(httpserver.WriteTimeout, a.brokerConfig().LongestChange()),
		RedirectPath: a.config.Server.RedirectPath, Observe: m.HTTPRequest, Tracer: tracer,
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		OpenAPI: nexusbroker.OpenAPI, Logger: a.log,
	})
	return nil
}

// run serves until ctx ends, lets requests in flight finish, and closes everything.
func (a *app) run(ctx context.Context) error {
	background, stop := context.WithCancel(ctx)
	defer stop()
	swept := make(chan struct{})
	go func() { defer close(swept); a.service.Sweep(background) }()
	if a.keys != nil {
		go a.keys.Watch(background, a.config.Access.ReloadInterval)
	}
	a.log.InfoContext(ctx, "listening", "address", a.listener.Addr().String(),
		"version", readBuild().Version, "secret_backend", a.config.Secrets.Backend, "database", a.config.Database.Driver)
	err := httpserver.Serve(ctx, a.listener, httpserver.Options{
		Handler: a.handler, Logger: a.log, Grace: a.config.Server.ShutdownGrace,
		CertFile: a.config.Server.TLSCertFile, KeyFile: a.config.Server.TLSKeyFile,
	})
	stop()
	<-swept
	// What a request has begun and must not lose, such as storing a rotated token.
	final, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.config.Server.ShutdownGrace+5*time.Second)
	defer cancel()
	if closeErr := a.service.Close(final); closeErr != nil {
		a.log.ErrorContext(final, "work was still under way at the end of the grace period", "error", closeErr)
	}
	a.log.InfoContext(final, "stopped")
	return errors.Join(err, a.close())
}

// url returns where the broker listens.
func (a *app) url() string {
	scheme := "http://"
	if a.config.Server.TLSCertFile != "" {
		scheme = "https://"
	}
	return scheme + a.listener.Addr().String()
}

// close closes what newApp has opened, the last first.
func (a *app) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i].Close())
	}
	a.closers = nil
	return errors.Join(errs...)
}

package main

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	nexusbroker "github.com/nexus-broker/nexus-broker"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// scriptBackend is the key of the script's backend, a *memory.Backend.
type scriptBackend struct{}

const scriptKey = "the-key-of-the-scripts"

// externalbroker [KEY=VALUE...] starts a broker in this process, on SQLite and with an
// external backend in memory. It holds the values given, and at team-a/app a client's
// credentials as the members id and secret of an object. The script finds the broker in
// BROKER_BASE_URL, and its key in API_KEY.
func externalbroker(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	backend := ts.Value(scriptBackend{}).(*memory.Backend)
	_, err := backend.Place("team-a/app", `{"id":"an-id","secret":"canary"}`)
	ts.Check(err)
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		ts.Check(backend.Set(ctx, key, value))
	}
	store, err := sqlite.Open(ctx, filepath.Join(ts.MkAbs("."), "broker.db"))
	ts.Check(err)
	ts.Defer(func() { _ = store.Close() })
	migrator, err := store.Migrator()
	ts.Check(err)
	_, err = migrator.Up(ctx)
	ts.Check(err)
	ring, err := seal.NewKeyring([]byte(strings.Repeat("k", seal.KeyBytes)))
	ts.Check(err)
	counts, logger := metrics.New(nil), slog.New(slog.DiscardHandler)
	creds, err := credentials.New(credentials.Options{
		Backends: []credentials.Backend{
			{Name: credentials.Internal, Store: internalbackend.New(store, ring)},
			{Name: "hashicorp-vault", Store: backend, External: true},
		},
		WriteTo: "hashicorp-vault", ReferencePrefixes: []string{"team-a"}, MaxStale: time.Hour, Audit: store, Metrics: counts, Logger: logger,
	})
	ts.Check(err)
	ts.Defer(creds.Close)
	srv := httptest.NewUnstartedServer(nil)
	base, err := url.Parse("http://" + srv.Listener.Addr().String())
	ts.Check(err)
	service := broker.New(
		broker.Config{BaseURL: base, RedirectPath: httpapi.DefaultRedirectPath, StateKey: []byte(strings.Repeat("s", 32)), SecretTimeout: 10 * time.Second},
		broker.Deps{Store: store, Credentials: creds, Keyring: ring, Metrics: counts, Logger: logger, OAuth: oauth.New(oauth.Options{})})
	ts.Defer(func() { ts.Check(service.Close(ctx)) })
	keys, err := httpapi.NewKeys(httpapi.KeysOptions{APIKey: secret.NewValue(scriptKey), Logger: logger})
	ts.Check(err)
	srv.Config.Handler = httpapi.New(httpapi.Options{Broker: service, Keys: keys, OpenAPI: nexusbroker.OpenAPI, Logger: logger})
	srv.Start()
	ts.Defer(srv.Close)
	ts.Setenv("BROKER_BASE_URL", srv.URL)
	ts.Setenv("API_KEY", scriptKey)
}

// holds KEY VALUE: this is what lies in the external backend.
func holds(ts *testscript.TestScript, _ bool, args []string) {
	value, err := ts.Value(scriptBackend{}).(*memory.Backend).Get(context.Background(), args[0])
	ts.Check(err)
	if value != args[1] {
		ts.Fatalf("%s holds %q instead of %q", args[0], value, args[1])
	}
}

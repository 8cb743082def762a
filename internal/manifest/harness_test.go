package manifest_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/manifest"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

const (
	external   = "hashicorp-vault"
	adminKey   = "canary-admin-key"
	agentKey   = "canary-agent-key"
	auditorKey = "canary-auditor-key"
)

// world is a real broker on SQLite, called over HTTP. The external backend is a map.
type world struct {
	t      *testing.T
	url    *url.URL
	vault  *memory.Faulty
	placed *memory.Backend // what others keep there
	client *apiclient.Client
	env    map[string]string
}

func deploy(t *testing.T, backend string) *world {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "broker.db"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	migrator, err := store.Migrator()
	require.NoError(t, err)
	_, err = migrator.Up(t.Context())
	require.NoError(t, err)
	ring, err := seal.NewKeyring([]byte(strings.Repeat("k", seal.KeyBytes)))
	require.NoError(t, err)
	stored := memory.New()
	w := &world{t: t, vault: memory.NewFaulty(stored), placed: stored, env: map[string]string{}}
	counts := metrics.New(nil)
	creds, err := credentials.New(credentials.Options{
		Backends: []credentials.Backend{
			{Name: credentials.Internal, Store: internalbackend.New(store, ring)},
			{Name: external, Store: w.vault, External: true},
		},
		WriteTo: backend, ReferencePrefixes: []string{"team-a"}, MaxStale: time.Hour, Audit: store, Metrics: counts, Logger: logger,
	})
	require.NoError(t, err)
	t.Cleanup(creds.Close)
	srv := httptest.NewUnstartedServer(nil)
	w.url, err = url.Parse("http://" + srv.Listener.Addr().String())
	require.NoError(t, err)
	service := broker.New(broker.Config{
		BaseURL: w.url, RedirectPath: httpapi.DefaultRedirectPath, StateKey: []byte(strings.Repeat("s", 32)), SecretTimeout: time.Second,
	}, broker.Deps{
		Store: store, Credentials: creds, Keyring: ring, Metrics: counts, Logger: logger,
		OAuth: oauth.New(oauth.Options{}),
	})
	t.Cleanup(func() { require.NoError(t, service.Close(context.WithoutCancel(t.Context()))) })
	keys, err := httpapi.NewKeys(httpapi.KeysOptions{
		APIKey: secret.NewValue(adminKey), Logger: logger,
		APIKeys: []secret.Value{secret.NewValue("agent:" + agentKey), secret.NewValue("auditor:" + auditorKey)},
	})
	require.NoError(t, err)
	srv.Config.Handler = httpapi.New(httpapi.Options{Broker: service, Keys: keys, Logger: logger, Observe: counts.HTTPRequest})
	srv.Start()
	t.Cleanup(srv.Close)
	w.client = w.as(adminKey)
	return w
}

func (w *world) as(key string) *apiclient.Client {
	return apiclient.New(apiclient.Options{BaseURL: w.url, APIKey: secret.NewValue(key)})
}

func (w *world) parse(text string) manifest.Manifest {
	w.t.Helper()
	m, err := manifest.Parse([]manifest.File{{Name: "m.yaml", Content: []byte(text)}}, func(n string) string { return w.env[n] })
	require.NoError(w.t, err)
	return m
}

func (w *world) plan(text string, o manifest.Options) manifest.Plan {
	w.t.Helper()
	p, err := manifest.MakePlan(w.t.Context(), w.client, w.parse(text), o)
	require.NoError(w.t, err)
	require.NotContains(w.t, printed(w.t, p), "canary")
	return p
}

// apply applies a manifest, which must succeed, and leave nothing to do.
func (w *world) apply(text string, o manifest.Options) manifest.Plan {
	w.t.Helper()
	p := w.plan(text, o)
	failed := manifest.Apply(w.t.Context(), w.client, p, func(r manifest.Result) { require.Empty(w.t, r.Error, r.Name) })
	require.Zero(w.t, failed)
	o.SetCredentials = false
	again := w.plan(text, o)
	require.True(w.t, again.Empty(), printed(w.t, again))
	return p
}

func printed(t *testing.T, p manifest.Plan) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, p.Print(&b))
	return b.String()
}

// profile returns what the broker has under a name.
func (w *world) profile(name string) (p apiclient.Profile) {
	w.t.Helper()
	all, err := w.client.Providers(w.t.Context())
	require.NoError(w.t, err)
	for _, s := range all {
		if s.Name == name {
			p, err = w.client.Provider(w.t.Context(), s.ID)
			require.NoError(w.t, err)
		}
	}
	return p
}

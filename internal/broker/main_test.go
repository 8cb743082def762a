package broker_test

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/internal/store/migrations"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
	"github.com/nexus-broker/nexus-broker/internal/store/sqlite"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

const (
	returnURL    = "https://app.example/done?keep=1"
	clientID     = "the-client"
	clientSecret = "the secret/+:%"
	vaultName    = "hashicorp-vault"
)

// house is a broker on a real SQLite database, with a provider that is real but for
// its users, and a vault that is a map: its faults are what the tests are about.
type house struct {
	*broker.Service
	t     *testing.T
	at    options // where its database is
	store store
	vault *memory.Faulty
	op    *oauthtest.Server
	creds *credentials.Service
	reg   *prometheus.Registry
}

// store is what both databases are to these tests.
type store interface {
	broker.Store
	internalbackend.Rows
	Migrator() (*migrations.Migrator, error)
}

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

// onBoth runs a test on SQLite and on PostgreSQL. The options that it gets name a new
// database; houses with the same options share it, and are replicas.
func onBoth(t *testing.T, test func(t *testing.T, o options)) {
	t.Run("sqlite", func(t *testing.T) {
		test(t, options{path: filepath.Join(t.TempDir(), "broker.db"), vault: memory.NewFaulty(memory.New())})
	})
	t.Run("postgres", func(t *testing.T) {
		test(t, options{postgres: servers.Postgres(t), vault: memory.NewFaulty(memory.New())})
	})
}

func openStore(t *testing.T, o options) store {
	t.Helper()
	var s store
	var err error
	if o.postgres != "" {
		s, err = postgres.Open(t.Context(), postgres.Config{URL: o.postgres})
	} else {
		s, err = sqlite.Open(t.Context(), o.path)
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	m, err := s.Migrator()
	require.NoError(t, err)
	_, err = m.Up(t.Context())
	require.NoError(t, err)
	return s
}

type options struct {
	internal bool // SECRET_BACKEND=internal instead of the vault
	readOnly bool
	ttl      time.Duration
	now      func() time.Time
	provider oauthtest.Options
	config   func(*broker.Config)
	path     string // of the SQLite database; "": a new one
	postgres string // the URL of a database to use instead
	vault    *memory.Faulty
	prefixes []string                        // of references
	key      string                          // of encryption, one character for each; "": k
	wrap     func(broker.Store) broker.Store // around the store that the service uses
	log      io.Writer                       // what is logged, beside the test's output; may be nil
}

func newHouse(t *testing.T, o options) *house {
	t.Helper()
	h := &house{t: t, vault: o.vault}
	if h.vault == nil {
		h.vault = memory.NewFaulty(memory.New())
	}
	if o.path == "" {
		o.path = filepath.Join(t.TempDir(), "broker.db")
	}
	ctx := t.Context()
	h.at, h.store = o, openStore(t, o)
	ring := keyring(t, o.key)
	logged := t.Output()
	if o.log != nil {
		logged = io.MultiWriter(logged, o.log)
	}
	log := slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
	h.reg = prometheus.NewRegistry()
	counts := metrics.New(h.reg)
	writeTo := vaultName
	if o.internal {
		writeTo = credentials.Internal
	}
	var err error
	h.creds, err = credentials.New(credentials.Options{
		Backends: []credentials.Backend{
			{Name: credentials.Internal, Store: internalbackend.New(h.store, ring)},
			{Name: vaultName, Store: h.vault, External: true},
		},
		WriteTo: writeTo, ReadOnly: o.readOnly, ReferencePrefixes: o.prefixes, CacheTTL: o.ttl, MaxStale: time.Hour,
		Audit: h.store, Metrics: counts, Logger: log, Now: o.now,
	})
	require.NoError(t, err)
	t.Cleanup(h.creds.Close)

	if o.provider.Clients == nil {
		o.provider.Clients = []oauthtest.Client{
			{ID: clientID, Secret: clientSecret, RedirectURIs: []string{"https://broker.example/auth/callback"}},
		}
	}
	h.op = oauthtest.Start(t, o.provider)
	base, err := url.Parse("https://broker.example")
	require.NoError(t, err)
	cfg := broker.Config{
		BaseURL: base, RedirectPath: "/auth/callback", StateKey: []byte(strings.Repeat("s", 32)), SecretTimeout: time.Second,
	}
	if o.config != nil {
		o.config(&cfg)
	}
	var store broker.Store = h.store
	if o.wrap != nil {
		store = o.wrap(store)
	}
	h.Service = broker.New(cfg, broker.Deps{
		Store: store, Credentials: h.creds, Keyring: ring, Metrics: counts, Logger: log, Now: o.now,
		OAuth: oauth.New(oauth.Options{HTTP: oauth.NewHTTPClient(oauth.HTTPOptions{AllowPrivate: true})}),
	})
	t.Cleanup(func() { require.NoError(t, h.Close(context.WithoutCancel(ctx))) })
	return h
}

// pass lets time pass by the database's clock, for all that is claimed, leased or to be
// done later. What is kept for a person stays kept.
func (h *house) pass(d time.Duration) {
	h.t.Helper()
	driver, source := "sqlite", "file:"+h.at.path+"?_pragma=busy_timeout(10000)"
	ago, kept := "$1", "253370764800000000"
	if h.at.postgres != "" {
		driver, source = "pgx", h.at.postgres
		ago, kept = "$1::bigint * interval '1 microsecond'", "'9999-01-01Z'"
	}
	db, err := sql.Open(driver, source)
	require.NoError(h.t, err)
	defer func() { _ = db.Close() }()
	for _, statement := range []string{
		"UPDATE provider_profiles SET op_until = op_until - " + ago,
		"UPDATE credential_cleanups SET claimed_until = claimed_until - " + ago,
		"UPDATE credential_cleanups SET due_at = due_at - " + ago + " WHERE due_at < " + kept,
		"UPDATE leases SET held_until = held_until - " + ago,
		"UPDATE connection_refreshes SET held_until = held_until - " + ago,
	} {
		_, err := db.ExecContext(context.WithoutCancel(h.t.Context()), statement, d.Microseconds())
		require.NoError(h.t, err)
	}
}

// keyring returns a ring with a key of each character; "" is "k".
func keyring(t *testing.T, characters string) *seal.Keyring {
	t.Helper()
	var keys [][]byte
	for _, c := range cmp.Or(characters, "k") {
		keys = append(keys, []byte(strings.Repeat(string(c), seal.KeyBytes)))
	}
	ring, err := seal.NewKeyring(keys...)
	require.NoError(t, err)
	return ring
}

// profile is a complete OAuth profile of the house's provider.
func (h *house) profile(name string) broker.ProfileInput {
	return broker.ProfileInput{
		Name: broker.Given(name), AuthHeader: broker.Given("client_secret_basic"),
		AuthURL: broker.Given(h.op.URL(oauthtest.Authorization)), TokenURL: broker.Given(h.op.URL(oauthtest.Token)),
		ClientID: text(clientID), ClientSecret: text(clientSecret),
	}
}

func text(s string) broker.Field[broker.SecretText] {
	return broker.Given(broker.SecretText{Value: secret.NewValue(s)})
}

func null() broker.Field[broker.SecretText] {
	return broker.Field[broker.SecretText]{Present: true, Null: true}
}

func (h *house) register(name string) uuid.UUID {
	h.t.Helper()
	id, err := h.Register(h.t.Context(), h.profile(name))
	require.NoError(h.t, err)
	return id
}

func (h *house) begin(id uuid.UUID, scopes ...string) broker.Consent {
	h.t.Helper()
	c, err := h.Begin(h.t.Context(), request(id, scopes...))
	require.NoError(h.t, err)
	return c
}

func request(id uuid.UUID, scopes ...string) broker.ConsentRequest {
	return broker.ConsentRequest{WorkspaceID: "ws", ProviderID: id.String(), Scopes: scopes, ReturnURL: returnURL}
}

// agree lets the user agree at the provider and returns what its redirect carries.
func (h *house) agree(c broker.Consent) broker.Callback {
	h.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(h.t, err)
	var q url.Values
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "broker.example" {
			q = r.URL.Query()
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := browser.Get(c.AuthURL)
	require.NoError(h.t, err)
	require.NoError(h.t, resp.Body.Close())
	require.NotNil(h.t, q, "the provider sent the browser nowhere: %s", resp.Status)
	return broker.Callback{Code: secret.NewValue(q.Get("code")), State: q.Get("state"), Error: q.Get("error"), Issuer: q.Get("iss")}
}

// connect takes a user through a whole consent.
func (h *house) connect(id uuid.UUID, scopes ...string) uuid.UUID {
	h.t.Helper()
	to, err := h.Complete(h.t.Context(), h.agree(h.begin(id, scopes...)))
	require.NoError(h.t, err)
	return connectionIn(h.t, to.URL)
}

func connectionIn(t *testing.T, redirect string) uuid.UUID {
	t.Helper()
	u, err := url.Parse(redirect)
	require.NoError(t, err)
	require.Equal(t, "success", u.Query().Get("status"), redirect)
	id, err := uuid.Parse(u.Query().Get("connection_id"))
	require.NoError(t, err)
	return id
}

// code checks that err is a failure with this code and returns it.
func code(t *testing.T, want broker.Code, err error) *broker.Error {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, broker.CodeOf(err), "%v", err)
	var e *broker.Error
	require.ErrorAs(t, err, &e)
	require.NotEmpty(t, e.Message)
	require.NotContains(t, err.Error(), clientSecret)
	return e
}

func (h *house) status(id uuid.UUID) broker.ConnectionStatus {
	h.t.Helper()
	c, err := h.store.Connection(h.t.Context(), id)
	require.NoError(h.t, err)
	return c.Status
}

func (h *house) provider(id uuid.UUID) broker.Provider {
	h.t.Helper()
	p, err := h.store.Provider(h.t.Context(), id)
	require.NoError(h.t, err)
	return p
}

func (h *house) inVault(key string) string {
	h.t.Helper()
	v, err := h.vault.Get(context.WithoutCancel(h.t.Context()), key)
	if err != nil {
		require.ErrorIs(h.t, err, secret.ErrNotFound)
	}
	return v
}

func (h *house) events(t audit.Type) []audit.Event {
	h.t.Helper()
	list, err := broker.All(h.AuditEvents(h.t.Context(), audit.Filter{Type: t}))
	require.NoError(h.t, err)
	return list
}

func field(t *testing.T, a broker.TokenAnswer, name string) string {
	t.Helper()
	var s string
	require.NoError(t, json.Unmarshal(a.Token.Fields()[name], &s))
	return s
}

// eventually waits for what a sweep does.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 10*time.Second, 10*time.Millisecond, what)
}

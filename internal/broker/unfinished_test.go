package broker_test

import (
	"context"
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// shared is a database that the existing broker made and uses still.
type shared struct {
	t   *testing.T
	url string
	db  *sql.DB
}

func newShared(t *testing.T) shared {
	url := servers.Postgres(t)
	db, err := sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	x := shared{t, url, db}
	tables, err := os.ReadFile("../store/migrations/postgres/00001_tables_of_the_existing_broker.sql")
	require.NoError(t, err)
	x.exec(string(tables))
	return x
}

func (x shared) exec(statement string, args ...any) {
	x.t.Helper()
	_, err := x.db.Exec(statement, args...)
	require.NoError(x.t, err)
}

// insert registers a provider as the existing broker does.
func (x shared) insert(h *house, name string) (id uuid.UUID) {
	x.t.Helper()
	require.NoError(x.t, x.db.QueryRow(`INSERT INTO provider_profiles (name, client_id, client_secret, auth_url, token_url, auth_header)
		VALUES ($1, $2, $3, $4, $5, 'client_secret_basic') RETURNING id`, name, clientID, clientSecret,
		h.op.URL(oauthtest.Authorization), h.op.URL(oauthtest.Token)).Scan(&id))
	return id
}

func (x shared) pair(id uuid.UUID) (pair [2]string) {
	x.t.Helper()
	require.NoError(x.t, x.db.QueryRow(`SELECT COALESCE(client_id, ''), COALESCE(client_secret, '') FROM provider_profiles WHERE id = $1`, id).
		Scan(&pair[0], &pair[1]))
	return pair
}

func (x shared) finish(h *house) {
	x.t.Helper()
	m, err := h.store.Migrator()
	require.NoError(x.t, err)
	ring, err := seal.NewKeyring([]byte(strings.Repeat("k", seal.KeyBytes)))
	require.NoError(x.t, err)
	done, err := m.WithKeys(ring).Finish(x.t.Context(), true)
	require.NoError(x.t, err)
	require.False(x.t, done.Already)
}

var nothing = [2]string{}

// TestAPairInTheRowGoesToTheVaultWhenItIsWritten: the columns are emptied by the switch.
func TestAPairInTheRowGoesToTheVaultWhenItIsWritten(t *testing.T) {
	t.Parallel()
	x := newShared(t)
	h := newHouse(t, options{postgres: x.url})
	id := x.insert(h, "google")
	h.connect(id)
	require.NotEmpty(t, h.events(audit.CredentialsRead), "a read from the row is audited like any other")
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Description: broker.Given("d")}))
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text(clientSecret)}), "the same values")
	require.Equal(t, [2]string{clientID, clientSecret}, x.pair(id))

	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("another")}))
	require.Equal(t, nothing, x.pair(id))
	require.Equal(t, clientID, h.inVault("google/client_id"))
	require.Equal(t, "another", h.inVault("google/client_secret"))
	require.Equal(t, vaultName, h.provider(id).Credentials.Backend)
}

// TestWhoDoesNotKnowThatTheUpgradeIsFinished: a process that believes that the existing broker
// uses the database learns better from what the database refuses, and nothing fails.
func TestWhoDoesNotKnowThatTheUpgradeIsFinished(t *testing.T) {
	t.Parallel()
	x := newShared(t)
	h := newHouse(t, options{postgres: x.url, internal: true})
	id := h.register("google")
	require.Equal(t, [2]string{clientID, clientSecret}, x.pair(id))
	bare, err := h.Register(t.Context(), broker.ProfileInput{Name: broker.Given("bare"), AuthType: broker.Given(broker.AuthAPIKey)})
	require.NoError(t, err)
	connection := h.connect(id)
	behind := h.agree(h.begin(id))

	for name, do := range map[string]func(h *house){
		"registers": func(h *house) {
			made := h.register("later")
			require.Equal(t, "later", h.provider(made).Credentials.Key)
		},
		"updates": func(h *house) {
			require.NoError(t, h.PatchProvider(t.Context(), bare, broker.ProfileInput{ClientID: text("x"), ClientSecret: text("y")}))
			require.Equal(t, "bare", h.provider(bare).Credentials.Key)
		},
		"asks for a consent": func(h *house) { h.connect(id) },
	} {
		_ = name
		late := newHouse(t, options{postgres: x.url, internal: true, wrap: func(s broker.Store) broker.Store { return believer{s} }})
		late.op = h.op
		defer func() { do(late) }()
	}
	x.finish(h)
	require.Equal(t, nothing, x.pair(id))
	require.Equal(t, "google", h.provider(id).Credentials.Key)
	_, err = h.Refresh(t.Context(), connection)
	require.NoError(t, err)
	_, err = h.Complete(t.Context(), behind)
	require.NoError(t, err)
}

// believer is a database that says for ever that its upgrade is not finished.
type believer struct{ broker.Store }

func (believer) Unfinished(context.Context) (bool, error) { return true, nil }

// TestADeletedProviderKeepsItsPairInTheRow: its connections go on refreshing, with both
// brokers.
func TestADeletedProviderKeepsItsPairInTheRow(t *testing.T) {
	t.Parallel()
	x := newShared(t)
	h := newHouse(t, options{postgres: x.url, internal: true})
	id := x.insert(h, "google")
	connection := h.connect(id)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	h.SweepOnce(t.Context())
	require.Equal(t, [2]string{clientID, clientSecret}, x.pair(id))
	_, err := h.Refresh(t.Context(), connection)
	require.NoError(t, err)
	h.register("google") // the name is free
	x.finish(h)
	require.Equal(t, "id."+id.String(), h.provider(id).Credentials.Key)
	_, err = h.Refresh(t.Context(), connection)
	require.NoError(t, err)
}

// TestAPlaintextVerifierIsOfNoWorthInAFinishedDatabase: nothing binds it to its consent.
func TestAPlaintextVerifierIsOfNoWorthInAFinishedDatabase(t *testing.T) {
	t.Parallel()
	url := servers.Postgres(t)
	h := newHouse(t, options{postgres: url, internal: true})
	x := shared{t: t, url: url}
	var err error
	x.db, err = sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = x.db.Close() })
	cb := h.agree(h.begin(h.register("google")))
	x.exec(`ALTER TABLE connections DROP CONSTRAINT connections_no_plaintext`)
	var id uuid.UUID
	var sealed string
	require.NoError(t, x.db.QueryRow(`SELECT id, code_verifier FROM connections`).Scan(&id, &sealed))
	ring, err := seal.NewKeyring([]byte(strings.Repeat("k", seal.KeyBytes)))
	require.NoError(t, err)
	verifier, err := ring.Open(broker.VerifierPurpose(id), sealed)
	require.NoError(t, err)
	x.exec(`UPDATE connections SET code_verifier = $1`, string(verifier)) // one that the provider takes
	_, err = h.Complete(t.Context(), cb)
	code(t, broker.CodeTokenExchangeFailed, err)
}

// TestAConsentIsGivenBackWhileTheUpgradeIsUnfinished: as it was, so that either broker can
// complete it; also if the upgrade is finished meanwhile.
func TestAConsentIsGivenBackWhileTheUpgradeIsUnfinished(t *testing.T) {
	t.Parallel()
	x := newShared(t)
	h := newHouse(t, options{postgres: x.url, internal: true})
	id := x.insert(h, "google")
	c := h.begin(id)
	verifier := func() (v string) {
		require.NoError(t, x.db.QueryRow(`SELECT code_verifier FROM connections`).Scan(&v))
		return v
	}
	before := verifier()
	require.False(t, seal.Sealed(before))
	cb := h.agree(c)
	h.op.SetSecret(clientID, "the provider's new secret that the broker does not have")
	_, err := h.Complete(t.Context(), cb)
	code(t, broker.CodeCredentialsRejected, err)
	require.Equal(t, before, verifier())

	x.finish(h)
	h.op.SetSecret(clientID, clientSecret)
	h.connectWith(c)
}

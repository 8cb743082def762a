package e2e_test

import (
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// fragile is a world whose messages can be stopped one by one, for brokers that are
// killed in it.
type fragile struct {
	world // its env goes past every turnstile
	// through returns the environment of a broker whose messages pass g.
	through func(t *testing.T, g *turnstile) env
	// keys returns every key of which the secret backend has kept anything.
	keys func(t *testing.T) []string
	db   *sql.DB
	// fewer: a normal run only kills, and only at what is said to the secret backend. What
	// is said to the database is the same as in another world.
	fewer bool
}

// crashTimeout is the SECRET_TIMEOUT of these brokers: it decides how long what a dead
// process has claimed stays claimed.
const crashTimeout = 2 * time.Second

// claimTime is after what time nobody holds anything any more that a dead or a beaten
// operation has held, and its notes are due: internal/broker/operation.go.
const claimTime = 8*crashTimeout + 5*time.Second

// fragileWorlds are the worlds by name, each with a database of its own.
func fragileWorlds() map[string]func(*testing.T) *fragile {
	return map[string]func(*testing.T) *fragile{
		"internal": fragileInternal, "Vault": fragileVault, "AWS": fragileAWS, "GCP": fragileGCP,
	}
}

func newFragile(t *testing.T) *fragile {
	t.Helper()
	url := servers.Postgres(t)
	f := &fragile{world: world{env: base().with(env{
		"DATABASE_URL": url, "SECRET_TIMEOUT": crashTimeout.String(), "SECRET_CACHE_TTL": "0",
	})}}
	f.through = func(t *testing.T, g *turnstile) env { return f.env.with(env{"DATABASE_URL": g.database(t, url)}) }
	var err error
	f.db, err = sql.Open("pgx", url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.db.Close() })
	return f
}

func fragileInternal(t *testing.T) *fragile {
	f := newFragile(t)
	ring, err := seal.NewKeyring([]byte(strings.Repeat("encryption-key-of-the-e2e-tests.", 2)[:32]))
	require.NoError(t, err)
	f.look = func(t *testing.T, key string) string {
		var sealed string
		err := f.db.QueryRowContext(t.Context(), "SELECT sealed FROM sealed_secrets WHERE key = $1", key).Scan(&sealed)
		if errors.Is(err, sql.ErrNoRows) {
			return ""
		}
		require.NoError(t, err)
		value, err := ring.Open("secret/"+key, sealed)
		require.NoError(t, err)
		return string(value)
	}
	f.keys = func(t *testing.T) []string { return f.strings(t, "SELECT key FROM sealed_secrets ORDER BY key") }
	return f
}

func fragileVault(t *testing.T) *fragile {
	v := servers.Vault(t)
	v.Policy("nexus", readWrite)
	f := newFragile(t)
	f.world = vaultWorld(f.world, "", v, "secret", 2, env{"VAULT_TOKEN": v.Token([]string{"nexus"}, nil)})
	prefix := strings.TrimPrefix(strings.TrimSuffix(f.path(""), "/"), "secret/")
	database := f.through
	f.through = func(t *testing.T, g *turnstile) env {
		url := g.http(t, v.Addr, func(r *http.Request) string {
			path, found := strings.CutPrefix(r.URL.Path, "/v1/secret/")
			if !found {
				return ""
			}
			return r.Method + " " + strings.Replace(path, prefix+"/", "", 1)
		}, servers.Answer(http.StatusServiceUnavailable, "application/json", `{"errors":["Vault is sealed"]}`))
		return database(t, g).with(env{"VAULT_ADDR": url})
	}
	var list func(t *testing.T, folder string) []string
	list = func(t *testing.T, folder string) (keys []string) {
		status, answer := v.Do("LIST", "secret/metadata/"+prefix+"/"+folder, nil)
		if status == http.StatusNotFound {
			return nil
		}
		require.Equal(t, http.StatusOK, status)
		for _, k := range answer["data"].(map[string]any)["keys"].([]any) {
			if name := folder + k.(string); strings.HasSuffix(name, "/") {
				keys = append(keys, list(t, name)...)
			} else {
				keys = append(keys, name)
			}
		}
		slices.Sort(keys)
		return keys
	}
	f.keys = func(t *testing.T) []string { return list(t, "") }
	return f
}

// strings returns the column that a query gives.
func (f *fragile) strings(t *testing.T, query string) []string {
	t.Helper()
	rows, err := f.db.QueryContext(t.Context(), query)
	require.NoError(t, err)
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		require.NoError(t, rows.Scan(&s))
		all = append(all, s)
	}
	require.NoError(t, rows.Err())
	return all
}

// unfinished returns what the database says is still to be done.
func (f *fragile) unfinished(t *testing.T) []string {
	t.Helper()
	return f.strings(t, `SELECT op || ' of ' || name FROM provider_profiles WHERE op IS NOT NULL
		UNION ALL SELECT 'deletion of ' || secret_key FROM credential_cleanups ORDER BY 1`)
}

// startSwept starts a broker and waits until its first sweep has ended: killed in the
// middle of it, it would keep others from theirs.
func startSwept(t *testing.T, e env) *process {
	t.Helper()
	return start(t, e).swept()
}

// swept waits until the first sweep of a broker has ended, and returns the broker.
func (p *process) swept() *process {
	p.t.Helper()
	eventually(p.t, "the first sweep ends", func() bool {
		return strings.Contains(p.log.String(), `"swept"`) || strings.Contains(p.log.String(), `"not swept: `)
	})
	return p
}

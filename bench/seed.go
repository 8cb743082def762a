package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// The ids of generated rows follow from their number, so that the loader, load.lua
// and pgbench agree on them, and they lie as scattered in an index as random ones.
const (
	connectionKind = "8000"
	providerKind   = "9000"
)

func generatedID(n int, kind string) uuid.UUID {
	return uuid.MustParse(fmt.Sprintf("%08x-0000-4000-%s-%012d", uint32(uint64(n)*2654435761), kind, n))
}

// idSQL is generatedID of a bigint in SQL.
func idSQL(n, kind string) string {
	return fmt.Sprintf("(lpad(to_hex(%[1]s * 2654435761 %% 4294967296), 8, '0') || '-0000-4000-%[2]s-' || lpad((%[1]s)::text, 12, '0'))::uuid",
		n, kind)
}

// world is a broker on a database of its own, in which rows were generated.
type world struct {
	*instance
	database    string // URL
	provider    string // id of the one that was registered with the broker
	providers   int    // generated besides
	connections int    // generated, all active and with a token
}

// world starts a broker on a fresh database and generates rows: connections are
// spread over the generated providers, or belong to the registered one if there are
// none.
func (l *lab) world(ctx context.Context, providers, connections int, more env) (*world, error) {
	w := &world{database: l.cluster.Database(l), providers: providers, connections: connections}
	b, err := l.start(ctx, env{"DATABASE_URL": w.database}.with(more))
	if err != nil {
		return nil, err
	}
	w.instance = b
	w.provider, err = b.register(ctx, providerProfile("bench", "https://login.example.com/authorize", "https://login.example.com/token"))
	if err == nil { // the connection of which copies are made
		err = b.must(ctx, http.StatusOK, http.MethodPost, "/auth/consent-spec", consentRequest(w.provider), nil)
	}
	if err == nil {
		err = w.generate(ctx)
	}
	return w, err
}

func (w *world) generate(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, w.database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	ring, err := seal.NewKeyring([]byte(encryptionKey))
	if err != nil {
		return err
	}
	g := generator{conn: conn, ring: ring, world: w}
	steps := []func(context.Context) error{
		// Every row refers to one that is there: it need not be checked a million times.
		g.statement("SET session_replication_role = replica"),
		g.copyProviders, g.copyCredentials, g.copyConnections, g.copyTokens,
		g.statement("VACUUM ANALYZE"), g.statement("CHECKPOINT"),
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return fmt.Errorf("generating rows: %w", err)
		}
	}
	return nil
}

type generator struct {
	conn  *pgx.Conn
	ring  *seal.Keyring
	world *world
}

func (g generator) statement(sql string, args ...any) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := g.conn.Exec(ctx, sql, args...)
		return err
	}
}

func providerName(n int) string { return fmt.Sprintf("generated-%d", n) }

// copyProviders copies the registered provider, under other names and keys.
func (g generator) copyProviders(ctx context.Context) error {
	return g.statement(`INSERT INTO provider_profiles SELECT copy.* FROM provider_profiles p, generate_series(1, $1::bigint) n,
		LATERAL jsonb_populate_record(p, jsonb_build_object('id', `+idSQL("n", providerKind)+`,
			'name', 'generated-' || n, 'secret_key', 'generated-' || n,
			'created_at', p.created_at - n * interval '1 second')) copy`, g.world.providers)(ctx)
}

// copyCredentials seals a pair for every generated provider.
func (g generator) copyCredentials(ctx context.Context) error {
	keys := []string{credentials.ClientIDKey, credentials.ClientSecretKey}
	values := []string{clientID, clientSecret}
	now := time.Now()
	return g.copyRows(ctx, "sealed_secrets", []string{"key", "sealed", "version", "created_at", "updated_at"},
		2*g.world.providers, func(i int) []any {
			key := providerName(i/2+1) + "/" + keys[i%2]
			return []any{key, g.ring.Seal("secret/"+key, []byte(values[i%2])), 1, now, now}
		})
}

// copyConnections makes active copies of the one connection that there is.
func (g generator) copyConnections(ctx context.Context) error {
	provider := "c.provider_id"
	if g.world.providers > 0 {
		provider = idSQL(fmt.Sprintf("(n %% %d + 1)", g.world.providers), providerKind)
	}
	return g.statement(`INSERT INTO connections SELECT copy.* FROM connections c, generate_series(1, $1::bigint) n,
		LATERAL jsonb_populate_record(c, jsonb_build_object('id', `+idSQL("n", connectionKind)+`,
			'provider_id', `+provider+`, 'status', 'active', 'code_verifier', null, 'expires_at', null)) copy`,
		g.world.connections)(ctx)
}

// copyTokens seals a token of usual size for every generated connection.
func (g generator) copyTokens(ctx context.Context) error {
	plain, err := json.Marshal(map[string]any{
		"access_token": "ya29." + strings.Repeat("a", 180), "refresh_token": "1//" + strings.Repeat("r", 100),
		"token_type": "Bearer", "expires_in": 3600, "scope": "read write",
	})
	if err != nil {
		return err
	}
	now := time.Now()
	return g.copyRows(ctx, "tokens", []string{"id", "connection_id", "encrypted_data", "expires_at", "created_at"},
		g.world.connections, func(i int) []any {
			id := generatedID(i+1, connectionKind)
			return []any{id, id, g.ring.Seal(broker.TokenPurpose(id), plain), now.Add(time.Hour), now}
		})
}

func (g generator) copyRows(ctx context.Context, table string, columns []string, n int, values func(i int) []any) error {
	i := 0
	_, err := g.conn.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromFunc(func() ([]any, error) {
		if i == n {
			return nil, nil
		}
		i++
		return values(i - 1), nil
	}))
	return err
}

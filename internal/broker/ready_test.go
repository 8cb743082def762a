package broker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// quickStore is a database of which only readiness is asked, so that a test of time needs
// no real one.
type quickStore struct{ broker.Store }

func (quickStore) Ping(context.Context) error                   { return nil }
func (quickStore) Record(context.Context, ...audit.Event) error { return nil }

// readyService returns a service of which only readiness is asked.
func readyService(t *testing.T, db broker.Store, o credentials.Options, c broker.Config) *broker.Service {
	t.Helper()
	o.Audit, o.Logger = quickStore{}, slog.New(slog.DiscardHandler)
	creds, err := credentials.New(o)
	require.NoError(t, err)
	t.Cleanup(creds.Close)
	return broker.New(c, broker.Deps{
		Store: db, Credentials: creds, Metrics: metrics.New(nil), Logger: slog.New(slog.DiscardHandler),
	})
}

// A backend that hangs must not take the broker out of service: an orchestrator's probe
// gives it a second, however rarely it asks.
func TestReadinessOfABackendThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := memory.NewFaulty(memory.New())
		s := readyService(t, quickStore{}, credentials.Options{
			Backends: []credentials.Backend{{Name: vaultName, Store: vault, External: true}}, WriteTo: vaultName,
		}, broker.Config{})
		require.Equal(t, broker.Ready, s.Ready(t.Context()).Status)
		vault.Stall()
		var last broker.Readiness
		for range 5 {
			time.Sleep(16 * time.Second)
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			last = s.Ready(ctx)
			require.NoError(t, ctx.Err())
			cancel()
			require.LessOrEqual(t, time.Since(began), 300*time.Millisecond)
			require.NotEqual(t, broker.Unavailable, last.Status)
		}
		require.Equal(t, broker.Degraded, last.Status)
		require.Equal(t, "unavailable", last.Secrets.Status)
		require.Equal(t, "ok", last.Database.Status)
	})
}

// A key that does not open everything is worth a look, and no reason to serve nobody.
func TestReadinessWithAKeyThatDoesNotOpenEverything(t *testing.T) {
	t.Parallel()
	s := readyService(t, quickStore{}, credentials.Options{
		Backends: []credentials.Backend{{Name: vaultName, Store: memory.New(), External: true}}, WriteTo: vaultName,
	}, broker.Config{KeyFault: "ENCRYPTION_KEY does not open 1 of 2"})
	r := s.Ready(t.Context())
	require.Equal(t, broker.Degraded, r.Status)
	require.Equal(t, broker.Component{Status: "unavailable", Message: "ENCRYPTION_KEY does not open 1 of 2"}, r.EncryptionKey)
}

// A row that names a backend for which there are no variables has flows that fail: that is
// not a broker that is well.
func TestReadinessWithABackendThatIsNotConfigured(t *testing.T) {
	t.Parallel()
	creds := credentials.Options{
		Backends: []credentials.Backend{{Name: credentials.Internal, Store: memory.New()}}, WriteTo: credentials.Internal,
		Further: func(string) (credentials.Backend, error) {
			return credentials.Backend{}, errors.New("VAULT_ADDR is not set")
		},
	}
	s := readyService(t, movedAway{}, creds, broker.Config{})
	require.Equal(t, broker.Ready, s.Ready(t.Context()).Status)
	view, err := s.Provider(t.Context(), uuid.New())
	require.NoError(t, err)
	require.Equal(t, credentials.Unknown, view.Provider.Credentials.State, "whatever was known when it was moved")
	r := s.Ready(t.Context())
	require.Equal(t, broker.Degraded, r.Status)
	require.Equal(t, vaultName, r.Secrets.Backend)
	require.NotEqual(t, "ok", r.Secrets.Status)
	require.NotContains(t, r.Secrets.Message, "VAULT_ADDR", "health is public")
	_, err = s.Begin(t.Context(), request(uuid.New()))
	require.NotContains(t, code(t, broker.CodeSecretBackendDenied, err).Message, "VAULT_ADDR", "the log says it")
	require.ErrorContains(t, err, "VAULT_ADDR")
}

// movedAway is a database whose providers have their credentials in a vault.
type movedAway struct{ quickStore }

func (movedAway) Provider(_ context.Context, id uuid.UUID) (broker.Provider, error) {
	p := broker.Provider{ID: id, Profile: broker.Profile{
		Name: "google", AuthType: broker.AuthOAuth2, AuthURL: "https://op.test/a", TokenURL: "https://op.test/t",
	}}
	p.Credentials = credentials.Ref{ProviderID: id, Backend: vaultName, Key: "google", Managed: true, State: credentials.Ready, Generation: 1}
	return p, nil
}

// standby is a database that answers and takes no writes.
type standby struct{ quickStore }

func (standby) Ping(context.Context) error { return fmt.Errorf("postgres: %w", broker.ErrReadOnly) }

// No token can leave the broker whose database does not take the event of it.
func TestReadinessOfAReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	s := readyService(t, standby{}, credentials.Options{
		Backends: []credentials.Backend{{Name: vaultName, Store: memory.New(), External: true}}, WriteTo: vaultName,
	}, broker.Config{})
	r := s.Ready(t.Context())
	require.Equal(t, broker.Unavailable, r.Status)
	require.Equal(t, "unavailable", r.Database.Status)
	require.Contains(t, r.Database.Message, "read-only")
}

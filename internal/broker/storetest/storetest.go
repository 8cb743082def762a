// Package storetest is the conformance suite of broker.Store: every sentence of the
// interface's comments has a test here, and every implementation passes all of them.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// Run runs the suite. open returns an empty store, which the suite closes.
func Run(t *testing.T, open func(t *testing.T) broker.Store) {
	groups := []struct {
		name  string
		tests []test
	}{
		{"providers", providerTests},
		{"operations", operationTests},
		{"cleanups", cleanupTests},
		{"moves", moveTests},
		{"connections", connectionTests},
		{"tokens", tokenTests},
		{"refreshes", refreshTests},
		{"reconsents", reconsentTests},
		{"revocations", revocationTests},
		{"listings", listingTests},
		{"audit", auditTests},
		{"concurrency", concurrencyTests},
		{"texts", textTests},
		{"store", storeTests},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, test := range g.tests {
				t.Run(test.name, func(t *testing.T) {
					store := open(t)
					t.Cleanup(func() { require.NoError(t, store.Close()) })
					test.run(&suite{T: t, store: store, ctx: t.Context(), now: time.Date(2031, 5, 6, 7, 8, 9, 123456000, time.UTC)})
				})
			}
		})
	}
}

type test struct {
	name string
	run  func(*suite)
}

// suite is what a test works with.
type suite struct {
	*testing.T
	store broker.Store
	ctx   context.Context
	now   time.Time // a moment of the caller's time, which is not the machine's
}

var serial atomic.Int64

// newProvider returns a provider that is not stored, with every field set.
func (s *suite) newProvider() broker.Provider {
	n := serial.Add(1)
	return broker.Provider{
		ID: uuid.New(),
		Profile: broker.Profile{
			Name: fmt.Sprintf("provider-%d", n), AuthType: broker.AuthOAuth2, AuthHeader: "client_secret_basic",
			AuthURL: "https://idp.example/authorize", TokenURL: "https://idp.example/token", Issuer: "https://idp.example",
			EnableDiscovery: true, Scopes: []string{"openid", `a "quoted" scope`}, APIBaseURL: "https://api.example",
			UserInfoEndpoint: "/me", RevocationURL: "https://idp.example/revoke",
			Params: broker.Params(`{"prompt": "consent", "n": 12345678901234567890}`), Description: "für alle ☂", Category: "crm",
		},
		Credentials: credentials.Ref{
			Backend: "internal", Key: fmt.Sprintf("provider-%d", n), Managed: true, Public: true, Optional: true,
			State: credentials.Ready, Generation: 7,
		},
		Health:    broker.Health{Status: broker.HealthUnknown},
		CreatedAt: s.now, UpdatedAt: s.now.Add(time.Second),
	}
}

func (s *suite) newOp(kind broker.OpKind) broker.Op {
	return broker.Op{ID: uuid.New(), Kind: kind, TTL: time.Minute}
}

// reserve stores a reservation.
func (s *suite) reserve() (broker.Provider, broker.Op) {
	s.Helper()
	p, op := s.newProvider(), s.newOp(broker.OpRegister)
	require.NoError(s, s.store.ReserveProvider(s.ctx, p, op))
	return p, op
}

// publish stores a published provider, changed by each of change first.
func (s *suite) publish(change ...func(*broker.Provider)) broker.Provider {
	s.Helper()
	p, op := s.newProvider(), s.newOp(broker.OpRegister)
	for _, c := range change {
		c(&p)
	}
	require.NoError(s, s.store.ReserveProvider(s.ctx, p, op))
	require.NoError(s, s.store.PublishProvider(s.ctx, p, op))
	return p
}

// begin claims a provider.
func (s *suite) begin(id uuid.UUID, kind broker.OpKind) broker.Op {
	s.Helper()
	op := s.newOp(kind)
	_, err := s.store.BeginOp(s.ctx, id, op, false)
	require.NoError(s, err)
	return op
}

// runOut lets a claim run out.
func (s *suite) runOut(id uuid.UUID, op broker.Op) {
	s.Helper()
	op.TTL = 0
	require.NoError(s, s.store.KeepOp(s.ctx, id, op))
}

// remove deletes a provider, with the credentials that its row shall name afterwards.
func (s *suite) remove(p broker.Provider, ref credentials.Ref) broker.Provider {
	s.Helper()
	op := s.begin(p.ID, broker.OpDelete)
	p.DeletedAt, p.UpdatedAt, p.Credentials = s.now, s.now, ref
	require.NoError(s, s.store.DeleteProvider(s.ctx, p, op, nil, nil))
	return p
}

// pending stores a pending connection.
func (s *suite) pending(providerID uuid.UUID) broker.Connection {
	s.Helper()
	c := broker.Connection{
		ID: uuid.New(), WorkspaceID: "ws-1", ProviderID: providerID, Status: broker.StatusPending,
		CodeVerifier: "nb1.sealed verifier", Scopes: []string{"read"}, ReturnURL: "https://app.example/done?x=1",
		CreatedAt: s.now, UpdatedAt: s.now, ExpiresAt: s.now.Add(10 * time.Minute),
	}
	require.NoError(s, s.store.CreateConnection(s.ctx, c))
	return c
}

// active stores an active connection with a token.
func (s *suite) active(providerID uuid.UUID) (broker.Connection, broker.StoredToken) {
	s.Helper()
	c := s.pending(providerID)
	token := broker.StoredToken{Sealed: "sealed token " + c.ID.String(), ExpiresAt: s.now.Add(time.Hour)}
	require.NoError(s, s.store.CompleteConnection(s.ctx, c, token, s.now))
	return c, token
}

func (s *suite) connection(id uuid.UUID) broker.Connection {
	s.Helper()
	c, err := s.store.Connection(s.ctx, id)
	require.NoError(s, err)
	return c
}

func (s *suite) provider(id uuid.UUID) broker.Provider {
	s.Helper()
	p, err := s.store.Provider(s.ctx, id)
	require.NoError(s, err)
	return p
}

func (s *suite) newCleanup() broker.Cleanup {
	return broker.Cleanup{
		ID: uuid.New(), Backend: "hashicorp-vault", Key: fmt.Sprintf("place-%d", serial.Add(1)), ProviderID: uuid.New(),
		Generation: 3, Published: true, CreatedAt: s.now.Add(-time.Hour),
	}
}

func (s *suite) addCleanup(change ...func(*broker.Cleanup)) broker.Cleanup {
	s.Helper()
	c := s.newCleanup()
	for _, f := range change {
		f(&c)
	}
	require.NoError(s, s.store.AddCleanups(s.ctx, c))
	return c
}

// newEvent returns an event about a connection; uuid.Nil: about none.
func (s *suite) newEvent(t audit.Type, connectionID uuid.UUID) audit.Event {
	return audit.Event{
		ID: uuid.Must(uuid.NewV7()), ConnectionID: connectionID, Type: t, Data: map[string]any{"k": "v"},
		IPAddress: "192.0.2.1", UserAgent: "test", CreatedAt: s.now,
	}
}

// brokenEvent is one that no store can take: its connection does not exist.
func (s *suite) brokenEvent() audit.Event { return s.newEvent(audit.ProviderNotFound, uuid.New()) }

// events returns the ids of all events of a type.
func (s *suite) events(t audit.Type) (ids []uuid.UUID) {
	s.Helper()
	list, err := broker.All(s.store.AuditEvents(s.ctx, audit.Filter{Type: t}))
	require.NoError(s, err)
	for _, e := range list {
		ids = append(ids, e.ID)
	}
	return ids
}

// equalProvider compares providers; of params, what they mean.
func (s *suite) equalProvider(want, got broker.Provider) {
	s.Helper()
	if want.Profile.Params == nil {
		require.Nil(s, got.Profile.Params)
	} else {
		require.JSONEq(s, string(want.Profile.Params), string(got.Profile.Params))
	}
	want.Profile.Params, got.Profile.Params = nil, nil
	if !want.Credentials.IsZero() {
		want.Credentials.ProviderID = want.ID // is of the row, not in it
	}
	require.Equal(s, want, got)
}

func providerIDs(list []broker.Provider) (ids []uuid.UUID) {
	for _, p := range list {
		ids = append(ids, p.ID)
	}
	return ids
}

func cleanupIDs(list []broker.Cleanup) (ids []uuid.UUID) {
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

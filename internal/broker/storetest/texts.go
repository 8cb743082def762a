package storetest

import (
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

var textTests = []test{
	{"SQL in every field is text", func(s *suite) {
		const attack = `'; DROP TABLE connections; -- " \ $1 ? :x %s {}`
		p := s.publish(func(p *broker.Provider) {
			p.Profile = broker.Profile{
				Name: attack, AuthType: attack, AuthHeader: attack, AuthURL: attack, TokenURL: attack, Issuer: attack,
				Scopes: []string{attack, "", "{}", "NULL", `"`}, APIBaseURL: attack, UserInfoEndpoint: attack,
				RevocationURL: attack, Params: broker.Params(mustJSON(map[string]string{attack: attack})),
				Description: attack, Category: attack,
			}
			p.Credentials.Backend, p.Credentials.Key = attack, attack
		})
		s.equalProvider(p, s.provider(p.ID))
		require.Equal(s, []uuid.UUID{p.ID}, providerIDs(s.listings(attack)[0]))

		c := s.pending(p.ID)
		c.ID, c.WorkspaceID, c.ReturnURL, c.CodeVerifier, c.Scopes = uuid.New(), attack, attack, "nb1."+attack, []string{attack}
		require.NoError(s, s.store.CreateConnection(s.ctx, c))
		require.Equal(s, c, s.connection(c.ID))
		require.NoError(s, s.store.CompleteConnection(s.ctx, c, broker.StoredToken{Sealed: attack}, s.now))
		require.NoError(s, s.store.ReplaceToken(s.ctx, c.ID, attack, broker.StoredToken{Sealed: attack + "2"}, s.now))
		require.Equal(s, attack+"2", s.token(c.ID).Sealed)

		e := s.newEvent(audit.Type(attack), c.ID)
		e.UserAgent, e.IPAddress, e.Data = attack, attack, map[string]any{attack: attack}
		require.NoError(s, s.store.Record(s.ctx, e))
		e.IPAddress = ""
		require.Equal(s, []audit.Event{e}, s.audit(audit.Filter{Type: audit.Type(attack)}))

		cleanup := s.addCleanup(func(c *broker.Cleanup) { c.Backend, c.Key, c.LastError = attack, attack, attack })
		require.Equal(s, []uuid.UUID{cleanup.ID}, cleanupIDs(s.claimDue()))
		ok, err := s.store.Lease(s.ctx, attack, attack, time.Minute)
		require.NoError(s, err)
		require.True(s, ok)
	}},
	{"what cannot be stored is refused", testUnstorable},
	{"what just fits is stored", func(s *suite) {
		p := s.publish(func(p *broker.Provider) {
			p.Profile.Name, p.Profile.Category = strings.Repeat("ü", 255), strings.Repeat("☂", 100)
		})
		s.equalProvider(p, s.provider(p.ID))
		c := s.pending(p.ID)
		c.ID, c.WorkspaceID = uuid.New(), strings.Repeat("x", 255)
		require.NoError(s, s.store.CreateConnection(s.ctx, c))
	}},
	{"a health message is made storable", func(s *suite) {
		p := s.publish()
		require.NoError(s, s.store.SetHealth(s.ctx, p.ID, broker.Health{Status: broker.HealthUnreachable, Message: "a\x00\xffb", CheckedAt: s.now}))
		require.Equal(s, "a\uFFFD\uFFFDb", s.provider(p.ID).Health.Message)
	}},
	{"no provider has an impossible name", func(s *suite) {
		list, err := s.store.ProvidersByName(s.ctx, "a\x00")
		require.NoError(s, err)
		require.Empty(s, list)
	}},
}

func testUnstorable(s *suite) {
	const nul, noUTF8 = "a\x00b", "a\xffb"
	changes := map[string]func(*broker.Profile){
		"NUL in the name":         func(p *broker.Profile) { p.Name = nul },
		"no UTF-8 in the name":    func(p *broker.Profile) { p.Name = noUTF8 },
		"a name that is too long": func(p *broker.Profile) { p.Name = strings.Repeat("x", 256) },
		"a category too long":     func(p *broker.Profile) { p.Category = strings.Repeat("x", 101) },
		"NUL in a scope":          func(p *broker.Profile) { p.Scopes = []string{"a", nul} },
		"no UTF-8 in a URL":       func(p *broker.Profile) { p.AuthURL = noUTF8 },
		"NUL in the params":       func(p *broker.Profile) { p.Params = broker.Params(`{"a": ["\u0000"]}`) },
		"params that are no JSON": func(p *broker.Profile) { p.Params = broker.Params(`{"a":`) },
	}
	published := s.publish()
	op := s.begin(published.ID, broker.OpUpdate)
	for name, change := range changes {
		p := s.newProvider()
		change(&p.Profile)
		require.ErrorIs(s, s.store.ReserveProvider(s.ctx, p, s.newOp(broker.OpRegister)), broker.ErrUnstorable, name)
		p.ID = published.ID
		require.ErrorIs(s, s.store.UpdateProvider(s.ctx, p, op, nil, nil), broker.ErrUnstorable, name)
	}
	s.equalProvider(published, s.provider(published.ID))

	for name, change := range map[string]func(*broker.Connection){
		"NUL in the workspace":         func(c *broker.Connection) { c.WorkspaceID = nul },
		"a workspace that is too long": func(c *broker.Connection) { c.WorkspaceID = strings.Repeat("x", 256) },
		"no UTF-8 in the return URL":   func(c *broker.Connection) { c.ReturnURL = noUTF8 },
		"NUL in a scope":               func(c *broker.Connection) { c.Scopes = []string{nul} },
	} {
		c := s.pending(published.ID)
		c.ID = uuid.New()
		change(&c)
		require.ErrorIs(s, s.store.CreateConnection(s.ctx, c), broker.ErrUnstorable, name)
	}
}

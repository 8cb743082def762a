package storetest

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

var auditTests = []test{
	{"every field survives", func(s *suite) {
		c := s.pending(s.publish().ID)
		e := s.newEvent(audit.StateVerificationFailed, c.ID)
		e.Data = map[string]any{"big": json.Number("12345678901234567890"), "html": "<&>", "quote": `"\`, "on": true}
		require.NoError(s, s.store.Record(s.ctx, e))
		require.Equal(s, []audit.Event{e}, s.audit(audit.Filter{}))
	}},
	{"absent fields stay absent", func(s *suite) {
		e := audit.Event{ID: uuid.New(), Type: audit.ProviderNotFound, CreatedAt: s.now}
		require.NoError(s, s.store.Record(s.ctx, e))
		got := s.audit(audit.Filter{})
		require.Len(s, got, 1)
		require.Empty(s, got[0].Data)
		got[0].Data = nil
		require.Equal(s, e, got[0])
	}},
	{"addresses", func(s *suite) {
		for given, want := range map[string]string{
			"192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "fe80::1%eth0": "fe80::1", "": "",
			"unknown": "", "192.0.2.1:80": "", "192.0.2.0/24": "", "'; --": "", "\x00": "",
		} {
			e := s.newEvent(audit.ProviderNotFound, uuid.Nil)
			e.IPAddress = given
			require.NoError(s, s.store.Record(s.ctx, e), "%q", given)
			s.now = s.now.Add(time.Second)
			require.Equal(s, want, s.audit(audit.Filter{Limit: 1})[0].IPAddress, "%q", given)
		}
	}},
	{"events are recorded all or none", func(s *suite) {
		e := s.newEvent(audit.ProviderNotFound, uuid.Nil)
		require.Error(s, s.store.Record(s.ctx, e, s.brokenEvent()))
		require.Error(s, s.store.Record(s.ctx, s.brokenEvent()))
		require.Empty(s, s.audit(audit.Filter{}))
		require.NoError(s, s.store.Record(s.ctx))
		require.NoError(s, s.store.Record(s.ctx, e, s.newEvent(audit.ProviderNotFound, uuid.Nil)))
		require.Len(s, s.audit(audit.Filter{}), 2)
	}},
	{"filters", testAuditFilters},
	{"pages, newest first", testAuditPages},
	{"pruning deletes the oldest, in portions", func(s *suite) {
		var kept []uuid.UUID
		for i := range 5 {
			e := s.newEvent(audit.ProviderNotFound, uuid.Nil)
			e.CreatedAt = s.now.Add(time.Duration(i) * time.Second)
			require.NoError(s, s.store.Record(s.ctx, e))
			kept = append([]uuid.UUID{e.ID}, kept...)
		}
		prune := func(limit, want int) {
			s.Helper()
			n, err := s.store.PruneAudit(s.ctx, s.now.Add(3*time.Second), limit)
			require.NoError(s, err)
			require.Equal(s, want, n)
		}
		prune(2, 2)
		require.Equal(s, kept[:3], s.events(audit.ProviderNotFound))
		prune(2, 1)
		prune(2, 0)
		require.Equal(s, kept[:2], s.events(audit.ProviderNotFound))
	}},
}

func (s *suite) audit(f audit.Filter) []audit.Event {
	s.Helper()
	list, err := s.store.AuditEvents(s.ctx, f)
	require.NoError(s, err)
	return list
}

func testAuditFilters(s *suite) {
	p := s.publish()
	a, b := s.pending(p.ID), s.pending(p.ID)
	at := func(seconds int, t audit.Type, connectionID uuid.UUID) uuid.UUID {
		e := s.newEvent(t, connectionID)
		e.CreatedAt = s.now.Add(time.Duration(seconds) * time.Second)
		require.NoError(s, s.store.Record(s.ctx, e))
		return e.ID
	}
	e1 := at(1, audit.TokenRetrieved, a.ID)
	e2 := at(2, audit.TokenRefreshed, a.ID)
	e3 := at(3, audit.TokenRetrieved, b.ID)
	e4 := at(4, audit.ProviderDeleted, uuid.Nil)
	for name, c := range map[string]struct {
		filter audit.Filter
		want   []uuid.UUID
	}{
		"all":               {audit.Filter{}, []uuid.UUID{e4, e3, e2, e1}},
		"type":              {audit.Filter{Type: audit.TokenRetrieved}, []uuid.UUID{e3, e1}},
		"connection":        {audit.Filter{ConnectionID: a.ID}, []uuid.UUID{e2, e1}},
		"since, inclusive":  {audit.Filter{Since: s.now.Add(3 * time.Second)}, []uuid.UUID{e4, e3}},
		"until, exclusive":  {audit.Filter{Until: s.now.Add(3 * time.Second)}, []uuid.UUID{e2, e1}},
		"limit":             {audit.Filter{Limit: 3}, []uuid.UUID{e4, e3, e2}},
		"after":             {audit.Filter{After: e3}, []uuid.UUID{e2, e1}},
		"after an unknown":  {audit.Filter{After: uuid.New()}, nil},
		"an unknown type":   {audit.Filter{Type: "'; DROP TABLE audit_events; --\x00"}, nil},
		"all of them":       {audit.Filter{Type: audit.TokenRetrieved, ConnectionID: a.ID, Since: s.now, Until: s.now.Add(time.Minute), Limit: 5}, []uuid.UUID{e1}},
		"after with filter": {audit.Filter{Type: audit.TokenRetrieved, After: e2}, []uuid.UUID{e1}},
	} {
		var got []uuid.UUID
		for _, e := range s.audit(c.filter) {
			got = append(got, e.ID)
		}
		require.Equal(s, c.want, got, name)
	}
}

func testAuditPages(s *suite) {
	for range 7 { // all at the same time
		require.NoError(s, s.store.Record(s.ctx, s.newEvent(audit.ProviderNotFound, uuid.Nil)))
	}
	all := s.events(audit.ProviderNotFound)
	require.Len(s, all, 7)
	var paged []uuid.UUID
	for f := (audit.Filter{Limit: 2}); ; f.After = paged[len(paged)-1] {
		page := s.audit(f)
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			paged = append(paged, e.ID)
		}
	}
	require.Equal(s, all, paged)
}

var storeTests = []test{
	{"a lease is held by one until it runs out", func(s *suite) {
		lease := func(holder string, now time.Time) bool {
			s.Helper()
			ok, err := s.store.Lease(s.ctx, "sweep", holder, now, time.Minute)
			require.NoError(s, err)
			return ok
		}
		require.True(s, lease("a", s.now))
		require.False(s, lease("b", s.now))
		require.True(s, lease("a", s.now.Add(30*time.Second)), "renewed")
		require.False(s, lease("b", s.now.Add(89*time.Second)))
		require.True(s, lease("b", s.now.Add(90*time.Second)), "taken over")
		require.False(s, lease("a", s.now.Add(91*time.Second)))
		other, err := s.store.Lease(s.ctx, "prune", "a", s.now, time.Minute)
		require.NoError(s, err)
		require.True(s, other)
	}},
	{"it answers", func(s *suite) { require.NoError(s, s.store.Ping(s.ctx)) }},
	{"a context that has ended is an error of the context", testEndedContext},
}

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
		c.ID, c.WorkspaceID, c.ReturnURL, c.CodeVerifier, c.Scopes = uuid.New(), attack, attack, attack, []string{attack}
		require.NoError(s, s.store.CreateConnection(s.ctx, c))
		require.Equal(s, c, s.connection(c.ID))
		require.NoError(s, s.store.CompleteConnection(s.ctx, c.ID, broker.StoredToken{Sealed: attack}, s.now))
		require.NoError(s, s.store.ReplaceToken(s.ctx, c.ID, attack, broker.StoredToken{Sealed: attack + "2"}, s.now))
		require.Equal(s, attack+"2", s.token(c.ID).Sealed)

		e := s.newEvent(audit.Type(attack), c.ID)
		e.UserAgent, e.IPAddress, e.Data = attack, attack, map[string]any{attack: attack}
		require.NoError(s, s.store.Record(s.ctx, e))
		e.IPAddress = ""
		require.Equal(s, []audit.Event{e}, s.audit(audit.Filter{Type: audit.Type(attack)}))

		cleanup := s.addCleanup(func(c *broker.Cleanup) { c.Backend, c.Key, c.LastError = attack, attack, attack })
		require.Equal(s, []uuid.UUID{cleanup.ID}, cleanupIDs(s.claimDue()))
		ok, err := s.store.Lease(s.ctx, attack, attack, s.now, time.Minute)
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

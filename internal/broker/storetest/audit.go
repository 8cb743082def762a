package storetest

import (
	"encoding/json"
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
	list, err := broker.All(s.store.AuditEvents(s.ctx, f))
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

package storetest

import (
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

var tokenTests = []test{
	{"reading gives all that the answer needs and records the event", func(s *suite) {
		p := s.publish()
		c, token := s.active(p.ID)
		e := s.newEvent(audit.TokenRetrieved, c.ID)
		view, err := s.store.ReadToken(s.ctx, c.ID, e)
		require.NoError(s, err)
		require.JSONEq(s, string(p.Profile.Params), string(view.Params))
		view.Params = nil
		require.Equal(s, broker.TokenView{
			ConnectionID: c.ID, Status: broker.StatusActive, Token: token, ProviderID: p.ID, AuthType: broker.AuthOAuth2,
		}, view)
		list, err := broker.All(s.store.AuditEvents(s.ctx, audit.Filter{ConnectionID: c.ID}))
		require.NoError(s, err)
		require.Equal(s, []audit.Event{e}, list)
	}},
	{"reading what is not handed out records nothing", func(s *suite) {
		p := s.publish()
		pending := s.pending(p.ID)
		without := s.pending(p.ID)
		require.NoError(s, s.store.SetStatus(s.ctx, without.ID, broker.StatusPending, broker.StatusActive, s.now))
		attention, _ := s.active(p.ID)
		require.NoError(s, s.store.SetStatus(s.ctx, attention.ID, broker.StatusActive, broker.StatusAttention, s.now))
		for _, id := range []uuid.UUID{pending.ID, without.ID, attention.ID} {
			view, err := s.store.ReadToken(s.ctx, id, s.newEvent(audit.TokenRetrieved, id))
			require.NoError(s, err)
			require.Equal(s, id, view.ConnectionID)
		}
		_, err := s.store.ReadToken(s.ctx, uuid.New(), s.newEvent(audit.TokenRetrieved, uuid.Nil))
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.Empty(s, s.events(audit.TokenRetrieved))
	}},
	{"nothing is handed out without its event", func(s *suite) {
		c, _ := s.active(s.publish().ID)
		view, err := s.store.ReadToken(s.ctx, c.ID, s.brokenEvent())
		require.Error(s, err)
		require.Zero(s, view)
		require.NotErrorIs(s, err, broker.ErrNoRow)
	}},
	{"a strange caller gets a token all the same", func(s *suite) {
		c, _ := s.active(s.publish().ID)
		e := s.newEvent(audit.TokenRetrieved, c.ID)
		e.UserAgent, e.IPAddress = "curl\x00\xff'; DROP TABLE tokens; --", "10.0.0.1:1234"
		e.Data = map[string]any{"a\x00": "b\x00\xff", "nested": map[string]any{"list": []any{"c\x00", 1.5}}}
		_, err := s.store.ReadToken(s.ctx, c.ID, e)
		require.NoError(s, err)
		list, err := broker.All(s.store.AuditEvents(s.ctx, audit.Filter{Type: audit.TokenRetrieved}))
		require.NoError(s, err)
		require.Len(s, list, 1)
		require.Equal(s, "curl\uFFFD\uFFFD'; DROP TABLE tokens; --", list[0].UserAgent)
		require.Empty(s, list[0].IPAddress)
		require.JSONEq(s, `{"a\ufffd": "b\ufffd\ufffd", "nested": {"list": ["c\ufffd", 1.5]}}`, mustJSON(list[0].Data))
	}},
	{"a token outlives its provider", func(s *suite) {
		p := s.publish()
		c, token := s.active(p.ID)
		s.remove(p, credentials.Ref{})
		view, err := s.store.ReadToken(s.ctx, c.ID, s.newEvent(audit.TokenRetrieved, c.ID))
		require.NoError(s, err)
		require.Equal(s, token, view.Token)
	}},
	{"a token may have no expiry", func(s *suite) {
		c := s.pending(s.publish().ID)
		require.NoError(s, s.store.CompleteConnection(s.ctx, c, broker.StoredToken{Sealed: "x"}, s.now))
		view, err := s.store.Token(s.ctx, c.ID)
		require.NoError(s, err)
		require.True(s, view.Token.ExpiresAt.IsZero())
	}},
	{"Token records nothing", func(s *suite) {
		c, token := s.active(s.publish().ID)
		view, err := s.store.Token(s.ctx, c.ID)
		require.NoError(s, err)
		require.Equal(s, token, view.Token)
		_, err = s.store.Token(s.ctx, uuid.New())
		require.ErrorIs(s, err, broker.ErrNoRow)
		list, err := broker.All(s.store.AuditEvents(s.ctx, audit.Filter{}))
		require.NoError(s, err)
		require.Empty(s, list)
	}},
	{"replacing needs the old token", func(s *suite) {
		c, old := s.active(s.publish().ID)
		fresh := broker.StoredToken{Sealed: "fresh", ExpiresAt: s.now.Add(2 * time.Hour)}
		e := s.newEvent(audit.TokenRefreshed, c.ID)
		require.ErrorIs(s, s.store.ReplaceToken(s.ctx, c.ID, "another", fresh, s.now, e), broker.ErrStale)
		require.ErrorIs(s, s.store.ReplaceToken(s.ctx, uuid.New(), old.Sealed, fresh, s.now, e), broker.ErrStale)
		require.Error(s, s.store.ReplaceToken(s.ctx, c.ID, old.Sealed, fresh, s.now, e, s.brokenEvent()))
		require.Equal(s, old, s.token(c.ID))
		require.Empty(s, s.events(audit.TokenRefreshed))
		later := s.now.Add(time.Second)
		require.NoError(s, s.store.ReplaceToken(s.ctx, c.ID, old.Sealed, fresh, later, e))
		require.Equal(s, fresh, s.token(c.ID))
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.TokenRefreshed))
		require.Equal(s, later, s.connection(c.ID).UpdatedAt)
		require.ErrorIs(s, s.store.ReplaceToken(s.ctx, c.ID, old.Sealed, old, s.now), broker.ErrStale, "an older refresh")
	}},
	{"replacing needs an active connection", func(s *suite) {
		c, old := s.active(s.publish().ID)
		for _, status := range []broker.ConnectionStatus{broker.StatusAttention, broker.StatusRevoked, broker.StatusPending} {
			require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, status, s.now))
			require.ErrorIs(s, s.store.ReplaceToken(s.ctx, c.ID, old.Sealed, broker.StoredToken{Sealed: "x"}, s.now), broker.ErrStale)
			require.NoError(s, s.store.SetStatus(s.ctx, c.ID, status, broker.StatusActive, s.now))
		}
		require.Equal(s, old, s.token(c.ID))
	}},
	{"attention needs the old token", func(s *suite) {
		c, old := s.active(s.publish().ID)
		e := s.newEvent(audit.TokenRefreshFatal, c.ID)
		require.ErrorIs(s, s.store.Attention(s.ctx, c.ID, "another", s.now, e), broker.ErrStale)
		require.ErrorIs(s, s.store.Attention(s.ctx, uuid.New(), old.Sealed, s.now, e), broker.ErrStale)
		require.Error(s, s.store.Attention(s.ctx, c.ID, old.Sealed, s.now, e, s.brokenEvent()))
		require.Equal(s, broker.StatusActive, s.connection(c.ID).Status)
		require.Empty(s, s.events(audit.TokenRefreshFatal))
		require.NoError(s, s.store.Attention(s.ctx, c.ID, old.Sealed, s.now.Add(time.Second), e))
		got := s.connection(c.ID)
		require.Equal(s, broker.StatusAttention, got.Status)
		require.Equal(s, s.now.Add(time.Second), got.UpdatedAt)
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.TokenRefreshFatal))
		require.ErrorIs(s, s.store.Attention(s.ctx, c.ID, old.Sealed, s.now), broker.ErrStale)
	}},
}

func (s *suite) token(connectionID uuid.UUID) broker.StoredToken {
	s.Helper()
	view, err := s.store.Token(s.ctx, connectionID)
	require.NoError(s, err)
	return view.Token
}

package storetest

import (
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

var connectionTests = []test{
	{"every field survives", func(s *suite) {
		c := s.pending(s.publish().ID)
		require.Equal(s, c, s.connection(c.ID))
	}},
	{"absent fields stay absent", func(s *suite) {
		c := broker.Connection{
			ID: uuid.New(), WorkspaceID: "", ProviderID: s.publish().ID, Status: broker.StatusPending,
			CreatedAt: s.now, UpdatedAt: s.now,
		}
		require.NoError(s, s.store.CreateConnection(s.ctx, c))
		require.Equal(s, c, s.connection(c.ID))
	}},
	{"a connection needs a visible provider", func(s *suite) {
		c := s.pending(s.publish().ID)
		e := s.newEvent(audit.OAuthFlowCompleted, uuid.Nil)
		c.ID, c.ProviderID = uuid.New(), uuid.New()
		require.ErrorIs(s, s.store.CreateConnection(s.ctx, c, e), broker.ErrNoRow)
		c.ProviderID = s.remove(s.publish(), credentials.Ref{}).ID
		require.ErrorIs(s, s.store.CreateConnection(s.ctx, c, e), broker.ErrNoRow)
		_, err := s.store.Connection(s.ctx, c.ID)
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.Empty(s, s.events(audit.OAuthFlowCompleted))
	}},
	{"a provider under an operation is visible", func(s *suite) {
		p := s.publish()
		s.begin(p.ID, broker.OpUpdate)
		s.pending(p.ID)
	}},
	{"creating is one transaction with its events", func(s *suite) {
		c := s.pending(s.publish().ID)
		c.ID = uuid.New()
		own := s.newEvent(audit.OAuthFlowCompleted, c.ID)
		require.Error(s, s.store.CreateConnection(s.ctx, c, own, s.brokenEvent()))
		_, err := s.store.Connection(s.ctx, c.ID)
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.NoError(s, s.store.CreateConnection(s.ctx, c, own, s.newEvent(audit.OAuthFlowCompleted, uuid.Nil)))
		require.Len(s, s.events(audit.OAuthFlowCompleted), 2)
	}},
	{"a consent is claimed once", func(s *suite) {
		c := s.pending(s.publish().ID)
		got, err := s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, s.now)
		require.NoError(s, err)
		require.Equal(s, c, got)
		_, err = s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, s.now)
		require.ErrorIs(s, err, broker.ErrNoRow)
		after := s.connection(c.ID)
		require.Equal(s, broker.StatusPending, after.Status)
		require.Empty(s, after.CodeVerifier)
	}},
	{"a consent ends with its time", func(s *suite) {
		c := s.pending(s.publish().ID)
		_, err := s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, c.ExpiresAt)
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.Equal(s, c, s.connection(c.ID))
		_, err = s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, c.ExpiresAt.Add(-time.Microsecond))
		require.NoError(s, err)
	}},
	{"only a pending connection's consent is claimed", func(s *suite) {
		_, err := s.store.ClaimConsent(s.ctx, uuid.New(), time.Time{}, s.now)
		require.ErrorIs(s, err, broker.ErrNoRow)
		p := s.publish()
		for _, status := range []broker.ConnectionStatus{broker.StatusActive, broker.StatusFailed, broker.StatusRevoked} {
			c := s.pending(p.ID)
			require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusPending, status, s.now))
			_, err := s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, s.now)
			require.ErrorIs(s, err, broker.ErrNoRow)
		}
	}},
	{"a released consent can be claimed again", func(s *suite) {
		c := s.pending(s.publish().ID)
		require.ErrorIs(s, s.store.ReleaseConsent(s.ctx, c), broker.ErrNoRow, "nothing to release")
		_, err := s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, s.now)
		require.NoError(s, err)
		require.NoError(s, s.store.ReleaseConsent(s.ctx, c))
		got, err := s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, s.now)
		require.NoError(s, err)
		require.Equal(s, c, got)
	}},
	{"a completed consent is not released", func(s *suite) {
		c := s.pending(s.publish().ID)
		_, err := s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, s.now)
		require.NoError(s, err)
		require.NoError(s, s.store.CompleteConnection(s.ctx, c, broker.StoredToken{Sealed: "t"}, s.now))
		require.ErrorIs(s, s.store.ReleaseConsent(s.ctx, c), broker.ErrNoRow)
		require.Empty(s, s.connection(c.ID).CodeVerifier)
	}},
	{"completing stores the token and erases the verifier", func(s *suite) {
		c := s.pending(s.publish().ID)
		token := broker.StoredToken{Sealed: "sealed", ExpiresAt: s.now.Add(time.Hour)}
		e := s.newEvent(audit.OAuthFlowCompleted, c.ID)
		require.Error(s, s.store.CompleteConnection(s.ctx, c, token, s.now, e, s.brokenEvent()))
		require.Equal(s, c, s.connection(c.ID))
		view, err := s.store.Token(s.ctx, c.ID)
		require.NoError(s, err)
		require.Zero(s, view.Token)

		later := s.now.Add(time.Second)
		require.NoError(s, s.store.CompleteConnection(s.ctx, c, token, later, e))
		c.Status, c.UpdatedAt, c.CodeVerifier = broker.StatusActive, later, ""
		require.Equal(s, c, s.connection(c.ID))
		view, err = s.store.Token(s.ctx, c.ID)
		require.NoError(s, err)
		require.Equal(s, token, view.Token)
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.OAuthFlowCompleted))
	}},
	{"only a pending connection is completed", func(s *suite) {
		c, token := s.active(s.publish().ID)
		other := broker.StoredToken{Sealed: "other"}
		require.ErrorIs(s, s.store.CompleteConnection(s.ctx, c, other, s.now), broker.ErrNoRow)
		require.ErrorIs(s, s.store.CompleteConnection(s.ctx, broker.Connection{ID: uuid.New()}, other, s.now), broker.ErrNoRow)
		view, err := s.store.Token(s.ctx, c.ID)
		require.NoError(s, err)
		require.Equal(s, token, view.Token)
	}},
	{"what was not claimed is claimed as it is completed", func(s *suite) {
		p := s.publish()
		active, _ := s.active(p.ID)
		other, _ := s.active(p.ID)
		token := broker.StoredToken{Sealed: "late"}
		consents := []broker.Connection{s.pending(p.ID), s.reconsent(active)}
		claimed := []broker.Connection{s.pending(p.ID), s.reconsent(other)}
		for _, c := range claimed {
			_, err := s.store.ClaimConsent(s.ctx, c.ID, c.Reconsent, s.now)
			require.NoError(s, err)
		}
		for _, c := range consents {
			before := s.connection(c.ID)
			require.ErrorIs(s, s.store.CompleteConnection(s.ctx, c, token, c.ExpiresAt), broker.ErrNoRow)
			require.Equal(s, before, s.connection(c.ID))
		}
		s.remove(p, credentials.Ref{})
		for _, c := range consents {
			before := s.connection(c.ID)
			require.ErrorIs(s, s.store.CompleteConnection(s.ctx, c, token, s.now), broker.ErrNoProvider)
			require.Equal(s, before, s.connection(c.ID))
		}
		for _, c := range claimed { // the code is spent: neither matters any more
			require.NoError(s, s.store.CompleteConnection(s.ctx, c, token, c.ExpiresAt))
			require.Equal(s, token, s.token(c.ID))
			require.ErrorIs(s, s.store.CompleteConnection(s.ctx, c, token, s.now), broker.ErrNoRow, "once, and then it has succeeded")
		}
	}},
	{"completing again replaces the token", func(s *suite) {
		c, _ := s.active(s.publish().ID)
		require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, broker.StatusPending, s.now))
		second := broker.StoredToken{Sealed: "second"}
		require.NoError(s, s.store.CompleteConnection(s.ctx, c, second, s.now))
		view, err := s.store.Token(s.ctx, c.ID)
		require.NoError(s, err)
		require.Equal(s, second, view.Token)
	}},
	{"a status is changed from what it was", func(s *suite) {
		c := s.pending(s.publish().ID)
		later := s.now.Add(time.Second)
		e := s.newEvent(audit.TokenExchangeFailed, c.ID)
		require.ErrorIs(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, broker.StatusFailed, later, e), broker.ErrStale)
		require.ErrorIs(s, s.store.SetStatus(s.ctx, uuid.New(), broker.StatusPending, broker.StatusFailed, later, e), broker.ErrStale)
		require.Empty(s, s.events(audit.TokenExchangeFailed))
		require.Error(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusPending, broker.StatusFailed, later, e, s.brokenEvent()))
		require.Equal(s, c, s.connection(c.ID))
		require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusPending, broker.StatusFailed, later, e))
		c.Status, c.UpdatedAt = broker.StatusFailed, later
		require.Equal(s, c, s.connection(c.ID))
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.TokenExchangeFailed))
	}},
	{"an unknown id is no row", func(s *suite) {
		_, err := s.store.Connection(s.ctx, uuid.New())
		require.ErrorIs(s, err, broker.ErrNoRow)
	}},
}

package storetest

import (
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// reconsent begins a new consent to c, issued at a moment of its own.
func (s *suite) reconsent(c broker.Connection) broker.Connection {
	s.Helper()
	c = s.connection(c.ID)
	c.Reconsent, c.CodeVerifier = s.now.Add(time.Duration(serial.Add(1))*time.Microsecond), "new verifier"
	c.Scopes, c.ReturnURL, c.ExpiresAt = []string{"write"}, "https://app.example/again", c.Reconsent.Add(10*time.Minute)
	require.NoError(s, s.store.BeginReconsent(s.ctx, c))
	return c
}

var reconsentTests = []test{
	{"a new consent leaves the connection as it is until it succeeds", func(s *suite) {
		before, token := s.active(s.publish().ID)
		before = s.connection(before.ID)
		c := s.reconsent(before)
		require.Equal(s, before, s.connection(c.ID))
		require.Equal(s, token, s.token(c.ID))
		seen, err := s.store.Consent(s.ctx, c.ID, c.Reconsent)
		require.NoError(s, err)
		require.Equal(s, c, seen)
		claimed, err := s.store.ClaimConsent(s.ctx, c.ID, c.Reconsent, s.now)
		require.NoError(s, err)
		require.Equal(s, c, claimed)
		_, err = s.store.ClaimConsent(s.ctx, c.ID, c.Reconsent, s.now)
		require.ErrorIs(s, err, broker.ErrNoRow)
		seen, err = s.store.Consent(s.ctx, c.ID, c.Reconsent)
		require.NoError(s, err)
		require.Empty(s, seen.CodeVerifier)
		require.Equal(s, before, s.connection(c.ID))
		require.NoError(s, s.store.ReleaseConsent(s.ctx, claimed))
		require.ErrorIs(s, s.store.ReleaseConsent(s.ctx, claimed), broker.ErrNoRow)
		claimed, err = s.store.ClaimConsent(s.ctx, c.ID, c.Reconsent, s.now)
		require.NoError(s, err)
		require.Equal(s, c, claimed)

		e, fresh := s.newEvent(audit.OAuthFlowCompleted, c.ID), broker.StoredToken{Sealed: "fresh"}
		later := s.now.Add(time.Second)
		require.Error(s, s.store.CompleteConnection(s.ctx, claimed, fresh, later, e, s.brokenEvent()))
		require.Equal(s, token, s.token(c.ID))
		require.NoError(s, s.store.CompleteConnection(s.ctx, claimed, fresh, later, e))
		require.Equal(s, fresh, s.token(c.ID))
		after := s.connection(c.ID)
		require.Equal(s, c.Scopes, after.Scopes)
		require.Equal(s, c.ReturnURL, after.ReturnURL)
		require.Equal(s, later, after.UpdatedAt)
		require.Equal(s, before.CreatedAt, after.CreatedAt)
		require.Equal(s, broker.StatusActive, after.Status)
		require.ErrorIs(s, s.store.CompleteConnection(s.ctx, claimed, token, later), broker.ErrNoRow, "once")
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.OAuthFlowCompleted))
		seen, err = s.store.Consent(s.ctx, c.ID, c.Reconsent)
		require.NoError(s, err)
		require.Equal(s, after, seen, "there is none any more")
	}},
	{"a connection that needs attention or has failed can be consented to again", func(s *suite) {
		for _, status := range []broker.ConnectionStatus{broker.StatusAttention, broker.StatusFailed} {
			c, _ := s.active(s.publish().ID)
			require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, status, s.now))
			c = s.reconsent(c)
			require.Equal(s, status, s.connection(c.ID).Status)
			require.NoError(s, s.store.FailConsent(s.ctx, c, s.now, s.newEvent(audit.TokenExchangeFailed, c.ID)))
			require.ErrorIs(s, s.store.FailConsent(s.ctx, c, s.now), broker.ErrStale)
			require.Equal(s, status, s.connection(c.ID).Status)
			c = s.reconsent(c)
			require.NoError(s, s.store.CompleteConnection(s.ctx, c, broker.StoredToken{Sealed: "fresh"}, s.now))
			require.Equal(s, broker.StatusActive, s.connection(c.ID).Status)
		}
		require.Len(s, s.events(audit.TokenExchangeFailed), 2)
	}},
	{"a failed consent makes a pending connection failed", func(s *suite) {
		c := s.pending(s.publish().ID)
		e := s.newEvent(audit.TokenExchangeFailed, c.ID)
		require.NoError(s, s.store.FailConsent(s.ctx, c, s.now, e))
		require.Equal(s, broker.StatusFailed, s.connection(c.ID).Status)
		require.ErrorIs(s, s.store.FailConsent(s.ctx, c, s.now), broker.ErrStale)
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.TokenExchangeFailed))
	}},
	{"what cannot be consented to again", func(s *suite) {
		p := s.publish()
		pending := s.pending(p.ID)
		pending.Reconsent = s.now
		require.ErrorIs(s, s.store.BeginReconsent(s.ctx, pending), broker.ErrNoRow)
		c, _ := s.active(p.ID)
		c.Reconsent = s.now
		for _, change := range []func(*broker.Connection){
			func(c *broker.Connection) { c.ID = uuid.New() },
			func(c *broker.Connection) { c.WorkspaceID = "another" },
			func(c *broker.Connection) { c.ProviderID = s.publish().ID },
		} {
			other := c
			change(&other)
			require.ErrorIs(s, s.store.BeginReconsent(s.ctx, other), broker.ErrNoRow)
		}
		s.revoke(c)
		require.ErrorIs(s, s.store.BeginReconsent(s.ctx, c), broker.ErrRevoked)
		_, err := s.store.Consent(s.ctx, uuid.New(), s.now)
		require.ErrorIs(s, err, broker.ErrNoRow)
	}},
	{"the newest consent is the one that counts", func(s *suite) {
		c, _ := s.active(s.publish().ID)
		old := s.reconsent(c)
		_, err := s.store.ClaimConsent(s.ctx, c.ID, old.Reconsent, s.now)
		require.NoError(s, err)
		newest := s.reconsent(c)
		_, err = s.store.ClaimConsent(s.ctx, c.ID, old.Reconsent, s.now)
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.ErrorIs(s, s.store.ReleaseConsent(s.ctx, old), broker.ErrNoRow)
		require.ErrorIs(s, s.store.CompleteConnection(s.ctx, old, broker.StoredToken{Sealed: "old"}, s.now), broker.ErrNoRow)
		require.ErrorIs(s, s.store.FailConsent(s.ctx, old, s.now), broker.ErrStale)
		_, err = s.store.ClaimConsent(s.ctx, c.ID, newest.Reconsent, newest.ExpiresAt)
		require.ErrorIs(s, err, broker.ErrNoRow, "expired")
		_, err = s.store.ClaimConsent(s.ctx, c.ID, newest.Reconsent, newest.ExpiresAt.Add(-time.Microsecond))
		require.NoError(s, err)
	}},
	{"a revoked connection's consent is over", func(s *suite) {
		c, _ := s.active(s.publish().ID)
		again := s.reconsent(c)
		claimed, err := s.store.ClaimConsent(s.ctx, c.ID, again.Reconsent, s.now)
		require.NoError(s, err)
		s.revoke(c)
		require.ErrorIs(s, s.store.CompleteConnection(s.ctx, claimed, broker.StoredToken{Sealed: "late"}, s.now), broker.ErrNoRow)
		require.Equal(s, broker.StatusRevoked, s.connection(c.ID).Status)
		require.Zero(s, s.token(c.ID))
	}},
	{"of many claims of a new consent one succeeds", func(s *suite) {
		c, _ := s.active(s.publish().ID)
		c = s.reconsent(c)
		require.Equal(s, 1, s.race(broker.ErrNoRow, func(int) error {
			_, err := s.store.ClaimConsent(s.ctx, c.ID, c.Reconsent, s.now)
			return err
		}))
	}},
	{"a consent is not claimed once its provider is deleted", func(s *suite) {
		p := s.publish()
		pending := s.pending(p.ID)
		active, _ := s.active(p.ID)
		again := s.reconsent(active)
		s.remove(p, credentials.Ref{})
		for _, c := range []broker.Connection{pending, again} {
			_, err := s.store.ClaimConsent(s.ctx, c.ID, c.Reconsent, s.now)
			require.ErrorIs(s, err, broker.ErrNoProvider)
			seen, err := s.store.Consent(s.ctx, c.ID, c.Reconsent)
			require.NoError(s, err)
			require.Equal(s, c.CodeVerifier, seen.CodeVerifier)
		}
	}},
}

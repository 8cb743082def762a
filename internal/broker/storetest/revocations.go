package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

func (s *suite) revoke(c broker.Connection) broker.RevokedConnection {
	s.Helper()
	r, err := s.store.RevokeConnection(s.ctx, c.ID, "", "why", s.now, s.newEvent(audit.ConnectionRevoked, c.ID))
	require.NoError(s, err)
	return r
}

var revocationTests = []test{
	{"a revocation deletes the token for good", func(s *suite) {
		c, token := s.active(s.publish().ID)
		e, later := s.newEvent(audit.ConnectionRevoked, c.ID), s.now.Add(time.Second)
		for _, r := range []struct {
			id        uuid.UUID
			workspace string
		}{{uuid.New(), ""}, {c.ID, "another"}} {
			_, err := s.store.RevokeConnection(s.ctx, r.id, r.workspace, "", later, e)
			require.ErrorIs(s, err, broker.ErrNoRow)
		}
		_, err := s.store.RevokeConnection(s.ctx, c.ID, "", "", later, s.brokenEvent())
		require.Error(s, err)
		require.Equal(s, broker.StatusActive, s.connection(c.ID).Status)
		require.Equal(s, token, s.token(c.ID))

		r, err := s.store.RevokeConnection(s.ctx, c.ID, c.WorkspaceID, "why\x00", later, e)
		require.NoError(s, err)
		require.Equal(s, broker.RevokedConnection{Token: token, ProviderID: c.ProviderID, Scopes: c.Scopes, RevokedAt: later}, r)
		got := s.connection(c.ID)
		require.Equal(s, broker.StatusRevoked, got.Status)
		require.Equal(s, later, got.UpdatedAt)
		view, err := s.store.ReadToken(s.ctx, c.ID, s.newEvent(audit.TokenRetrieved, c.ID))
		require.NoError(s, err)
		require.Zero(s, view.Token)
		require.Empty(s, s.events(audit.TokenRetrieved))
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.ConnectionRevoked))

		again, err := s.store.RevokeConnection(s.ctx, c.ID, "", "", later.Add(time.Hour), s.newEvent(audit.ConnectionRevoked, c.ID))
		require.NoError(s, err)
		require.Equal(s, broker.RevokedConnection{ProviderID: c.ProviderID, Scopes: c.Scopes, RevokedAt: later}, again)
		require.Len(s, s.events(audit.ConnectionRevoked), 1, "nothing happened the second time")
		require.Equal(s, later, s.connection(c.ID).UpdatedAt)
	}},
	{"the token of a connection that another program has revoked is deleted", func(s *suite) {
		c, token := s.active(s.publish().ID)
		later := s.now.Add(time.Minute)
		require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, broker.StatusRevoked, later))
		r := s.revoke(c)
		require.Equal(s, token, r.Token)
		require.Equal(s, later, r.RevokedAt, "when the row was changed")
		require.Zero(s, s.token(c.ID))
		require.Len(s, s.events(audit.ConnectionRevoked), 1)
	}},
	{"a consent that is pending can be revoked", func(s *suite) {
		c := s.pending(s.publish().ID)
		require.Zero(s, s.revoke(c).Token)
		_, err := s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, s.now)
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.ErrorIs(s, s.store.CompleteConnection(s.ctx, c, broker.StoredToken{Sealed: "late"}, s.now), broker.ErrNoRow)
		require.Empty(s, s.connection(c.ID).CodeVerifier)
	}},
	{"a revocation wins over whatever happens at once", func(s *suite) {
		errOther := errors.New("somebody else's")
		for range 5 {
			c, old := s.active(s.publish().ID)
			again := s.reconsent(c)
			require.Equal(s, racers, s.race(errOther, func(i int) error {
				var err error
				switch i % 4 {
				case 0:
					_, err = s.store.RevokeConnection(s.ctx, c.ID, "", "", s.now, s.newEvent(audit.ConnectionRevoked, c.ID))
					return err
				case 1:
					err = s.store.ReplaceToken(s.ctx, c.ID, old.Sealed, broker.StoredToken{Sealed: fmt.Sprint("new ", i)}, s.now)
				case 2:
					err = s.store.CompleteConnection(s.ctx, again, broker.StoredToken{Sealed: fmt.Sprint("again ", i)}, s.now)
				case 3:
					_, err = s.claim(c.ID, old.Sealed, 0, time.Hour)
				}
				if errors.Is(err, broker.ErrStale) || errors.Is(err, broker.ErrNoRow) || errors.Is(err, broker.ErrBusy) {
					err = nil
				}
				return err
			}))
			require.Equal(s, broker.StatusRevoked, s.connection(c.ID).Status)
			require.Zero(s, s.token(c.ID))
		}
		require.Len(s, s.events(audit.ConnectionRevoked), 5)
	}},
}

var listingTests = []test{
	{"connections of a workspace are listed, newest first, without pending ones", func(s *suite) {
		p := s.publish()
		s.pending(p.ID)
		var want []broker.ConnectionSummary
		for i, status := range []broker.ConnectionStatus{
			broker.StatusActive, broker.StatusAttention, broker.StatusFailed, broker.StatusRevoked,
		} {
			c := s.pending(p.ID)
			token := broker.StoredToken{Sealed: "t", ExpiresAt: s.now.Add(time.Duration(i) * time.Hour)}
			require.NoError(s, s.store.CompleteConnection(s.ctx, c, token, s.now))
			require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, status, s.now.Add(time.Second)))
			want = append(want, broker.ConnectionSummary{
				ID: c.ID, WorkspaceID: c.WorkspaceID, ProviderID: p.ID, ProviderName: p.Profile.Name, Status: status,
				HealthStatus: broker.HealthUnknown, Scopes: c.Scopes, CreatedAt: c.CreatedAt, UpdatedAt: s.now.Add(time.Second),
				TokenExpiresAt: token.ExpiresAt,
			})
		}
		got, err := broker.All(s.store.Connections(s.ctx, "ws-1", broker.Page{}))
		require.NoError(s, err)
		require.ElementsMatch(s, want, got)
		for _, other := range []string{"ws", "ws-2", "", "ws-1\x00", "\xff"} {
			none, err := broker.All(s.store.Connections(s.ctx, other, broker.Page{}))
			require.NoError(s, err)
			require.Empty(s, none)
		}
		var paged []broker.ConnectionSummary
		for page := (broker.Page{Limit: 3}); ; {
			part, err := broker.All(s.store.Connections(s.ctx, "ws-1", page))
			require.NoError(s, err)
			if len(part) == 0 {
				break
			}
			require.LessOrEqual(s, len(part), 3)
			paged, page.After = append(paged, part...), part[len(part)-1].ID
		}
		require.Equal(s, got, paged)
		none, err := broker.All(s.store.Connections(s.ctx, "ws-1", broker.Page{After: uuid.New()}))
		require.NoError(s, err)
		require.Empty(s, none)
	}},
	{"a reader of a list may stop early, and gives the connection back", func(s *suite) {
		s.publish()
		p := s.publish()
		s.active(p.ID)
		s.active(p.ID)
		require.NoError(s, s.store.Record(s.ctx, s.newEvent(audit.TokenRetrieved, uuid.Nil), s.newEvent(audit.TokenRetrieved, uuid.Nil)))
		const more = 100 // than a pool has
		for range more {
			require.Equal(s, 1, firstOnly(s, s.store.Providers(s.ctx, broker.Page{})))
			require.Equal(s, 1, firstOnly(s, s.store.Connections(s.ctx, "ws-1", broker.Page{})))
			require.Equal(s, 1, firstOnly(s, s.store.AuditEvents(s.ctx, audit.Filter{})))
		}
		require.Len(s, s.listings(p.Profile.Name)[1], 2)
	}},
	{"a newer connection comes first, and shows how its refreshes went", func(s *suite) {
		p := s.publish()
		older, old := s.active(p.ID)
		s.now = s.now.Add(time.Hour)
		newer, token := s.active(p.ID)
		require.NoError(s, s.store.ReplaceToken(s.ctx, older.ID, old.Sealed, broker.StoredToken{Sealed: "x"}, s.now))
		require.NoError(s, s.store.Attention(s.ctx, newer.ID, token.Sealed, s.now))
		got, err := broker.All(s.store.Connections(s.ctx, "ws-1", broker.Page{}))
		require.NoError(s, err)
		require.Len(s, got, 2)
		require.Equal(s, newer.ID, got[0].ID)
		require.Equal(s, broker.HealthUnhealthy, got[0].HealthStatus)
		require.Equal(s, broker.HealthHealthy, got[1].HealthStatus)
		require.Zero(s, got[1].TokenExpiresAt)
	}},
}

// firstOnly reads one row of a listing and leaves it, and returns how many it was given.
func firstOnly[T any](s *suite, l broker.Listing[T]) (given int) {
	s.Helper()
	for _, err := range l {
		require.NoError(s, err)
		given++
		break
	}
	return given
}

package storetest

import (
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// claim asks for the lease on a refresh.
func (s *suite) claim(id uuid.UUID, seen string, lapsed int64, ttl time.Duration) (broker.RefreshLease, error) {
	ended := s.refreshState(id).Ended
	return s.store.ClaimRefresh(s.ctx, id, broker.RefreshSeen{Sealed: seen, Ended: ended, Lapsed: lapsed}, ttl)
}

func (s *suite) refreshState(id uuid.UUID) broker.RefreshState {
	s.Helper()
	state, err := s.store.RefreshState(s.ctx, id)
	require.NoError(s, err)
	return state
}

// lapse waits until the newest lease has run out.
func (s *suite) lapse(id uuid.UUID) {
	s.Helper()
	require.Eventually(s, func() bool { return s.refreshState(id).Lapsed }, 10*time.Second, time.Millisecond)
}

var refreshTests = []test{
	{"a refresh is held by one until it is given back", func(s *suite) {
		c, token := s.active(s.publish().ID)
		require.Zero(s, s.refreshState(c.ID))
		first, err := s.claim(c.ID, token.Sealed, 0, time.Hour)
		require.NoError(s, err)
		require.Equal(s, broker.RefreshLease{ConnectionID: c.ID, Version: 1}, first)
		require.Equal(s, broker.RefreshState{Version: 1, Held: true}, s.refreshState(c.ID))
		for _, lapsed := range []int64{0, first.Version} {
			inTheWay, err := s.claim(c.ID, token.Sealed, lapsed, time.Hour)
			require.ErrorIs(s, err, broker.ErrBusy)
			require.Equal(s, first, inTheWay)
		}
		require.NoError(s, s.store.KeepRefresh(s.ctx, first, time.Hour))
		require.NoError(s, s.store.EndRefresh(s.ctx, first, `{"code":"upstream_error"}`))
		require.Equal(s, broker.RefreshState{Version: 1, Ended: 1, Outcome: `{"code":"upstream_error"}`}, s.refreshState(c.ID))
		require.ErrorIs(s, s.store.KeepRefresh(s.ctx, first, time.Hour), broker.ErrStale, "it was given back")

		second, err := s.claim(c.ID, token.Sealed, 0, time.Hour)
		require.NoError(s, err)
		require.Equal(s, int64(2), second.Version)
		require.Equal(s, broker.RefreshState{Version: 2, Held: true, Ended: 1, Outcome: `{"code":"upstream_error"}`}, s.refreshState(c.ID))
		require.NoError(s, s.store.EndRefresh(s.ctx, second, ""))
		require.Equal(s, broker.RefreshState{Version: 2, Ended: 2}, s.refreshState(c.ID))
	}},
	{"a refresh that has ended since is as good as one's own", func(s *suite) {
		c, token := s.active(s.publish().ID)
		seen := broker.RefreshSeen{Sealed: token.Sealed, Ended: s.refreshState(c.ID).Ended}
		first, err := s.claim(c.ID, token.Sealed, 0, time.Hour)
		require.NoError(s, err)
		require.NoError(s, s.store.EndRefresh(s.ctx, first, "failed"))
		_, err = s.claim(c.ID, token.Sealed, 0, time.Hour)
		require.NoError(s, err)
		ended, err := s.store.ClaimRefresh(s.ctx, c.ID, seen, time.Hour)
		require.ErrorIs(s, err, broker.ErrBusy)
		require.Equal(s, first, ended)
	}},
	{"a refresh of one connection is none of another's", func(s *suite) {
		p := s.publish()
		for range 2 {
			c, token := s.active(p.ID)
			_, err := s.claim(c.ID, token.Sealed, 0, time.Hour)
			require.NoError(s, err)
		}
	}},
	{"a lease that has run out is taken over by who knows of it", func(s *suite) {
		c, token := s.active(s.publish().ID)
		first, err := s.claim(c.ID, token.Sealed, 0, time.Millisecond)
		require.NoError(s, err)
		s.lapse(c.ID)
		require.Equal(s, broker.RefreshState{Version: 1, Lapsed: true}, s.refreshState(c.ID))
		for _, other := range []int64{0, 2} {
			inTheWay, err := s.claim(c.ID, token.Sealed, other, time.Hour)
			require.ErrorIs(s, err, broker.ErrBusy)
			require.Equal(s, first, inTheWay)
		}
		second, err := s.claim(c.ID, token.Sealed, first.Version, time.Hour)
		require.NoError(s, err)
		require.Equal(s, int64(2), second.Version)
		// What the first holder does now changes nothing.
		require.ErrorIs(s, s.store.KeepRefresh(s.ctx, first, 2*time.Hour), broker.ErrStale)
		require.NoError(s, s.store.EndRefresh(s.ctx, first, "late"))
		require.Equal(s, broker.RefreshState{Version: 2, Held: true}, s.refreshState(c.ID))
		require.NoError(s, s.store.KeepRefresh(s.ctx, second, time.Hour))
	}},
	{"a lease that has run out and that nobody has taken over can be renewed", func(s *suite) {
		c, token := s.active(s.publish().ID)
		lease, err := s.claim(c.ID, token.Sealed, 0, time.Millisecond)
		require.NoError(s, err)
		s.lapse(c.ID)
		require.NoError(s, s.store.KeepRefresh(s.ctx, lease, time.Hour))
		require.True(s, s.refreshState(c.ID).Held)
		_, err = s.claim(c.ID, token.Sealed, lease.Version, time.Hour)
		require.ErrorIs(s, err, broker.ErrBusy, "what had lapsed lives")
	}},
	{"a refresh needs the token that was seen, of an active connection", func(s *suite) {
		c, token := s.active(s.publish().ID)
		_, err := s.claim(uuid.New(), token.Sealed, 0, time.Hour)
		require.ErrorIs(s, err, broker.ErrStale)
		_, err = s.claim(c.ID, "another", 0, time.Hour)
		require.ErrorIs(s, err, broker.ErrStale)
		for _, status := range []broker.ConnectionStatus{broker.StatusAttention, broker.StatusRevoked, broker.StatusFailed} {
			require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, status, s.now))
			_, err = s.claim(c.ID, token.Sealed, 0, time.Hour)
			require.ErrorIs(s, err, broker.ErrStale)
			require.NoError(s, s.store.SetStatus(s.ctx, c.ID, status, broker.StatusActive, s.now))
		}
		require.Zero(s, s.refreshState(c.ID))
	}},
	{"of many claims of a refresh one succeeds", func(s *suite) {
		c, token := s.active(s.publish().ID)
		require.Equal(s, 1, s.race(broker.ErrBusy, func(int) error {
			_, err := s.claim(c.ID, token.Sealed, 0, time.Hour)
			return err
		}))
	}},
	{"of many who take over a refresh one succeeds", func(s *suite) {
		c, token := s.active(s.publish().ID)
		first, err := s.claim(c.ID, token.Sealed, 0, time.Millisecond)
		require.NoError(s, err)
		s.lapse(c.ID)
		require.Equal(s, 1, s.race(broker.ErrBusy, func(int) error {
			_, err := s.claim(c.ID, token.Sealed, first.Version, time.Hour)
			return err
		}))
		require.Equal(s, int64(2), s.refreshState(c.ID).Version)
	}},
	{"a lease is kept by its holder or taken over", func(s *suite) {
		for range 5 {
			c, token := s.active(s.publish().ID)
			first, err := s.claim(c.ID, token.Sealed, 0, time.Millisecond)
			require.NoError(s, err)
			s.lapse(c.ID)
			var kept, taken error
			s.race(nil, func(i int) error {
				switch i {
				case 0:
					kept = s.store.KeepRefresh(s.ctx, first, time.Hour)
				case 1:
					_, taken = s.claim(c.ID, token.Sealed, first.Version, time.Hour)
				}
				return nil
			})
			if kept == nil {
				require.ErrorIs(s, taken, broker.ErrBusy)
				continue
			}
			require.ErrorIs(s, kept, broker.ErrStale)
			require.NoError(s, taken)
		}
	}},
}

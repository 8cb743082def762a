package storetest

import (
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

var cleanupTests = []test{
	{"every field survives", func(s *suite) {
		c := s.addCleanup(func(c *broker.Cleanup) { c.Attempts, c.LastError = 4, "denied" })
		require.Equal(s, []broker.Cleanup{c}, s.claimDue())
	}},
	{"only what is due is claimed, the longest due first", func(s *suite) {
		late := s.addCleanup()
		early := s.addCleanup(func(c *broker.Cleanup) { c.Wait = -time.Hour })
		s.addCleanup(func(c *broker.Cleanup) { c.Wait = time.Minute })
		first, err := s.store.ClaimCleanups(s.ctx, time.Minute, 1)
		require.NoError(s, err)
		require.Equal(s, []uuid.UUID{early.ID}, cleanupIDs(first))
		require.Equal(s, []uuid.UUID{late.ID}, cleanupIDs(s.claimDue()))
	}},
	{"a claim excludes others until it runs out", func(s *suite) {
		c := s.addCleanup()
		require.Len(s, s.claimDue(), 1)
		require.Empty(s, s.claimDue())
		_, err := s.store.ClaimCleanupsAt(s.ctx, c.Backend, c.Key, time.Minute)
		require.ErrorIs(s, err, broker.ErrBusy)

		c = s.addCleanup()
		for range 2 {
			claimed, err := s.store.ClaimCleanups(s.ctx, 0, 10)
			require.NoError(s, err)
			require.Equal(s, []uuid.UUID{c.ID}, cleanupIDs(claimed), "the claim before has run out at once")
			claimed, err = s.store.ClaimCleanupsAt(s.ctx, c.Backend, c.Key, -time.Minute)
			require.NoError(s, err)
			require.Equal(s, []uuid.UUID{c.ID}, cleanupIDs(claimed))
		}
	}},
	{"a cleanup may be stored claimed", func(s *suite) {
		c := s.addCleanup(func(c *broker.Cleanup) { c.Claim = time.Hour })
		require.Empty(s, s.claimDue())
		_, err := s.store.ClaimCleanupsAt(s.ctx, c.Backend, c.Key, time.Hour)
		require.ErrorIs(s, err, broker.ErrBusy)
		c = s.addCleanup(func(c *broker.Cleanup) { c.Claim = -time.Microsecond })
		require.Equal(s, []uuid.UUID{c.ID}, cleanupIDs(s.claimDue()), "a claim that has run out")
	}},
	{"a place is claimed whole, due or not", func(s *suite) {
		a := s.addCleanup(func(c *broker.Cleanup) { c.Wait = time.Hour })
		b := s.addCleanup(func(c *broker.Cleanup) { c.Key = a.Key })
		other := s.addCleanup(func(c *broker.Cleanup) { c.Backend, c.Key = "internal", a.Key })
		got, err := s.store.ClaimCleanupsAt(s.ctx, a.Backend, a.Key, time.Minute)
		require.NoError(s, err)
		require.ElementsMatch(s, []uuid.UUID{a.ID, b.ID}, cleanupIDs(got))
		require.Equal(s, []uuid.UUID{other.ID}, cleanupIDs(s.claimDue()))
		none, err := s.store.ClaimCleanupsAt(s.ctx, a.Backend, "nowhere", time.Minute)
		require.NoError(s, err)
		require.Empty(s, none)
	}},
	{"a place is claimed whole or not at all", func(s *suite) {
		taken := s.addCleanup()
		require.Len(s, s.claimDue(), 1)
		free := s.addCleanup(func(c *broker.Cleanup) { c.Key = taken.Key })
		_, err := s.store.ClaimCleanupsAt(s.ctx, taken.Backend, taken.Key, time.Minute)
		require.ErrorIs(s, err, broker.ErrBusy)
		require.Equal(s, []uuid.UUID{free.ID}, cleanupIDs(s.claimDue()), "not claimed by the call that failed")
	}},
	{"finishing removes the cleanup with its events", func(s *suite) {
		c := s.addCleanup()
		e := s.newEvent(audit.CredentialsDeleted, uuid.Nil)
		require.Error(s, s.store.FinishCleanup(s.ctx, c.ID, e, s.brokenEvent()))
		require.Empty(s, s.events(audit.CredentialsDeleted))
		require.NoError(s, s.store.FinishCleanup(s.ctx, c.ID, e))
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.CredentialsDeleted))
		require.Empty(s, s.claimDue())
		require.NoError(s, s.store.FinishCleanup(s.ctx, c.ID))
	}},
	{"a failed attempt is noted and tried again later", func(s *suite) {
		c := s.addCleanup()
		require.Len(s, s.claimDue(), 1)
		require.NoError(s, s.store.PostponeCleanup(s.ctx, c.ID, time.Hour, "vault is sealed"))
		require.Empty(s, s.claimDue())
		require.NoError(s, s.store.PostponeCleanup(s.ctx, c.ID, 0, "vault is still sealed\x00\xff"))
		got := s.claimDue()
		require.Len(s, got, 1)
		require.Equal(s, 2, got[0].Attempts)
		require.Contains(s, got[0].LastError, "vault is still sealed")
		require.NoError(s, s.store.PostponeCleanup(s.ctx, uuid.New(), time.Hour, "gone"))
	}},
	{"cleanups are added all or none", func(s *suite) {
		c := s.newCleanup()
		require.Error(s, s.store.AddCleanups(s.ctx, c, c))
		require.Empty(s, s.claimDue())
		require.NoError(s, s.store.AddCleanups(s.ctx))
	}},
}

// claimDue claims what is due now, for a minute.
func (s *suite) claimDue() []broker.Cleanup {
	s.Helper()
	list, err := s.store.ClaimCleanups(s.ctx, time.Minute, 100)
	require.NoError(s, err)
	return list
}

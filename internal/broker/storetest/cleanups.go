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
		got := s.claimDue()
		c.ClaimedUntil = s.now.Add(time.Minute)
		require.Equal(s, []broker.Cleanup{c}, got)
	}},
	{"only what is due is claimed, the longest due first", func(s *suite) {
		late := s.addCleanup(func(c *broker.Cleanup) { c.After = s.now })
		early := s.addCleanup(func(c *broker.Cleanup) { c.After = s.now.Add(-time.Hour) })
		s.addCleanup(func(c *broker.Cleanup) { c.After = s.now.Add(time.Microsecond) })
		first, err := s.store.ClaimCleanups(s.ctx, s.now, s.now.Add(time.Minute), 1)
		require.NoError(s, err)
		require.Equal(s, []uuid.UUID{early.ID}, cleanupIDs(first))
		require.Equal(s, []uuid.UUID{late.ID}, cleanupIDs(s.claimDue()))
	}},
	{"a claim excludes others until it runs out", func(s *suite) {
		c := s.addCleanup()
		require.Len(s, s.claimDue(), 1)
		require.Empty(s, s.claimDue())
		until := s.now.Add(time.Minute)
		again, err := s.store.ClaimCleanups(s.ctx, until, until.Add(time.Minute), 10)
		require.NoError(s, err)
		require.Equal(s, []uuid.UUID{c.ID}, cleanupIDs(again))
	}},
	{"a cleanup may be stored claimed", func(s *suite) {
		c := s.addCleanup(func(c *broker.Cleanup) { c.ClaimedUntil = s.now.Add(time.Hour) })
		require.Empty(s, s.claimDue())
		_, err := s.store.ClaimCleanupsAt(s.ctx, c.Backend, c.Key, s.now, s.now.Add(time.Hour))
		require.ErrorIs(s, err, broker.ErrBusy)
		got, err := s.store.ClaimCleanups(s.ctx, s.now.Add(time.Hour), s.now.Add(2*time.Hour), 10)
		require.NoError(s, err)
		require.Equal(s, []uuid.UUID{c.ID}, cleanupIDs(got))
	}},
	{"a place is claimed whole, due or not", func(s *suite) {
		a := s.addCleanup(func(c *broker.Cleanup) { c.After = s.now.Add(time.Hour) })
		b := s.addCleanup(func(c *broker.Cleanup) { c.Key = a.Key })
		other := s.addCleanup(func(c *broker.Cleanup) { c.Backend, c.Key = "internal", a.Key })
		got, err := s.store.ClaimCleanupsAt(s.ctx, a.Backend, a.Key, s.now, s.now.Add(time.Minute))
		require.NoError(s, err)
		require.ElementsMatch(s, []uuid.UUID{a.ID, b.ID}, cleanupIDs(got))
		require.Equal(s, []uuid.UUID{other.ID}, cleanupIDs(s.claimDue()))
		none, err := s.store.ClaimCleanupsAt(s.ctx, a.Backend, "nowhere", s.now, s.now.Add(time.Minute))
		require.NoError(s, err)
		require.Empty(s, none)
	}},
	{"a place is claimed whole or not at all", func(s *suite) {
		taken := s.addCleanup()
		require.Len(s, s.claimDue(), 1)
		free := s.addCleanup(func(c *broker.Cleanup) { c.Key = taken.Key })
		_, err := s.store.ClaimCleanupsAt(s.ctx, taken.Backend, taken.Key, s.now, s.now.Add(time.Minute))
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
		later := s.now.Add(time.Second)
		require.NoError(s, s.store.PostponeCleanup(s.ctx, c.ID, later, "vault is sealed\x00\xff"))
		require.Empty(s, s.claimDue())
		got, err := s.store.ClaimCleanups(s.ctx, later, later.Add(time.Minute), 10)
		require.NoError(s, err)
		require.Len(s, got, 1)
		require.Equal(s, 1, got[0].Attempts)
		require.Contains(s, got[0].LastError, "vault is sealed")
		require.NoError(s, s.store.PostponeCleanup(s.ctx, uuid.New(), later, "gone"))
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
	list, err := s.store.ClaimCleanups(s.ctx, s.now, s.now.Add(time.Minute), 100)
	require.NoError(s, err)
	return list
}

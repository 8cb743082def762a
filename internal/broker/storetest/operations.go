package storetest

import (
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

var operationTests = []test{
	{"beginning returns the provider as it was", func(s *suite) {
		p := s.publish()
		got, err := s.store.BeginOp(s.ctx, p.ID, s.newOp(broker.OpUpdate), true)
		require.NoError(s, err)
		s.equalProvider(p, got)
		p.Credentials.State = credentials.Incomplete
		s.equalProvider(p, s.provider(p.ID)) // nothing else has changed
	}},
	{"beginning an update leaves the state alone unless told", func(s *suite) {
		p := s.publish()
		s.begin(p.ID, broker.OpUpdate)
		s.equalProvider(p, s.provider(p.ID))
	}},
	{"an operation excludes others until it runs out", func(s *suite) {
		p := s.publish()
		first := s.begin(p.ID, broker.OpUpdate)
		for _, kind := range []broker.OpKind{broker.OpUpdate, broker.OpDelete, broker.OpRepair} {
			_, err := s.store.BeginOp(s.ctx, p.ID, s.newOp(kind), true)
			require.ErrorIs(s, err, broker.ErrBusy)
		}
		require.Equal(s, credentials.Ready, s.provider(p.ID).Credentials.State, "a claim that failed changes nothing")
		s.runOut(p.ID, first)
		second := s.begin(p.ID, broker.OpDelete)
		require.ErrorIs(s, s.store.UpdateProvider(s.ctx, p, first, nil, nil), broker.ErrLostOp)
		require.NoError(s, s.store.UpdateProvider(s.ctx, p, second, nil, nil))
	}},
	{"who comes after an update that was cut off must repair it first", func(s *suite) {
		p := s.publish()
		cut := s.newOp(broker.OpUpdate)
		_, err := s.store.BeginOp(s.ctx, p.ID, cut, true)
		require.NoError(s, err)
		for _, kind := range []broker.OpKind{broker.OpUpdate, broker.OpMove} {
			require.NoError(s, s.store.KeepOp(s.ctx, p.ID, cut))
			_, err := s.store.BeginOp(s.ctx, p.ID, s.newOp(kind), false)
			require.ErrorIs(s, err, broker.ErrBusy)
			require.NotErrorIs(s, err, broker.ErrInterrupted)
			s.runOut(p.ID, cut)
			_, err = s.store.BeginOp(s.ctx, p.ID, s.newOp(kind), false)
			require.ErrorIs(s, err, broker.ErrInterrupted)
			require.ErrorIs(s, err, broker.ErrBusy)
		}
		repair := s.begin(p.ID, broker.OpRepair)
		require.NoError(s, s.store.EndOp(s.ctx, p.ID, repair, credentials.Incomplete, 1))
		s.begin(p.ID, broker.OpUpdate) // it has been looked at

		p = s.publish()
		cut.TTL = -time.Microsecond
		_, err = s.store.BeginOp(s.ctx, p.ID, cut, true)
		require.NoError(s, err)
		s.begin(p.ID, broker.OpDelete) // which takes the pair away
	}},
	{"beginning needs a visible provider", func(s *suite) {
		_, err := s.store.BeginOp(s.ctx, uuid.New(), s.newOp(broker.OpUpdate), false)
		require.ErrorIs(s, err, broker.ErrNoRow)
		p := s.remove(s.publish(), credentials.Ref{})
		_, err = s.store.BeginOp(s.ctx, p.ID, s.newOp(broker.OpUpdate), false)
		require.ErrorIs(s, err, broker.ErrNoRow)
		_, err = s.store.BeginOp(s.ctx, p.ID, s.newOp(broker.OpDelete), false)
		require.ErrorIs(s, err, broker.ErrNoRow)
	}},
	{"a repair begins on a deleted provider too", func(s *suite) {
		p := s.remove(s.publish(), credentials.Ref{})
		got, err := s.store.BeginOp(s.ctx, p.ID, s.newOp(broker.OpRepair), false)
		require.NoError(s, err)
		s.equalProvider(p, got)
	}},
	{"a repair takes over a reservation, which stays one", func(s *suite) {
		p, op := s.reserve()
		repair := s.newOp(broker.OpRepair)
		_, err := s.store.BeginOp(s.ctx, p.ID, repair, false)
		require.ErrorIs(s, err, broker.ErrBusy)
		s.runOut(p.ID, op)
		got, err := s.store.BeginOp(s.ctx, p.ID, repair, false)
		require.NoError(s, err)
		s.equalProvider(p, got)
		_, err = s.store.Provider(s.ctx, p.ID)
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.ErrorIs(s, s.store.PublishProvider(s.ctx, p, op), broker.ErrLostOp)
		require.NoError(s, s.store.EndOp(s.ctx, p.ID, repair, credentials.Ready, 1))
		_, err = s.store.Provider(s.ctx, p.ID)
		require.ErrorIs(s, err, broker.ErrNoRow, "only PublishProvider makes a reservation visible")
		require.NoError(s, s.store.AbandonProvider(s.ctx, p.ID, repair))
		expired, err := s.store.ExpiredOps(s.ctx, 10)
		require.NoError(s, err)
		require.Empty(s, expired)
	}},
	{"a claim is prolonged by its holder only", testKeep},
	{"an update stores everything and ends the operation", testUpdate},
	{"an update is one transaction", testUpdateIsAtomic},
	{"an update cannot take another's name", func(s *suite) {
		taken, p := s.publish(), s.publish()
		op := s.begin(p.ID, broker.OpUpdate)
		renamed := p
		renamed.Profile.Name = taken.Profile.Name
		require.ErrorIs(s, s.store.UpdateProvider(s.ctx, renamed, op, nil, nil), broker.ErrDuplicateName)
		s.equalProvider(p, s.provider(p.ID))
		require.NoError(s, s.store.UpdateProvider(s.ctx, p, op, nil, nil), "the operation still holds the provider")
	}},
	{"deleting ends the operation and hands over cleanups", testDelete},
	{"deleting needs the operation", func(s *suite) {
		p := s.publish()
		p.DeletedAt = s.now
		require.ErrorIs(s, s.store.DeleteProvider(s.ctx, p, s.newOp(broker.OpDelete), nil, nil), broker.ErrLostOp)
		require.False(s, s.provider(p.ID).Deleted())
	}},
	{"ending gives the claim back", func(s *suite) {
		p := s.publish()
		op := s.begin(p.ID, broker.OpUpdate)
		require.NoError(s, s.store.EndOp(s.ctx, p.ID, op, credentials.Incomplete, 9))
		p.Credentials.State, p.Credentials.Generation = credentials.Incomplete, 9
		s.equalProvider(p, s.provider(p.ID))
		require.NoError(s, s.store.EndOp(s.ctx, p.ID, op, credentials.Ready, 10), "lost: no error")
		s.equalProvider(p, s.provider(p.ID)) // and no change
		s.begin(p.ID, broker.OpDelete)
	}},
	{"a flow may note the state of the credentials", func(s *suite) {
		p := s.publish()
		set := func(generation int64, want credentials.State) {
			s.Helper()
			require.NoError(s, s.store.SetCredentialsState(s.ctx, p.ID, generation, credentials.Missing))
			require.Equal(s, want, s.provider(p.ID).Credentials.State)
		}
		set(p.Credentials.Generation-1, credentials.Ready) // another generation
		op := s.begin(p.ID, broker.OpUpdate)
		set(p.Credentials.Generation, credentials.Ready) // an operation holds it
		require.NoError(s, s.store.EndOp(s.ctx, p.ID, op, credentials.Ready, p.Credentials.Generation))
		set(p.Credentials.Generation, credentials.Missing)
		require.Equal(s, p.UpdatedAt, s.provider(p.ID).UpdatedAt)
	}},
	{"expired operations are listed", testExpiredOps},
	{"orphans are deleted providers with credentials that nobody needs", testOrphans},
	{"an orphan's credentials are detached", testDetach},
}

func testUpdate(s *suite) {
	p := s.publish()
	op := s.begin(p.ID, broker.OpUpdate)
	dropped, kept := s.addCleanup(), s.addCleanup()
	added := s.newCleanup()
	p.Profile = s.newProvider().Profile
	p.Profile.EnableDiscovery, p.Profile.Params = false, nil
	p.Credentials = credentials.Ref{Backend: "hashicorp-vault", Key: "elsewhere", State: credentials.Unknown, Generation: 8}
	p.CreatedAt, p.UpdatedAt = s.now.Add(-time.Hour), s.now.Add(time.Hour)
	e := s.newEvent(audit.ProviderUpdated, uuid.Nil)
	require.NoError(s, s.store.UpdateProvider(s.ctx, p, op, []broker.Cleanup{added}, []uuid.UUID{dropped.ID}, e))
	s.equalProvider(p, s.provider(p.ID))
	require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.ProviderUpdated))
	require.ElementsMatch(s, []uuid.UUID{kept.ID, added.ID}, cleanupIDs(s.claimDue()))
	require.ErrorIs(s, s.store.UpdateProvider(s.ctx, p, op, nil, nil), broker.ErrLostOp)
}

func testUpdateIsAtomic(s *suite) {
	p := s.publish()
	op := s.begin(p.ID, broker.OpUpdate)
	kept := s.addCleanup()
	changed := p
	changed.Profile.Description = "changed"
	add, drop := []broker.Cleanup{s.newCleanup()}, []uuid.UUID{kept.ID}
	e := s.newEvent(audit.ProviderUpdated, uuid.Nil)
	require.Error(s, s.store.UpdateProvider(s.ctx, changed, op, add, drop, e, s.brokenEvent()))
	require.ErrorIs(s, s.store.UpdateProvider(s.ctx, changed, s.newOp(broker.OpUpdate), add, drop, e), broker.ErrLostOp)
	s.equalProvider(p, s.provider(p.ID))
	require.Empty(s, s.events(audit.ProviderUpdated))
	require.Equal(s, []uuid.UUID{kept.ID}, cleanupIDs(s.claimDue()))
	require.NoError(s, s.store.UpdateProvider(s.ctx, changed, op, add, drop, e))
}

func testDelete(s *suite) {
	p := s.publish()
	op := s.begin(p.ID, broker.OpDelete)
	dropped, added := s.addCleanup(), s.newCleanup()
	p.DeletedAt, p.UpdatedAt = s.now.Add(time.Hour), s.now.Add(time.Hour)
	p.Credentials = credentials.Ref{Backend: "internal", Key: "id." + p.ID.String(), Managed: true, State: credentials.Ready, Generation: 8}
	e := s.newEvent(audit.ProviderDeleted, uuid.Nil)
	add, drop := []broker.Cleanup{added}, []uuid.UUID{dropped.ID}
	require.Error(s, s.store.DeleteProvider(s.ctx, p, op, add, drop, e, s.brokenEvent()))
	require.False(s, s.provider(p.ID).Deleted())
	require.NoError(s, s.store.DeleteProvider(s.ctx, p, op, add, drop, e))
	s.equalProvider(p, s.provider(p.ID))
	require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.ProviderDeleted))
	require.Equal(s, []uuid.UUID{added.ID}, cleanupIDs(s.claimDue()))
	require.ErrorIs(s, s.store.DeleteProvider(s.ctx, p, op, nil, nil), broker.ErrLostOp)
}

func testExpiredOps(s *suite) {
	reserved, register := s.reserve()
	updated := s.publish()
	update := s.begin(updated.ID, broker.OpUpdate)
	s.publish() // idle

	list := func(limit int) []broker.ExpiredOp {
		s.Helper()
		ops, err := s.store.ExpiredOps(s.ctx, limit)
		require.NoError(s, err)
		return ops
	}
	require.Empty(s, list(10))
	register.TTL, update.TTL = -time.Minute, 0
	require.NoError(s, s.store.KeepOp(s.ctx, reserved.ID, register))
	require.NoError(s, s.store.KeepOp(s.ctx, updated.ID, update))
	ops := list(10)
	require.Len(s, ops, 2)
	s.equalProvider(reserved, ops[0].Provider)
	require.Equal(s, broker.Op{ID: register.ID, Kind: broker.OpRegister}, ops[0].Op)
	require.True(s, ops[0].Reserved)
	s.equalProvider(updated, ops[1].Provider)
	require.Equal(s, broker.Op{ID: update.ID, Kind: broker.OpUpdate}, ops[1].Op)
	require.False(s, ops[1].Reserved)
	require.Len(s, list(1), 1)
	require.NoError(s, s.store.EndOp(s.ctx, updated.ID, update, credentials.Ready, 1))
	require.Len(s, list(10), 1)
}

func testOrphans(s *suite) {
	kept := credentials.Ref{Backend: "internal", Key: "id.kept", Managed: true, State: credentials.Ready, Generation: 2}
	external := kept
	external.Managed = false
	elsewhere := kept
	elsewhere.Backend = "hashicorp-vault"
	s.publish() // not deleted
	s.remove(s.publish(), credentials.Ref{})
	s.remove(s.publish(), external)
	s.remove(s.publish(), elsewhere)
	needed := s.publish()
	c, _ := s.active(needed.ID)
	s.pending(needed.ID)
	s.remove(needed, kept)
	orphan := s.remove(s.publish(), kept)

	orphans := func(limit int) []uuid.UUID {
		s.Helper()
		list, err := s.store.Orphans(s.ctx, "internal", limit)
		require.NoError(s, err)
		return providerIDs(list)
	}
	require.Equal(s, []uuid.UUID{orphan.ID}, orphans(10))
	require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, broker.StatusRevoked, s.now))
	require.ElementsMatch(s, []uuid.UUID{orphan.ID, needed.ID}, orphans(10))
	require.Len(s, orphans(1), 1)
}

func testDetach(s *suite) {
	kept := credentials.Ref{Backend: "internal", Key: "id.kept", Managed: true, State: credentials.Ready, Generation: 2}
	p := s.publish()
	cleanup := s.newCleanup()
	require.ErrorIs(s, s.store.DetachCredentials(s.ctx, p.ID, cleanup), broker.ErrStale)
	c, _ := s.active(p.ID)
	s.remove(p, kept)
	require.ErrorIs(s, s.store.DetachCredentials(s.ctx, p.ID, cleanup), broker.ErrStale)
	require.NoError(s, s.store.SetStatus(s.ctx, c.ID, broker.StatusActive, broker.StatusAttention, s.now))
	require.Empty(s, s.claimDue())

	require.NoError(s, s.store.DetachCredentials(s.ctx, p.ID, cleanup))
	require.True(s, s.provider(p.ID).Credentials.IsZero())
	require.Equal(s, []uuid.UUID{cleanup.ID}, cleanupIDs(s.claimDue()))
	require.ErrorIs(s, s.store.DetachCredentials(s.ctx, p.ID, s.newCleanup()), broker.ErrStale)
}

func testKeep(s *suite) {
	p := s.publish()
	op := s.newOp(broker.OpUpdate)
	op.TTL = 0
	_, err := s.store.BeginOp(s.ctx, p.ID, op, false)
	require.NoError(s, err)
	op.TTL = time.Minute
	require.NoError(s, s.store.KeepOp(s.ctx, p.ID, op), "it has run out, and nobody has taken over")
	_, err = s.store.BeginOp(s.ctx, p.ID, s.newOp(broker.OpUpdate), false)
	require.ErrorIs(s, err, broker.ErrBusy)
	require.ErrorIs(s, s.store.KeepOp(s.ctx, p.ID, s.newOp(broker.OpUpdate)), broker.ErrLostOp, "another's claim")
	require.NoError(s, s.store.EndOp(s.ctx, p.ID, op, credentials.Ready, 1))
	require.ErrorIs(s, s.store.KeepOp(s.ctx, p.ID, op), broker.ErrLostOp)
	require.ErrorIs(s, s.store.KeepOp(s.ctx, uuid.New(), op), broker.ErrLostOp)

	reserved, register := s.reserve()
	require.NoError(s, s.store.KeepOp(s.ctx, reserved.ID, register))
	s.runOut(reserved.ID, register)
	s.begin(reserved.ID, broker.OpRepair)
	require.ErrorIs(s, s.store.KeepOp(s.ctx, reserved.ID, register), broker.ErrLostOp, "taken over")
}

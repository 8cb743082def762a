package storetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

const racers = 16

// race calls f from many goroutines at once and returns how many calls returned nil.
// Every other error must be want.
func (s *suite) race(want error, f func(i int) error) (won int) {
	s.Helper()
	start := make(chan struct{})
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		require.ErrorIs(s, err, want)
	}
	return won
}

var concurrencyTests = []test{
	{"of many reservations of a name one wins", func(s *suite) {
		name := s.newProvider().Profile.Name
		require.Equal(s, 1, s.race(broker.ErrDuplicateName, func(int) error {
			p := s.newProvider()
			p.Profile.Name = name
			return s.store.ReserveProvider(s.ctx, p, s.newOp(broker.OpRegister))
		}))
	}},
	{"of many renames to a name one wins", func(s *suite) {
		name := s.newProvider().Profile.Name
		var providers [racers]broker.Provider
		var ops [racers]broker.Op
		for i := range providers {
			providers[i] = s.publish()
			ops[i] = s.begin(providers[i].ID, broker.OpUpdate)
			providers[i].Profile.Name = name
		}
		require.Equal(s, 1, s.race(broker.ErrDuplicateName, func(i int) error {
			return s.store.UpdateProvider(s.ctx, providers[i], ops[i], nil, nil)
		}))
	}},
	{"of many operations on a provider one begins", func(s *suite) {
		p := s.publish()
		require.Equal(s, 1, s.race(broker.ErrBusy, func(int) error {
			_, err := s.store.BeginOp(s.ctx, p.ID, s.newOp(broker.OpUpdate), true)
			return err
		}))
	}},
	{"an expired reservation is published or taken over", func(s *suite) {
		p, op := s.reserve()
		s.runOut(p.ID, op)
		repair := s.newOp(broker.OpRepair)
		var published, taken error
		s.race(nil, func(i int) error {
			switch i {
			case 0:
				published = s.store.PublishProvider(s.ctx, p, op)
			case 1:
				_, taken = s.store.BeginOp(s.ctx, p.ID, repair, false)
			}
			return nil
		})
		if published == nil { // then the repair has found a published provider
			require.NoError(s, taken)
			s.provider(p.ID)
			return
		}
		require.ErrorIs(s, published, broker.ErrLostOp)
		require.NoError(s, taken)
		require.NoError(s, s.store.AbandonProvider(s.ctx, p.ID, repair))
	}},
	{"of many claims of a consent one succeeds", func(s *suite) {
		c := s.pending(s.publish().ID)
		require.Equal(s, 1, s.race(broker.ErrNoRow, func(int) error {
			got, err := s.store.ClaimConsent(s.ctx, c.ID, time.Time{}, s.now)
			if err == nil && got.CodeVerifier != c.CodeVerifier {
				return fmt.Errorf("the winner got %q", got.CodeVerifier)
			}
			return err
		}))
	}},
	{"of many completions one succeeds", func(s *suite) {
		c := s.pending(s.publish().ID)
		require.Equal(s, 1, s.race(broker.ErrNoRow, func(i int) error {
			return s.store.CompleteConnection(s.ctx, c, broker.StoredToken{Sealed: fmt.Sprint(i)}, s.now,
				s.newEvent(audit.OAuthFlowCompleted, c.ID))
		}))
		require.Len(s, s.events(audit.OAuthFlowCompleted), 1)
	}},
	{"of many replacements of a token one succeeds", func(s *suite) {
		c, old := s.active(s.publish().ID)
		require.Equal(s, 1, s.race(broker.ErrStale, func(i int) error {
			return s.store.ReplaceToken(s.ctx, c.ID, old.Sealed, broker.StoredToken{Sealed: fmt.Sprint("new ", i)}, s.now,
				s.newEvent(audit.TokenRefreshed, c.ID))
		}))
		require.Len(s, s.events(audit.TokenRefreshed), 1)
	}},
	{"a token is replaced or its connection needs attention", func(s *suite) {
		for range 5 {
			c, old := s.active(s.publish().ID)
			require.Equal(s, 1, s.race(broker.ErrStale, func(i int) error {
				if i%2 == 0 {
					return s.store.Attention(s.ctx, c.ID, old.Sealed, s.now)
				}
				return s.store.ReplaceToken(s.ctx, c.ID, old.Sealed, broker.StoredToken{Sealed: fmt.Sprint("new ", i)}, s.now)
			}))
			replaced := s.token(c.ID) != old
			require.Equal(s, replaced, s.connection(c.ID).Status == broker.StatusActive)
		}
	}},
	{"cleanups are claimed by one", func(s *suite) {
		var want []uuid.UUID
		for range 40 {
			want = append(want, s.addCleanup().ID)
		}
		var mu sync.Mutex
		var got []uuid.UUID
		s.race(nil, func(int) error {
			for {
				list, err := s.store.ClaimCleanups(s.ctx, time.Minute, 3)
				if err != nil || len(list) == 0 {
					return err
				}
				mu.Lock()
				got = append(got, cleanupIDs(list)...)
				mu.Unlock()
			}
		})
		require.ElementsMatch(s, want, got)
	}},
	{"a place is claimed by one", func(s *suite) {
		c := s.addCleanup()
		s.addCleanup(func(o *broker.Cleanup) { o.Backend, o.Key = c.Backend, c.Key })
		require.Equal(s, 1, s.race(broker.ErrBusy, func(int) error {
			_, err := s.store.ClaimCleanupsAt(s.ctx, c.Backend, c.Key, time.Minute)
			return err
		}))
	}},
	{"a lease is given to one", func(s *suite) {
		errTaken := errors.New("taken")
		require.Equal(s, 1, s.race(errTaken, func(i int) error {
			ok, err := s.store.Lease(s.ctx, "sweep", fmt.Sprint("replica ", i), time.Minute)
			if err == nil && !ok {
				err = errTaken
			}
			return err
		}))
	}},
	{"readers and writers get along", func(s *suite) {
		p := s.publish()
		c, _ := s.active(p.ID)
		require.Equal(s, racers, s.race(nil, func(int) error {
			for range 10 {
				_, err := s.store.ReadToken(s.ctx, c.ID, s.newEvent(audit.TokenRetrieved, c.ID))
				_, err2 := broker.All(s.store.Providers(s.ctx, broker.Page{}))
				_, err3 := broker.All(s.store.AuditEvents(s.ctx, audit.Filter{Limit: 5}))
				err4 := s.store.SetHealth(s.ctx, p.ID, broker.Health{Status: broker.HealthHealthy, CheckedAt: s.now})
				if err := errors.Join(err, err2, err3, err4); err != nil {
					return err
				}
			}
			return nil
		}))
		require.Len(s, s.events(audit.TokenRetrieved), racers*10)
	}},
}

package storetest

import (
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

var moveTests = []test{
	{"providers by age come oldest first, page by page", func(s *suite) {
		young := s.publish(func(p *broker.Provider) { p.CreatedAt = s.now.Add(time.Hour) })
		old := s.publish()
		s.reserve()
		needed := s.publish(func(p *broker.Provider) { p.CreatedAt = s.now.Add(time.Minute) })
		s.remove(needed, needed.Credentials)
		gone := s.publish()
		s.remove(gone, credentials.Ref{})
		n, err := s.store.CountProviders(s.ctx)
		require.NoError(s, err)
		require.Equal(s, 3, n)
		var ids []uuid.UUID
		for page := (broker.Page{Limit: 2}); ; {
			found, err := s.store.ProvidersByAge(s.ctx, page)
			require.NoError(s, err)
			if len(found) == 0 {
				break
			}
			for _, p := range found {
				ids = append(ids, p.ID)
			}
			page.After = ids[len(ids)-1]
		}
		require.Equal(s, []uuid.UUID{old.ID, needed.ID, young.ID}, ids)
	}},
	{"a kept cleanup is never due, and is found by its backend", func(s *suite) {
		kept := s.addCleanup(func(c *broker.Cleanup) { c.Kept = true })
		s.addCleanup(func(c *broker.Cleanup) { c.Backend, c.Kept = "another", true })
		s.addCleanup(func(c *broker.Cleanup) { c.Wait = time.Hour })
		found, err := s.store.KeptCleanups(s.ctx, kept.Backend, broker.Page{Limit: 10})
		require.NoError(s, err)
		require.Equal(s, []uuid.UUID{kept.ID}, cleanupIDs(found))
		require.True(s, found[0].Kept)
		rest, err := s.store.KeptCleanups(s.ctx, kept.Backend, broker.Page{After: kept.ID, Limit: 10})
		require.NoError(s, err)
		require.Empty(s, rest)
		require.Empty(s, s.claimDue())
	}},
	{"the backends that are named by rows are counted", func(s *suite) {
		named := func() []broker.NamedBackend {
			found, err := s.store.NamedBackends(s.ctx)
			require.NoError(s, err)
			return found
		}
		require.Empty(s, named())
		at := func(backend string, managed bool) func(*broker.Provider) {
			return func(p *broker.Provider) { p.Credentials.Backend, p.Credentials.Managed = backend, managed }
		}
		s.publish(at("a-vault", true))
		s.publish(at("a-vault", false))
		needed := s.publish(at("a-vault", true))
		s.remove(needed, needed.Credentials)
		gone := s.publish(at("a-vault", true))
		s.remove(gone, credentials.Ref{})
		s.publish(func(p *broker.Provider) { p.Credentials = credentials.Ref{} })
		s.reserve()
		s.addCleanup(func(c *broker.Cleanup) { c.Backend, c.Kept = "b-vault", true })
		s.addCleanup(func(c *broker.Cleanup) { c.Backend, c.Wait = "b-vault", time.Hour })
		s.publish(at("c-vault", false))
		s.addCleanup(func(c *broker.Cleanup) { c.Backend = "c-vault" })
		require.Equal(s, []broker.NamedBackend{
			{Name: "a-vault", Providers: 3, Managed: 2}, {Name: "b-vault", Due: 1, Kept: 1}, {Name: "c-vault", Providers: 1, Due: 1},
		}, named())
	}},
	{"a released cleanup is as it was", func(s *suite) {
		kept := s.addCleanup(func(c *broker.Cleanup) { c.Kept = true })
		claim := func() []broker.Cleanup {
			found, err := s.store.ClaimCleanupsAt(s.ctx, kept.Backend, kept.Key, time.Hour)
			require.NoError(s, err)
			return found
		}
		require.Len(s, claim(), 1)
		require.NoError(s, s.store.ReleaseCleanups(s.ctx, kept.ID, uuid.New()))
		require.True(s, claim()[0].Kept)
	}},
	{"deleting a provider makes due what was kept of it", func(s *suite) {
		p := s.publish()
		kept := s.addCleanup(func(c *broker.Cleanup) { c.ProviderID, c.Kept = p.ID, true })
		s.addCleanup(func(c *broker.Cleanup) { c.ProviderID, c.Kept = uuid.New(), true })
		s.remove(p, credentials.Ref{})
		require.Equal(s, []uuid.UUID{kept.ID}, cleanupIDs(s.claimDue()))
	}},
}

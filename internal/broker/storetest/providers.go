package storetest

import (
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

var providerTests = []test{
	{"every field survives", func(s *suite) {
		p := s.publish()
		s.equalProvider(p, s.provider(p.ID))
	}},
	{"empty fields stay empty", func(s *suite) {
		p := s.publish(func(p *broker.Provider) {
			p.Profile = broker.Profile{Name: p.Profile.Name, AuthType: broker.AuthAPIKey}
			p.Credentials = credentials.Ref{}
		})
		s.equalProvider(p, s.provider(p.ID))
		require.True(s, s.provider(p.ID).Credentials.IsZero())
	}},
	{"references survive, and go with the credentials", func(s *suite) {
		p := s.publish(func(p *broker.Provider) {
			p.Credentials = credentials.Ref{
				Backend: "hashicorp-vault", ClientIDReference: "team-a/ünï@3#client id", ClientSecretReference: "team-a/x#a#b",
				State: credentials.Ready, Generation: 1,
			}
		})
		s.equalProvider(p, s.provider(p.ID))
		op := s.begin(p.ID, broker.OpUpdate)
		p.Credentials.ClientIDReference, p.Credentials.ClientSecretReference, p.Credentials.Generation = "team-b/x", "", 2
		require.NoError(s, s.store.UpdateProvider(s.ctx, p, op, nil, nil))
		s.equalProvider(p, s.provider(p.ID))
		p = s.remove(p, credentials.Ref{})
		require.False(s, s.provider(p.ID).Credentials.Referenced())
	}},
	{"a reference that cannot be stored is refused", func(s *suite) {
		for _, bad := range []string{"a\x00b", "a\xff"} {
			p := s.newProvider()
			p.Credentials.ClientSecretReference = bad
			require.ErrorIs(s, s.store.ReserveProvider(s.ctx, p, s.newOp(broker.OpRegister)), broker.ErrUnstorable)
		}
	}},
	{"no scopes and an empty list of scopes differ", func(s *suite) {
		p := s.publish(func(p *broker.Provider) { p.Profile.Scopes = []string{} })
		require.Equal(s, []string{}, s.provider(p.ID).Profile.Scopes)
	}},
	{"no auth type means oauth2", func(s *suite) {
		p := s.publish(func(p *broker.Provider) { p.Profile.AuthType = "" })
		require.Equal(s, broker.AuthOAuth2, s.provider(p.ID).Profile.AuthType)
	}},
	{"times are UTC with microseconds", func(s *suite) {
		east := time.FixedZone("east", 5*3600)
		p := s.publish(func(p *broker.Provider) { p.CreatedAt = s.now.Add(999 * time.Nanosecond).In(east) })
		got := s.provider(p.ID).CreatedAt
		require.Equal(s, s.now, got)
		require.Equal(s, time.UTC, got.Location())
	}},
	{"a reservation is not visible", func(s *suite) {
		p, op := s.reserve()
		_, err := s.store.Provider(s.ctx, p.ID)
		require.ErrorIs(s, err, broker.ErrNoRow)
		for _, list := range s.listings(p.Profile.Name) {
			require.Empty(s, list)
		}
		s.runOut(p.ID, op)
		_, err = s.store.BeginOp(s.ctx, p.ID, s.newOp(broker.OpUpdate), false)
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.ErrorIs(s, s.store.CreateConnection(s.ctx, broker.Connection{
			ID: uuid.New(), ProviderID: p.ID, Status: broker.StatusPending, CreatedAt: s.now, UpdatedAt: s.now,
		}), broker.ErrNoRow)
	}},
	{"a reservation holds its name", func(s *suite) {
		p, op := s.reserve()
		second := s.newProvider()
		second.Profile.Name = p.Profile.Name
		require.ErrorIs(s, s.store.ReserveProvider(s.ctx, second, s.newOp(broker.OpRegister)), broker.ErrDuplicateName)
		require.NoError(s, s.store.PublishProvider(s.ctx, p, op))
		require.ErrorIs(s, s.store.ReserveProvider(s.ctx, second, s.newOp(broker.OpRegister)), broker.ErrDuplicateName)
	}},
	{"publishing stores what it is given, with its events", func(s *suite) {
		p, op := s.reserve()
		p.Profile.Description, p.Credentials.Key, p.Credentials.State = "changed", "id.elsewhere", credentials.Unknown
		p.CreatedAt, p.UpdatedAt = s.now.Add(time.Hour), s.now.Add(2*time.Hour)
		e := s.newEvent(audit.ProviderCreated, uuid.Nil)
		require.NoError(s, s.store.PublishProvider(s.ctx, p, op, e))
		s.equalProvider(p, s.provider(p.ID))
		require.Equal(s, []uuid.UUID{e.ID}, s.events(audit.ProviderCreated))
	}},
	{"publishing ends the operation", func(s *suite) {
		p, op := s.reserve()
		require.NoError(s, s.store.PublishProvider(s.ctx, p, op))
		require.ErrorIs(s, s.store.PublishProvider(s.ctx, p, op), broker.ErrLostOp)
		require.NoError(s, s.store.AbandonProvider(s.ctx, p.ID, op))
		s.provider(p.ID) // still there
	}},
	{"publishing needs the reservation", func(s *suite) {
		p, op := s.reserve()
		e := s.newEvent(audit.ProviderCreated, uuid.Nil)
		require.ErrorIs(s, s.store.PublishProvider(s.ctx, p, s.newOp(broker.OpRegister), e), broker.ErrLostOp)
		require.NoError(s, s.store.AbandonProvider(s.ctx, p.ID, op))
		require.ErrorIs(s, s.store.PublishProvider(s.ctx, p, op, e), broker.ErrLostOp)
		require.Empty(s, s.events(audit.ProviderCreated))
	}},
	{"only a registration's operation publishes", func(s *suite) {
		p := s.publish()
		require.ErrorIs(s, s.store.PublishProvider(s.ctx, p, s.begin(p.ID, broker.OpUpdate)), broker.ErrLostOp)
	}},
	{"publishing is one transaction with its events", func(s *suite) {
		p, op := s.reserve()
		require.Error(s, s.store.PublishProvider(s.ctx, p, op, s.newEvent(audit.ProviderCreated, uuid.Nil), s.brokenEvent()))
		_, err := s.store.Provider(s.ctx, p.ID)
		require.ErrorIs(s, err, broker.ErrNoRow)
		require.Empty(s, s.events(audit.ProviderCreated))
		require.NoError(s, s.store.PublishProvider(s.ctx, p, op))
	}},
	{"abandoning frees the name and may be repeated", func(s *suite) {
		p, op := s.reserve()
		require.NoError(s, s.store.AbandonProvider(s.ctx, p.ID, s.newOp(broker.OpRegister))) // another's: nothing happens
		second := s.newProvider()
		second.Profile.Name = p.Profile.Name
		require.ErrorIs(s, s.store.ReserveProvider(s.ctx, second, s.newOp(broker.OpRegister)), broker.ErrDuplicateName)
		require.NoError(s, s.store.AbandonProvider(s.ctx, p.ID, op))
		require.NoError(s, s.store.AbandonProvider(s.ctx, p.ID, op))
		require.NoError(s, s.store.ReserveProvider(s.ctx, second, s.newOp(broker.OpRegister)))
	}},
	{"a deleted provider is found by id only and its name is free", func(s *suite) {
		p := s.publish()
		deleted := s.remove(p, credentials.Ref{})
		s.equalProvider(deleted, s.provider(p.ID))
		require.True(s, s.provider(p.ID).Deleted())
		for _, list := range s.listings(p.Profile.Name) {
			require.Empty(s, list)
		}
		again := s.publish(func(q *broker.Provider) { q.Profile.Name = p.Profile.Name })
		require.Equal(s, []uuid.UUID{again.ID}, providerIDs(s.listings(p.Profile.Name)[0]))
	}},
	{"an unknown id is no row", func(s *suite) {
		_, err := s.store.Provider(s.ctx, uuid.New())
		require.ErrorIs(s, err, broker.ErrNoRow)
	}},
	{"a name is found without regard to case", func(s *suite) {
		p := s.publish(func(p *broker.Provider) { p.Profile.Name = "New Provider Name" })
		for _, name := range []string{p.Profile.Name, strings.ToUpper(p.Profile.Name), strings.ToLower(p.Profile.Name)} {
			list, err := s.store.ProvidersByName(s.ctx, name)
			require.NoError(s, err)
			require.Equal(s, []uuid.UUID{p.ID}, providerIDs(list), name)
		}
		list, err := s.store.ProvidersByName(s.ctx, "new provider%")
		require.NoError(s, err)
		require.Empty(s, list)
	}},
	{"names that differ in case are different providers", func(s *suite) {
		lower := s.publish(func(p *broker.Provider) { p.Profile.Name = "case" })
		upper := s.publish(func(p *broker.Provider) { p.Profile.Name = "CASE" })
		list, err := s.store.ProvidersByName(s.ctx, "Case")
		require.NoError(s, err)
		require.ElementsMatch(s, []uuid.UUID{lower.ID, upper.ID}, providerIDs(list))
	}},
	{"providers are listed newest first, in pages", testProviderPages},
	{"health is stored", func(s *suite) {
		p := s.publish()
		p.Health = broker.Health{Status: broker.HealthCredentialsRejected, Message: "invalid_client", CheckedAt: s.now}
		require.NoError(s, s.store.SetHealth(s.ctx, p.ID, p.Health))
		s.equalProvider(p, s.provider(p.ID)) // updated_at is as it was
		require.NoError(s, s.store.SetHealth(s.ctx, uuid.New(), p.Health))
	}},
}

func (s *suite) listings(name string) [2][]broker.Provider {
	s.Helper()
	byName, err := s.store.ProvidersByName(s.ctx, name)
	require.NoError(s, err)
	all, err := broker.All(s.store.Providers(s.ctx, broker.Page{}))
	require.NoError(s, err)
	return [2][]broker.Provider{byName, all}
}

func testProviderPages(s *suite) {
	var want []uuid.UUID
	for i := range 7 {
		p := s.publish(func(p *broker.Provider) {
			p.CreatedAt = s.now.Add(time.Duration(i/2) * time.Second) // some at the same time
		})
		want = append([]uuid.UUID{p.ID}, want...)
	}
	all, err := broker.All(s.store.Providers(s.ctx, broker.Page{}))
	require.NoError(s, err)
	require.ElementsMatch(s, want, providerIDs(all))
	for i := 1; i < len(all); i++ {
		require.False(s, all[i].CreatedAt.After(all[i-1].CreatedAt), "newest first")
	}
	var paged []uuid.UUID
	for after := uuid.Nil; ; after = paged[len(paged)-1] {
		page, err := broker.All(s.store.Providers(s.ctx, broker.Page{After: after, Limit: 3}))
		require.NoError(s, err)
		require.LessOrEqual(s, len(page), 3)
		if len(page) == 0 {
			break
		}
		paged = append(paged, providerIDs(page)...)
	}
	require.Equal(s, providerIDs(all), paged)
	rest, err := broker.All(s.store.Providers(s.ctx, broker.Page{After: all[4].ID}))
	require.NoError(s, err)
	require.Equal(s, providerIDs(all[5:]), providerIDs(rest))
	s.remove(s.provider(all[0].ID), credentials.Ref{})
	rest, err = broker.All(s.store.Providers(s.ctx, broker.Page{After: all[0].ID, Limit: 1}))
	require.NoError(s, err)
	require.Equal(s, providerIDs(all[1:2]), providerIDs(rest), "a page may follow a provider that was deleted meanwhile")
	none, err := broker.All(s.store.Providers(s.ctx, broker.Page{After: uuid.New()}))
	require.NoError(s, err)
	require.Empty(s, none)
}

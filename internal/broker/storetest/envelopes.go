package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/keyrotation"
)

// EnvelopeStore is what a store is to those who rotate the encryption key.
type EnvelopeStore interface {
	broker.Store
	internalbackend.Rows
	keyrotation.Rows
}

// RunEnvelopes runs the suite of keyrotation.Rows. open returns an empty store, which
// the suite closes.
func RunEnvelopes(t *testing.T, open func(t *testing.T) EnvelopeStore) {
	for _, test := range envelopeTests {
		t.Run(test.name, func(t *testing.T) {
			store := open(t)
			t.Cleanup(func() { require.NoError(t, store.Close()) })
			s := &suite{T: t, store: store, ctx: t.Context(), now: time.Date(2031, 5, 6, 7, 8, 9, 123456000, time.UTC)}
			test.run(&envelopeSuite{suite: s, rows: store})
		})
	}
}

type envelopeSuite struct {
	*suite
	rows EnvelopeStore
}

// fill stores n envelopes in every place.
func (s *envelopeSuite) fill(n int) (want map[keyrotation.Place]map[string]keyrotation.Envelope) {
	s.Helper()
	want = map[keyrotation.Place]map[string]keyrotation.Envelope{}
	for _, place := range keyrotation.Places() {
		want[place] = map[string]keyrotation.Envelope{}
	}
	put := func(place keyrotation.Place, row, purpose, sealed string, until time.Time) {
		want[place][row] = keyrotation.Envelope{Row: row, Purpose: purpose, Sealed: sealed, Until: until}
	}
	p := s.publish()
	for i := range n {
		c, token := s.active(p.ID)
		put(keyrotation.Tokens, c.ID.String(), "token/"+c.ID.String(), token.Sealed, time.Time{})
		again := s.reconsent(c)
		put(keyrotation.Reconsents, c.ID.String(), "verifier/"+c.ID.String(), again.CodeVerifier, again.ExpiresAt)
		first := s.pending(p.ID)
		put(keyrotation.Consents, first.ID.String(), "verifier/"+first.ID.String(), first.CodeVerifier, first.ExpiresAt)
		key := fmt.Sprintf("Provider_%d.x-y/client_secret", i)
		inserted, err := s.rows.InsertSealedRow(s.ctx, key, "sealed "+key, "owner", 1, s.now)
		require.NoError(s, err)
		require.True(s, inserted)
		put(keyrotation.Credentials, key, "secret/"+key, "sealed "+key, time.Time{})
	}
	return want
}

// read reads a place in pages.
func (s *envelopeSuite) read(place keyrotation.Place, limit int) (list []keyrotation.Envelope) {
	s.Helper()
	for after := ""; ; {
		page, err := s.rows.Envelopes(s.ctx, place, after, limit)
		require.NoError(s, err)
		require.LessOrEqual(s, len(page), limit)
		if len(page) == 0 {
			return list
		}
		list = append(list, page...)
		after = page[len(page)-1].Row
	}
}

var envelopeTests = []struct {
	name string
	run  func(*envelopeSuite)
}{
	{"every envelope is read once, with what it takes to open it", func(s *envelopeSuite) {
		want := s.fill(7)
		for _, place := range keyrotation.Places() {
			for _, limit := range []int{1, 3, 100} {
				found := map[string]keyrotation.Envelope{}
				list := s.read(place, limit)
				for _, e := range list {
					found[e.Row] = e
				}
				require.Len(s, list, 7)
				require.Equal(s, want[place], found)
			}
			n, err := s.rows.CountEnvelopes(s.ctx, place)
			require.NoError(s, err)
			require.Equal(s, 7, n)
		}
	}},
	{"what holds none is left out", func(s *envelopeSuite) {
		c, _ := s.active(s.publish().ID) // whose code verifier is erased
		require.NotEmpty(s, c.CodeVerifier)
		require.Empty(s, s.read(keyrotation.Consents, 10))
		n, err := s.rows.CountEnvelopes(s.ctx, keyrotation.Consents)
		require.NoError(s, err)
		require.Zero(s, n)
	}},
	{"an envelope is replaced only if it still is there, and nothing else changes", func(s *envelopeSuite) {
		s.fill(3)
		for _, place := range keyrotation.Places() {
			list := s.read(place, 10)
			changes := []keyrotation.Change{{Envelope: list[0], Sealed: "nb1.new"}, {Envelope: list[1], Sealed: "nb1.new"}, {Envelope: list[2], Sealed: "nb1.new"}}
			changes[1].Envelope.Sealed = "another"
			made, err := s.rows.ReplaceEnvelopes(s.ctx, place, changes)
			require.NoError(s, err)
			require.Equal(s, 2, made)
			after := s.read(place, 10)
			list[0].Sealed, list[2].Sealed = "nb1.new", "nb1.new"
			require.Equal(s, list, after)
		}
	}},
	{"a writer of a credential notices nothing", func(s *envelopeSuite) {
		s.fill(1)
		e := s.read(keyrotation.Credentials, 1)[0]
		before, _, err := s.rows.SealedRow(s.ctx, e.Row)
		require.NoError(s, err)
		_, err = s.rows.ReplaceEnvelopes(s.ctx, keyrotation.Credentials, []keyrotation.Change{{Envelope: e, Sealed: "nb1.new"}})
		require.NoError(s, err)
		after, _, err := s.rows.SealedRow(s.ctx, e.Row)
		require.NoError(s, err)
		before.Sealed = "nb1.new"
		require.Equal(s, before, after, "version and owner stay")
		updated, err := s.rows.UpdateSealedRow(s.ctx, e.Row, before.Version, "newer", "owner", s.now)
		require.NoError(s, err)
		require.True(s, updated)
	}},
	{"times stay", func(s *envelopeSuite) {
		s.fill(1)
		for _, place := range []keyrotation.Place{keyrotation.Tokens, keyrotation.Consents} {
			e := s.read(place, 1)[0]
			c := s.connection(mustID(s, e.Row))
			_, err := s.rows.ReplaceEnvelopes(s.ctx, place, []keyrotation.Change{{Envelope: e, Sealed: "nb1.new"}})
			require.NoError(s, err)
			if place == keyrotation.Consents {
				c.CodeVerifier = "nb1.new"
			}
			require.Equal(s, c, s.connection(c.ID))
		}
	}},
	{"a code verifier can be erased, a token or credential cannot", func(s *envelopeSuite) {
		s.fill(1)
		for _, place := range keyrotation.Places() {
			change := []keyrotation.Change{{Envelope: s.read(place, 1)[0]}}
			made, err := s.rows.ReplaceEnvelopes(s.ctx, place, change)
			if place == keyrotation.Consents || place == keyrotation.Reconsents {
				require.NoError(s, err)
				require.Equal(s, 1, made)
				require.Empty(s, s.read(place, 1))
				continue
			}
			require.Error(s, err)
			require.Len(s, s.read(place, 1), 1)
		}
	}},
	{"all changes of a call or none", func(s *envelopeSuite) {
		s.fill(2)
		list := s.read(keyrotation.Tokens, 2)
		_, err := s.rows.ReplaceEnvelopes(s.ctx, keyrotation.Tokens, []keyrotation.Change{{Envelope: list[0], Sealed: "nb1.new"}, {Envelope: list[1]}})
		require.Error(s, err)
		require.Equal(s, list, s.read(keyrotation.Tokens, 2))
	}},
	{"a place that is none", func(s *envelopeSuite) {
		_, err := s.rows.CountEnvelopes(s.ctx, "audit_events")
		require.Error(s, err)
		_, err = s.rows.Envelopes(s.ctx, "audit_events", "", 1)
		require.Error(s, err)
		_, err = s.rows.ReplaceEnvelopes(s.ctx, "audit_events", nil)
		require.Error(s, err)
	}},
	{"a context that has ended is its error", func(s *envelopeSuite) {
		s.fill(1)
		e := s.read(keyrotation.Tokens, 1)[0]
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		_, err := s.rows.ReplaceEnvelopes(ctx, keyrotation.Tokens, []keyrotation.Change{{Envelope: e, Sealed: "nb1.new"}})
		require.ErrorIs(s, err, context.Canceled)
		require.Equal(s, e, s.read(keyrotation.Tokens, 1)[0])
	}},
}

func mustID(s *envelopeSuite, row string) uuid.UUID {
	s.Helper()
	id, err := uuid.Parse(row)
	require.NoError(s, err)
	return id
}

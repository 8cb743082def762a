package broker_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// pendingOf returns the connection that a consent's state names.
func pendingOf(t *testing.T, c broker.Consent) uuid.UUID {
	t.Helper()
	payload, _, _ := strings.Cut(c.State, ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	require.NoError(t, err)
	var state struct{ Nonce uuid.UUID }
	require.NoError(t, json.Unmarshal(raw, &state))
	return state.Nonce
}

// Many browsers with the same state, at two replicas: one wins, and the code is sent
// to the provider once.
func TestOneCallbackOfManyWins(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		houses := []*house{newHouse(t, o), newHouse(t, o)}
		id := houses[0].register("google")
		for _, begin := range []func() broker.Consent{
			func() broker.Consent { return houses[0].begin(id) },
			func() broker.Consent { return houses[0].again(id, houses[0].connect(id)) },
		} {
			cb := houses[0].agree(begin())
			asked := houses[0].op.CountGrant("authorization_code")
			const browsers = 8
			results := make(chan error, browsers*len(houses))
			var wg sync.WaitGroup
			for _, h := range houses {
				for range browsers {
					wg.Go(func() {
						_, err := h.Complete(t.Context(), cb)
						results <- err
					})
				}
			}
			wg.Wait()
			close(results)
			won := 0
			for err := range results {
				if err == nil {
					won++
					continue
				}
				code(t, broker.CodeConnectionNotFound, err)
			}
			require.Equal(t, 1, won)
			require.Equal(t, asked+1, houses[0].op.CountGrant("authorization_code"))
		}
	})
}

// interposed is a store at which something happens right before a consent is claimed.
type interposed struct {
	broker.Store
	before func()
}

func (i *interposed) ClaimConsent(ctx context.Context, id uuid.UUID, issued, now time.Time) (broker.Connection, error) {
	if i.before != nil {
		i.before()
	}
	return i.Store.ClaimConsent(ctx, id, issued, now)
}

// The consent expires between the look at it and its claim: the code is not spent.
func TestCallbackAgainstExpiry(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		var mu sync.Mutex
		clock, late := time.Now(), false
		o.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return clock }
		h := newHouse(t, o)
		id := h.register("google")
		connection := h.connect(id)
		for _, c := range []broker.Consent{h.begin(id), h.again(id, connection)} {
			cb := h.agree(c)
			asked := h.op.CountGrant("authorization_code")
			// The look at the credentials comes after the look at the consent.
			h.creds.Forget(h.provider(id).Credentials)
			late = false
			h.vault.Before(func(context.Context, memory.Call) error {
				mu.Lock()
				defer mu.Unlock()
				if !late {
					late, clock = true, clock.Add(10*time.Minute)
				}
				return nil
			})
			_, err := h.Complete(t.Context(), cb)
			code(t, broker.CodeConnectionNotFound, err)
			require.True(t, late)
			require.Equal(t, asked, h.op.CountGrant("authorization_code"))
			h.vault.Before(nil)
			mu.Lock()
			clock = clock.Add(-10 * time.Minute)
			mu.Unlock()
		}
		require.Equal(t, broker.StatusActive, h.status(connection))
	})
}

// The provider is deleted between the look at it and the claim of the consent: the code
// is not spent, and no connection of a deleted provider comes to life.
func TestCallbackAgainstDeletionOfTheProvider(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		hook := &interposed{}
		o.wrap = func(inner broker.Store) broker.Store { hook.Store = inner; return hook }
		h := newHouse(t, o)
		id := h.register("google")
		connection := h.connect(id)
		first, again := h.begin(id), h.again(id, connection)
		callbacks := []broker.Callback{h.agree(first), h.agree(again)}
		asked := h.op.CountGrant("authorization_code")
		hook.before = func() {
			hook.before = nil
			require.NoError(t, h.DeleteProvider(t.Context(), id))
		}
		for _, cb := range callbacks {
			_, err := h.Complete(t.Context(), cb)
			code(t, broker.CodeProviderNotFound, err)
		}
		require.Nil(t, hook.before)
		require.Equal(t, asked, h.op.CountGrant("authorization_code"))
		require.Equal(t, broker.StatusPending, h.status(pendingOf(t, first)))
		require.Equal(t, broker.StatusActive, h.status(connection))
		require.NotEmpty(t, h.events(audit.ProviderNotFound))
	})
}

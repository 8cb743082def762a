package broker_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// newClientHouse is a house with a long cache, whose provider knows a client and the
// one that is going to replace it.
func newClientHouse(t *testing.T) (h *house, id uuid.UUID) {
	t.Helper()
	callback := []string{"https://broker.example/auth/callback"}
	h = newHouse(t, options{ttl: time.Hour, provider: oauthtest.Options{Clients: []oauthtest.Client{
		{ID: clientID, Secret: clientSecret, RedirectURIs: callback}, {ID: "new-client", Secret: "new-secret", RedirectURIs: callback},
	}}})
	return h, h.register("google")
}

// forget takes the provider's pair out of the cache.
func (h *house) forget(id uuid.UUID) { h.creds.Forget(h.provider(id).Credentials) }

// replaceBetween puts the new client's pair into the vault between the read of one key
// and the read of the other.
func (h *house) replaceBetween(first, second string) {
	var once sync.Once
	replaced := make(chan struct{})
	h.vault.After(func(ctx context.Context, c memory.Call) error {
		if c.Op == memory.OpRead && c.Key == first {
			once.Do(func() {
				h.replaceClient(ctx)
				close(replaced)
			})
		}
		return nil
	})
	h.vault.Before(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpRead && c.Key == second {
			<-replaced
		}
		return nil
	})
}

func (h *house) replaceClient(ctx context.Context) {
	h.t.Helper()
	require.NoError(h.t, h.vault.Set(ctx, "google/client_id", "new-client"))
	require.NoError(h.t, h.vault.Set(ctx, "google/client_secret", "new-secret"))
}

// A client that is replaced between the two reads of its pair leaves half of each in
// the cache. The provider refuses such a pair, and the flow that is told so reads both
// anew: with the new id and the old secret nobody notices.
func TestNewIDWithTheOldSecret(t *testing.T) {
	t.Parallel()
	h, id := newClientHouse(t)
	h.forget(id)
	h.replaceBetween("google/client_secret", "google/client_id")
	consent := h.begin(id)
	h.vault.After(nil)
	h.vault.Before(nil)
	require.Equal(t, "new-client", query(t, consent.AuthURL).Get("client_id"))
	_, err := h.Complete(t.Context(), h.agree(consent))
	require.NoError(t, err)
	require.Equal(t, broker.HealthHealthy, h.provider(id).Health.Status)
}

// With the old id and the new secret, the consent that the user gave to the old client
// is lost, as it is for every user who is sent to the provider just before the client
// is replaced. The next one is not.
func TestOldIDWithTheNewSecret(t *testing.T) {
	t.Parallel()
	h, id := newClientHouse(t)
	h.forget(id)
	h.replaceBetween("google/client_id", "google/client_secret")
	consent := h.begin(id)
	h.vault.After(nil)
	h.vault.Before(nil)
	require.Equal(t, clientID, query(t, consent.AuthURL).Get("client_id"))
	_, err := h.Complete(t.Context(), h.agree(consent))
	code(t, broker.CodeTokenExchangeFailed, err)
	h.connect(id)
	require.Equal(t, broker.HealthHealthy, h.provider(id).Health.Status)
}

// A person who replaces a client writes one value after the other. Who comes in
// between is told that it is the provider's credentials, keeps his consent, and needs
// not wait for the cache afterwards.
func TestClientReplacedInTwoSteps(t *testing.T) {
	t.Parallel()
	h, id := newClientHouse(t)
	h.forget(id)
	require.NoError(t, h.vault.Set(t.Context(), "google/client_id", "new-client"))
	consent := h.begin(id)
	_, err := h.Complete(t.Context(), h.agree(consent))
	code(t, broker.CodeCredentialsRejected, err)
	require.Equal(t, broker.HealthCredentialsRejected, h.provider(id).Health.Status)
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", "new-secret"))
	h.connectWith(consent)
	require.Equal(t, broker.HealthHealthy, h.provider(id).Health.Status)
}

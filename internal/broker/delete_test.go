package broker_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

func TestDeleteTakesTheCredentialsAlong(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	connection := h.connect(id)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	require.Empty(t, h.inVault("google/client_id"))
	require.Empty(t, h.inVault("google/client_secret"))
	require.Len(t, h.events(audit.ProviderDeleted), 1)
	require.Len(t, h.events(audit.CredentialsDeleted), 2)
	_, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	_, err = h.Refresh(t.Context(), connection)
	code(t, broker.CodeProviderNotFound, err)
	_, err = h.Provider(t.Context(), id)
	code(t, broker.CodeProviderNotFound, err)
	_, err = h.Begin(t.Context(), request(id))
	code(t, broker.CodeProviderNotFound, err)
	require.NoError(t, h.DeleteProvider(t.Context(), id), "again is fine")
	require.NoError(t, h.DeleteProvider(t.Context(), uuid.New()), "and so is what never was")
}

func TestDeleteOfARotatedSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", "rotated by hand, without our mark"))
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	require.Empty(t, h.inVault("google/client_secret"))
}

func TestDeleteDuringAnOutageIsFinishedLater(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.vault.Fail(errDown)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	h.vault.Fail(nil)
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	h.pass(time.Hour)
	h.SweepOnce(t.Context())
	require.Empty(t, h.inVault("google/client_secret"))
	require.Empty(t, h.inVault("google/client_id"))
}

func TestNameIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.vault.Fail(errDown)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	h.vault.Fail(nil)
	h.register("google") // takes the pending deletion over
	h.pass(time.Hour)
	h.SweepOnce(t.Context())
	require.Equal(t, clientSecret, h.inVault("google/client_secret"), "a late sweep does not hit the successor")
}

// On the internal backend connections outlive their provider, as with the existing
// broker, and the credentials go with the last of them.
func TestInternalCredentialsOutliveTheProvider(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google")
	connection := h.connect(id)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	require.Equal(t, "id."+id.String(), h.provider(id).Credentials.Key)
	_, found, err := h.store.SealedRow(t.Context(), "google/client_secret")
	require.NoError(t, err)
	require.False(t, found)
	_, err = h.Refresh(t.Context(), connection)
	require.NoError(t, err)
	second := h.register("google")
	h.connect(second)
	_, err = h.Refresh(t.Context(), connection)
	require.NoError(t, err)

	require.NoError(t, h.store.SetStatus(t.Context(), connection, broker.StatusActive, broker.StatusRevoked, time.Now()))
	h.SweepOnce(t.Context())
	_, found, err = h.store.SealedRow(t.Context(), "id."+id.String()+"/client_secret")
	require.NoError(t, err)
	require.False(t, found)
	require.True(t, h.provider(id).Credentials.IsZero())
	h.connect(second)
}

func TestInternalCredentialsGoAtOnceWithoutConnections(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google")
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	for _, key := range []string{"google/client_secret", "google/client_id", "id." + id.String() + "/client_secret"} {
		_, found, err := h.store.SealedRow(t.Context(), key)
		require.NoError(t, err)
		require.False(t, found, key)
	}
}

func TestDeleteByName(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	h.register("google")
	n, err := h.DeleteProvidersByName(t.Context(), "GOOGLE")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = h.DeleteProvidersByName(t.Context(), "google")
	code(t, broker.CodeProviderNotFound, err)
	_, err = h.ProviderIDByName(t.Context(), "google")
	code(t, broker.CodeProviderNotFound, err)
}

// A process that dies in the middle of a registration leaves a reservation and a
// value; the next one clears both away once the claim has run out.
func TestSweepAfterACrash(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	op := broker.Op{ID: uuid.New(), Kind: broker.OpRegister, TTL: 30 * time.Second}
	p := broker.Provider{ID: uuid.New(), Profile: broker.Profile{Name: "google", AuthType: broker.AuthOAuth2},
		CreatedAt: time.Now(), UpdatedAt: time.Now()}
	p.Credentials.Backend, p.Credentials.Key, p.Credentials.Managed, p.Credentials.Generation = vaultName, "google", true, 1
	require.NoError(t, h.store.ReserveProvider(t.Context(), p, op))
	_, err := h.vault.Create(t.Context(), "google/client_id", clientID, "nexus-broker/"+p.ID.String()+"/1")
	require.NoError(t, err)

	_, err = h.Register(t.Context(), h.profile("google"))
	code(t, broker.CodeInvalidProviderName, err) // the claim lives: it may be another replica's
	require.Equal(t, clientID, h.inVault("google/client_id"))
	h.pass(time.Minute)
	h.SweepOnce(t.Context())
	require.Empty(t, h.inVault("google/client_id"))
	h.register("google")
}

// Another replica registers the name again: what this one has cached of the
// predecessor is not the successor's, although the place and the generation are.
func TestCacheDoesNotMistakeASuccessor(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	one := newHouse(t, options{path: path, ttl: time.Hour})
	two := newHouse(t, options{path: path, ttl: time.Hour, vault: one.vault})
	one.connect(one.register("google")) // fills one's cache
	list, err := broker.All(two.Providers(t.Context(), broker.Page{}))
	require.NoError(t, err)
	require.NoError(t, two.DeleteProvider(t.Context(), list[0].ID))
	in := one.profile("google")
	in.ClientID = text("successor")
	successor, err := two.Register(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, "successor", query(t, one.begin(successor).AuthURL).Get("client_id"))
}

func TestDeleteWhereTheBrokerIsReadOnly(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	before := newHouse(t, options{internal: true, path: path})
	id := before.register("google")
	h := newHouse(t, options{internal: true, path: path, readOnly: true})
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	h.SweepOnce(t.Context())
	_, found, err := h.store.SealedRow(t.Context(), "google/client_secret")
	require.NoError(t, err)
	require.True(t, found, "nothing is written")
}

// After a lost encryption key the values cannot be read; a new pair, or the end of the
// provider, is still possible.
func TestUnreadableCredentials(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	before := newHouse(t, options{internal: true, path: path})
	id, other := before.register("google"), before.register("other")
	h := newHouse(t, options{internal: true, path: path, key: "z"})
	_, err := h.Begin(t.Context(), request(id))
	code(t, broker.CodeCredentialsInvalid, err)
	require.Equal(t, broker.HealthCredentialsMissing, h.provider(id).Health.Status)
	code(t, broker.CodeCredentialsInvalid, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("x")}))
	in := h.profile("google")
	require.NoError(t, h.ReplaceProvider(t.Context(), id, in))
	h.connect(id)
	require.NoError(t, h.DeleteProvider(t.Context(), other))
	_, found, err := h.store.SealedRow(t.Context(), "other/client_secret")
	require.NoError(t, err)
	require.False(t, found)
}

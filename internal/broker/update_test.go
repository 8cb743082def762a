package broker_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

func TestPatchOfTheSecretRotatesIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{ttl: 0})
	id := h.register("google")
	connection := h.connect(id)
	h.op.SetSecret(clientID, "rotated")
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("rotated")}))
	require.Equal(t, "rotated", h.inVault("google/client_secret"))
	require.Equal(t, clientID, h.inVault("google/client_id"))
	require.Equal(t, int64(2), h.provider(id).Credentials.Generation)
	_, err := h.Refresh(t.Context(), connection)
	require.NoError(t, err)
}

func TestUpdateWithTheStoredPairWritesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.vault.Reset()
	in := h.profile("google")
	in.Description = broker.Given("new")
	require.NoError(t, h.ReplaceProvider(t.Context(), id, in))
	require.Zero(t, h.vault.Count(memory.Writes...))
	require.Equal(t, int64(1), h.provider(id).Credentials.Generation)
	require.Equal(t, "new", h.provider(id).Profile.Description)
}

func TestUpdateOfTheProfileNeedsNoVault(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.vault.Fail(errDown)
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Description: broker.Given("new")}))
	in := h.profile("google") // PUT without credentials keeps the stored pair
	in.ClientID, in.ClientSecret = broker.Field[broker.SecretText]{}, broker.Field[broker.SecretText]{}
	in.Category = broker.Given("mail")
	require.NoError(t, h.ReplaceProvider(t.Context(), id, in))
	p := h.provider(id)
	require.Equal(t, "mail", p.Profile.Category)
	require.Empty(t, p.Profile.Description, "PUT replaces")
	h.vault.Fail(nil)
	h.begin(id)
}

func TestPutOnInternalNeedsTheCredentials(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google")
	in := h.profile("google")
	in.ClientSecret = null()
	code(t, broker.CodeMissingClientSecret, h.ReplaceProvider(t.Context(), id, in))
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Category: broker.Given("x")}))
	view, err := h.Provider(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, clientSecret, view.ClientSecret.Reveal())
}

func TestUpdateIsValidatedLikeARegistration(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.register("other")
	code(t, broker.CodeInvalidProviderName, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("Bad Name")}))
	code(t, broker.CodeMissingTokenURL, h.PatchProvider(t.Context(), id, broker.ProfileInput{TokenURL: broker.Field[string]{Present: true, Null: true}}))
	code(t, broker.CodeMissingClientSecret, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: null()}))
	code(t, broker.CodeProviderNotFound, h.PatchProvider(t.Context(), uuid.New(), broker.ProfileInput{}))
	require.Error(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("other")}))
	require.Equal(t, "google", h.provider(id).Profile.Name)
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
}

func TestRenameMovesTheCredentials(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("gmail")}))
	require.Equal(t, clientSecret, h.inVault("gmail/client_secret"))
	require.Equal(t, clientID, h.inVault("gmail/client_id"))
	require.Empty(t, h.inVault("google/client_secret"))
	require.Empty(t, h.inVault("google/client_id"))
	h.connect(id)
	// And back again: the deletion of the first place does not hit what lies there now.
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("google")}))
	h.SweepOnce(t.Context())
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	require.Empty(t, h.inVault("gmail/client_secret"))
}

func TestRenameOntoAPlaceThatIsTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	require.NoError(t, h.vault.Set(t.Context(), "gmail/client_secret", "somebody's"))
	code(t, broker.CodeCredentialsExist, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("gmail")}))
	require.Equal(t, "somebody's", h.inVault("gmail/client_secret"))
	require.Empty(t, h.inVault("gmail/client_id"))
	require.Equal(t, "google", h.provider(id).Profile.Name)
	h.connect(id)
}

// An update that fails at any call to the vault leaves the old pair in place.
func TestFailedUpdateLeavesTheOldPair(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"google/client_id", "google/client_secret"} {
		t.Run(key, func(t *testing.T) {
			h := newHouse(t, options{})
			id := h.register("google")
			broken := true
			var mu sync.Mutex
			h.vault.Before(func(_ context.Context, c memory.Call) error {
				mu.Lock()
				defer mu.Unlock()
				if c.Op == memory.OpReplace && c.Key == key && broken {
					broken = false
					return errDown
				}
				return nil
			})
			err := h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientID: text("new-id"), ClientSecret: text("new-secret")})
			code(t, broker.CodeSecretBackendUnavailable, err)
			require.Equal(t, clientID, h.inVault("google/client_id"))
			require.Equal(t, clientSecret, h.inVault("google/client_secret"))
			require.Equal(t, credentials.Ready, h.provider(id).Credentials.State)
			h.connect(id)
		})
	}
}

// An update that is cut off between its two writes says so until it is repaired.
func TestTornUpdateSaysSo(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.vault.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpReplace {
			h.vault.Fail(errDown) // after the first write nothing works any more
		}
		return nil
	})
	both := broker.ProfileInput{ClientID: text("new-id"), ClientSecret: text("new-secret")}
	code(t, broker.CodeSecretBackendUnavailable, h.PatchProvider(t.Context(), id, both))
	h.vault.After(nil)
	h.vault.Fail(nil)
	require.Equal(t, credentials.Incomplete, h.provider(id).Credentials.State)
	require.NoError(t, h.PatchProvider(t.Context(), id, both))
	require.Equal(t, credentials.Ready, h.provider(id).Credentials.State)
	require.Equal(t, "new-id", h.inVault("google/client_id"))
	require.Equal(t, "new-secret", h.inVault("google/client_secret"))
}

func TestConcurrentUpdatesAreSerialised(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			err := h.PatchProvider(t.Context(), id, broker.ProfileInput{
				ClientID: text(fmt.Sprintf("id-%d", i)), ClientSecret: text(fmt.Sprintf("secret-%d", i))})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n, ok := strings.CutPrefix(h.inVault("google/client_id"), "id-")
	require.True(t, ok)
	require.Equal(t, "secret-"+n, h.inVault("google/client_secret"), "both values are one writer's")
	require.Equal(t, int64(7), h.provider(id).Credentials.Generation)
}

func TestClientThatBecomesPublicLosesItsSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{AuthHeader: broker.Given("none")}))
	require.Empty(t, h.inVault("google/client_secret"))
	require.Equal(t, clientID, h.inVault("google/client_id"))
	code(t, broker.CodeMissingClientSecret, h.PatchProvider(t.Context(), id, broker.ProfileInput{AuthHeader: broker.Given("client_secret_post")}))
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{
		AuthHeader: broker.Given("client_secret_post"), ClientSecret: text(clientSecret)}))
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	h.connect(id)
}

func TestStaticProviderThatGetsCredentials(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id, err := h.Register(t.Context(), broker.ProfileInput{Name: broker.Given("acme"), AuthType: broker.Given("api_key")})
	require.NoError(t, err)
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientID: text("x"), ClientSecret: text("y")}))
	require.Equal(t, "y", h.inVault("acme/client_secret"))
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: null()}))
	require.Empty(t, h.inVault("acme/client_secret"))
	require.Equal(t, "x", h.inVault("acme/client_id"))
}

// When SECRET_BACKEND has changed, what is written goes to the new backend and the
// rest stays readable where its row says it is.
func TestWritesFollowTheSelectedBackend(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	before := newHouse(t, options{internal: true, path: path})
	id := before.register("google")
	after := newHouse(t, options{path: path})
	in := broker.ProfileInput{TokenURL: broker.Given(after.op.URL("token")), AuthURL: broker.Given(after.op.URL("authorization"))}
	require.NoError(t, after.PatchProvider(t.Context(), id, in))
	require.Equal(t, credentials.Internal, after.provider(id).Credentials.Backend)
	after.connect(id)
	require.NoError(t, after.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("rotated")}))
	require.Equal(t, vaultName, after.provider(id).Credentials.Backend)
	require.Equal(t, "rotated", after.inVault("google/client_secret"))
	_, found, err := after.store.SealedRow(t.Context(), "google/client_secret")
	require.NoError(t, err)
	require.False(t, found, "nothing is left at the old place")
}

func TestTextsThatCannotBeStored(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	in := broker.ProfileInput{Description: broker.Given("\xff")}
	code(t, broker.CodeProviderCreationFailed, h.PatchProvider(t.Context(), id, in))
	bad := h.profile("other")
	bad.Description = broker.Given("\xff")
	_, err := h.Register(t.Context(), bad)
	code(t, broker.CodeProviderCreationFailed, err)
	r := request(id)
	r.WorkspaceID = "\xff"
	_, err = h.Begin(t.Context(), r)
	code(t, broker.CodeMissingFields, err)
}

// A rename to a name that is taken says so, and copies nothing to that name's place.
func TestRenameToANameThatIsTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	h.register("other")
	h.vault.Reset()
	code(t, broker.CodeInvalidProviderName, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("other")}))
	require.Empty(t, h.vault.Calls())
}

// A PUT without credentials keeps them where GET no longer shows them.
func TestPutAfterTheBackendHasChanged(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	id := newHouse(t, options{internal: true, path: path}).register("google")
	h := newHouse(t, options{path: path})
	in := h.profile("google")
	in.ClientID, in.ClientSecret = null(), null()
	require.NoError(t, h.ReplaceProvider(t.Context(), id, in))
	h.connect(id)
}

// A flow that has read the row just before a rename finds the credentials all the same.
func TestFlowDuringARename(t *testing.T) {
	t.Parallel()
	var stale broker.Provider
	var renamed func()
	h := newHouse(t, options{wrap: func(s broker.Store) broker.Store {
		return &staleStore{Store: s, stale: &stale, then: func() { renamed() }}
	}})
	id := h.register("google")
	connection := h.connect(id)
	renamed = func() {
		require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("gmail")}))
	}
	stale = h.provider(id)
	_, err := h.Refresh(t.Context(), connection)
	require.NoError(t, err)
	require.Equal(t, broker.HealthHealthy, h.provider(id).Health.Status)
}

// staleStore answers one read of a provider with an older row, after then.
type staleStore struct {
	broker.Store
	stale *broker.Provider
	then  func()
}

func (s *staleStore) Provider(ctx context.Context, id uuid.UUID) (broker.Provider, error) {
	if old := *s.stale; old.ID == id {
		*s.stale = broker.Provider{}
		s.then()
		return old, nil
	}
	return s.Store.Provider(ctx, id)
}

// A person rotates in the vault while a PATCH is under way: the PATCH sees it and
// starts over, instead of writing over what it has not seen.
func TestUpdateSeesARotationInTheVault(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	reads := 0
	h.vault.After(func(ctx context.Context, c memory.Call) error {
		if c.Op == memory.OpRead && c.Key == "google/client_id" {
			if reads++; reads == 1 {
				return h.vault.Set(ctx, "google/client_id", "rotated by hand")
			}
		}
		return nil
	})
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("new")}))
	require.GreaterOrEqual(t, reads, 4, "planned, found changed, planned again, found unchanged")
	require.Equal(t, "rotated by hand", h.inVault("google/client_id"))
	require.Equal(t, "new", h.inVault("google/client_secret"))
}

// TestAnInternalPairThatMayNotFitTogetherSaysSo: the values themselves do not.
func TestAnInternalPairThatMayNotFitTogetherSaysSo(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google")
	op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: time.Minute}
	_, err := h.store.BeginOp(t.Context(), id, op, true)
	require.NoError(t, err)
	view, err := h.Provider(t.Context(), id)
	require.NoError(t, err)
	require.True(t, view.ShowCredentials)
	require.Equal(t, credentials.Incomplete, view.Provider.Credentials.State)
	require.Equal(t, clientSecret, view.ClientSecret.Reveal())
}

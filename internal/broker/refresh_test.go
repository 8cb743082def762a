package broker_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

func TestRefreshRotatesAndMerges(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"), "openid")
	first, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	h.op.Next(oauthtest.Token, oauthtest.Without("id_token", "scope"))
	second, err := h.Refresh(t.Context(), connection)
	require.NoError(t, err)
	require.NotEqual(t, field(t, first, "access_token"), field(t, second, "access_token"))
	require.NotEqual(t, field(t, first, "refresh_token"), field(t, second, "refresh_token"))
	require.Equal(t, field(t, first, "id_token"), field(t, second, "id_token"), "what a refresh leaves out is kept")
	require.False(t, second.Expired)
	stored, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	require.Equal(t, second.Token.Fields(), stored.Token.Fields())
	require.Len(t, h.events(audit.TokenRefreshed), 1)
}

func TestRefreshWithoutANewRefreshTokenKeepsTheOld(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{provider: oauthtest.Options{StaticRefreshTokens: true}})
	connection := h.connect(h.register("google"))
	first, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	for range 2 {
		second, err := h.Refresh(t.Context(), connection)
		require.NoError(t, err)
		require.Equal(t, field(t, first, "refresh_token"), field(t, second, "refresh_token"))
	}
}

// Callers at one time share one request; with a provider that detects reuse, a
// second request would end the grant.
func TestConcurrentRefreshesMakeOneRequest(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"))
	release := make(chan struct{})
	h.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
	tokens := make(chan string, 50)
	var started, wg sync.WaitGroup
	for range cap(tokens) {
		started.Add(1)
		wg.Go(func() {
			started.Done()
			a, err := h.Refresh(t.Context(), connection)
			if err != nil {
				t.Error(err)
				return
			}
			tokens <- field(t, a, "access_token")
		})
	}
	started.Wait()
	eventually(t, "the request", func() bool { return h.op.CountGrant("refresh_token") == 1 })
	time.Sleep(100 * time.Millisecond) // let the stragglers join
	close(release)
	wg.Wait()
	close(tokens)
	require.Equal(t, 1, h.op.CountGrant("refresh_token"))
	first := <-tokens
	for other := range tokens {
		require.Equal(t, first, other)
	}
	// Every caller who got a token left a row.
	require.Len(t, h.events(audit.TokenRefreshed), 1)
	require.Len(t, h.events(audit.TokenRetrieved), 49)
	_, err := h.Refresh(t.Context(), connection)
	require.NoError(t, err, "the grant is alive")
}

func TestOnlyInvalidGrantEndsAConnection(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]oauthtest.Answer{
		"429": oauthtest.RateLimited(7 * time.Second), "500": oauthtest.Respond(500, "text/plain", "CANARY"),
		"HTML": oauthtest.HTML(200), "cut off": oauthtest.CutOff(), "unknown": oauthtest.Refuse(400, "CANARY"),
		"invalid_request":         oauthtest.Refuse(400, "invalid_request"),
		"temporarily_unavailable": oauthtest.Refuse(400, "temporarily_unavailable"),
		"403":                     oauthtest.Respond(403, "application/json", `{}`),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			connection := h.connect(h.register("google"))
			h.op.Next(oauthtest.Token, answer)
			_, err := h.Refresh(t.Context(), connection)
			e := code(t, broker.CodeUpstreamError, err)
			require.NotContains(t, e.Message+fmt.Sprint(e.Details), "CANARY")
			if name == "429" {
				require.Equal(t, 7*time.Second, e.RetryAfter)
			}
			require.Equal(t, broker.StatusActive, h.status(connection))
			_, err = h.Token(t.Context(), connection)
			require.NoError(t, err)
			if name == "cut off" {
				return // the provider has rotated, and what it rotated to is lost on the way
			}
			_, err = h.Refresh(t.Context(), connection)
			require.NoError(t, err, "and the next refresh works")
		})
	}
}

func TestInvalidGrantNeedsAttention(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"))
	h.op.EndGrants()
	_, err := h.Refresh(t.Context(), connection)
	code(t, broker.CodeAttentionRequired, err)
	require.Equal(t, broker.StatusAttention, h.status(connection))
	require.Len(t, h.events(audit.TokenRefreshFatal), 1)
	_, err = h.Token(t.Context(), connection)
	code(t, broker.CodeAttentionRequired, err)
	_, err = h.Refresh(t.Context(), connection)
	code(t, broker.CodeConnectionNotFound, err)
}

// silent is a store that does not hear of a lease being renewed: its replica loses
// refreshes that take long to the others.
func silent(s broker.Store) broker.Store { return mute{s} }

type mute struct{ broker.Store }

func (mute) KeepRefresh(context.Context, broker.RefreshLease, time.Duration) error { return nil }

func shortLease(c *broker.Config) { c.RefreshLease = 200 * time.Millisecond }

// invalid_grant for a token that another replica has rotated meanwhile, after it has
// taken the refresh over, is no reason: the newer token is handed out.
func TestInvalidGrantForATokenThatIsNotStoredAnyMore(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	vault := memory.NewFaulty(memory.New())
	one := newHouse(t, options{path: path, vault: vault, wrap: silent, config: shortLease})
	two := newHouse(t, options{path: path, vault: vault, config: shortLease})
	connection := one.connect(one.register("google"))

	release := make(chan struct{})
	one.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Refuse(400, "invalid_grant")))
	type result struct {
		a   broker.TokenAnswer
		err error
	}
	slow := make(chan result, 1)
	go func() {
		a, err := one.Refresh(t.Context(), connection)
		slow <- result{a, err}
	}()
	eventually(t, "the slow request", func() bool { return one.op.CountGrant("refresh_token") == 1 })
	fast, err := two.Refresh(t.Context(), connection)
	require.NoError(t, err)
	close(release)
	r := <-slow
	require.NoError(t, r.err)
	require.Equal(t, field(t, fast, "access_token"), field(t, r.a, "access_token"))
	require.Equal(t, broker.StatusActive, one.status(connection))
}

// A slower, older refresh does not overwrite a newer token.
func TestSlowRefreshDoesNotOverwriteANewerToken(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	vault := memory.NewFaulty(memory.New())
	provider := oauthtest.Options{StaticRefreshTokens: true}
	one := newHouse(t, options{path: path, vault: vault, provider: provider, wrap: silent, config: shortLease})
	two := newHouse(t, options{path: path, vault: vault, provider: provider, config: shortLease})
	connection := one.connect(one.register("google"))

	release := make(chan struct{})
	one.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
	slow := make(chan broker.TokenAnswer, 1)
	go func() {
		a, err := one.Refresh(t.Context(), connection)
		if err != nil {
			t.Error(err)
		}
		slow <- a
	}()
	eventually(t, "the slow request", func() bool { return one.op.CountGrant("refresh_token") == 1 })
	fast, err := two.Refresh(t.Context(), connection)
	require.NoError(t, err)
	close(release)
	require.Equal(t, field(t, fast, "access_token"), field(t, <-slow, "access_token"))
	stored, err := one.Token(t.Context(), connection)
	require.NoError(t, err)
	require.Equal(t, field(t, fast, "access_token"), field(t, stored, "access_token"))
}

// The caller goes away in the middle; the rotated token is stored all the same.
func TestRefreshOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"))
	before, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	release := make(chan struct{})
	h.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
	ctx, hangUp := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := h.Refresh(ctx, connection)
		gone <- err
	}()
	eventually(t, "the request", func() bool { return h.op.CountGrant("refresh_token") == 1 })
	hangUp()
	require.ErrorIs(t, <-gone, context.Canceled)
	close(release)
	eventually(t, "the new token", func() bool {
		now, err := h.Token(t.Context(), connection)
		return err == nil && field(t, now, "access_token") != field(t, before, "access_token")
	})
	_, err = h.Refresh(t.Context(), connection)
	require.NoError(t, err)
}

func TestCloseWaitsForARefresh(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"))
	before, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	release := make(chan struct{})
	h.op.Next(oauthtest.Token, oauthtest.When(release, oauthtest.Ordinary()))
	go func() { _, _ = h.Refresh(t.Context(), connection) }()
	eventually(t, "the request", func() bool { return h.op.CountGrant("refresh_token") == 1 })
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, h.Close(short), context.DeadlineExceeded)
	close(release)
	require.NoError(t, h.Close(t.Context()))
	after, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	require.NotEqual(t, field(t, before, "access_token"), field(t, after, "access_token"))
}

func TestRefreshRefusals(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	_, err := h.Refresh(t.Context(), uuid.New())
	code(t, broker.CodeConnectionNotFound, err)

	h.op.Next(oauthtest.Token, oauthtest.Without("refresh_token"))
	bare := h.connect(id)
	_, err = h.Refresh(t.Context(), bare)
	code(t, broker.CodeNoRefreshToken, err)

	static := h.capture("acme", broker.ProfileInput{AuthType: broker.Given("api_key")}, `{"api_key":"k"}`)
	_, err = h.Refresh(t.Context(), static)
	code(t, broker.CodeStaticToken, err)
}

func TestRefreshDuringVaultTrouble(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"))
	h.vault.Fail(errDown)
	_, err := h.Refresh(t.Context(), connection)
	code(t, broker.CodeSecretBackendUnavailable, err)
	require.Equal(t, broker.StatusActive, h.status(connection))
	_, err = h.Token(t.Context(), connection)
	require.NoError(t, err, "a stored token needs no vault")
	h.vault.Fail(nil)
	_, err = h.Refresh(t.Context(), connection)
	require.NoError(t, err)
}

func TestRefreshAfterARotation(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{ttl: time.Hour})
	id := h.register("google")
	connection := h.connect(id)
	h.op.SetSecret(clientID, "rotated")
	_, err := h.Refresh(t.Context(), connection)
	code(t, broker.CodeCredentialsRejected, err)
	require.Equal(t, broker.StatusActive, h.status(connection), "never the user's fault")
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("rotated")}))
	_, err = h.Refresh(t.Context(), connection)
	require.NoError(t, err)
}

// An outage is bridged with what the cache holds, a denial is not.
func TestOutageIsBridgedAndDenialIsNot(t *testing.T) {
	t.Parallel()
	clock := time.Now()
	var mu sync.Mutex
	h := newHouse(t, options{ttl: time.Minute, now: func() time.Time { mu.Lock(); defer mu.Unlock(); return clock }})
	connection := h.connect(h.register("google"))
	mu.Lock()
	clock = clock.Add(2 * time.Minute)
	mu.Unlock()
	h.vault.Fail(errDown)
	_, err := h.Refresh(t.Context(), connection)
	require.NoError(t, err)
	mu.Lock()
	clock = clock.Add(2 * time.Hour)
	mu.Unlock()
	_, err = h.Refresh(t.Context(), connection)
	code(t, broker.CodeSecretBackendUnavailable, err)
}

// A change of the profile alone ends the bridging of no outage: what is in memory is still
// what the row points to.
func TestAChangeOfTheProfileKeepsTheBridge(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]broker.ProfileInput{
		"nothing":     {},
		"description": {Description: broker.Given("new")},
		"token URL":   {TokenURL: broker.Given("https://moved.example/token")},
	} {
		t.Run(name, func(t *testing.T) {
			var clock atomic.Int64
			h := newHouse(t, options{ttl: time.Minute, now: func() time.Time { return time.Unix(1_800_000_000+clock.Load(), 0) }})
			owned := h.register("google")
			require.NoError(t, h.vault.Set(t.Context(), "other/client_id", clientID))
			require.NoError(t, h.vault.Set(t.Context(), "other/client_secret", clientSecret))
			adopted := h.profile("other")
			adopted.ClientID, adopted.ClientSecret = broker.Field[broker.SecretText]{}, broker.Field[broker.SecretText]{}
			external, err := h.Register(t.Context(), adopted)
			require.NoError(t, err)
			h.begin(owned)
			h.begin(external)

			clock.Add(120)
			h.vault.Fail(errDown)
			for _, id := range []uuid.UUID{owned, external} {
				require.NoError(t, h.PatchProvider(t.Context(), id, change))
				_, err := h.Begin(t.Context(), request(id))
				require.NoError(t, err, "the outage is still bridged")
			}
		})
	}
}

func TestNothingLeavesWithoutItsAuditRow(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	connection := h.connect(h.register("google"))
	require.NoError(t, h.store.Close())
	_, err := h.Token(t.Context(), connection)
	require.Error(t, err)
	require.Equal(t, broker.CodeInternal, broker.CodeOf(err), "a database error is no 404")
}

package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

var errDown = fmt.Errorf("the vault is down: %w", secret.ErrUnavailable)

func TestRegisterWritesBothKeysAndPublishes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	require.Equal(t, clientID, h.inVault("google/client_id"))
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	view, err := h.Provider(t.Context(), id)
	require.NoError(t, err)
	require.True(t, view.ShowCredentials)
	require.True(t, view.ClientSecret.IsZero(), "an external backend's values are never shown")
	require.Equal(t, credentials.Ref{ProviderID: id, Backend: vaultName, Key: "google", Managed: true,
		State: credentials.Ready, Generation: 1}, view.Provider.Credentials)
	require.Len(t, h.events(audit.ProviderCreated), 1)
	require.Len(t, h.events(audit.CredentialsWritten), 2)
}

func TestRegisterShowsInternalValues(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	id := h.register("google")
	view, err := h.Provider(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, clientID, view.ClientID.Reveal())
	require.Equal(t, clientSecret, view.ClientSecret.Reveal())
	require.False(t, view.ShowCredentials)

	h = newHouse(t, options{internal: true, config: func(c *broker.Config) { c.RedactClientSecrets = true }})
	view, err = h.Provider(t.Context(), h.register("google"))
	require.NoError(t, err)
	require.True(t, view.ClientSecret.IsZero())
	require.True(t, view.ShowCredentials)
}

func TestRegisterRefusesBadProfiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*broker.ProfileInput)
		want   broker.Code
	}{
		"no name":                {func(p *broker.ProfileInput) { p.Name.Value = "" }, broker.CodeInvalidProviderName},
		"capitals":               {func(p *broker.ProfileInput) { p.Name.Value = "Google" }, broker.CodeInvalidProviderName},
		"path traversal":         {func(p *broker.ProfileInput) { p.Name.Value = "../other" }, broker.CodeInvalidProviderName},
		"newline":                {func(p *broker.ProfileInput) { p.Name.Value = "a\n" }, broker.CodeInvalidProviderName},
		"no client_id":           {func(p *broker.ProfileInput) { p.ClientID = null() }, broker.CodeMissingClientID},
		"empty client_id":        {func(p *broker.ProfileInput) { p.ClientID = text("") }, broker.CodeMissingClientID},
		"no client_secret":       {func(p *broker.ProfileInput) { p.ClientSecret = null() }, broker.CodeMissingClientSecret},
		"no auth_url":            {func(p *broker.ProfileInput) { p.AuthURL.Value = "" }, broker.CodeMissingAuthURL},
		"no token_url":           {func(p *broker.ProfileInput) { p.TokenURL.Value = "" }, broker.CodeMissingTokenURL},
		"discovery, no issuer":   {func(p *broker.ProfileInput) { p.EnableDiscovery.Value = true; p.EnableDiscovery.Present = true }, broker.CodeProviderCreationFailed},
		"auth_type":              {func(p *broker.ProfileInput) { p.AuthType = broker.Given("saml") }, broker.CodeProviderCreationFailed},
		"token_url is no URL":    {func(p *broker.ProfileInput) { p.TokenURL.Value = "not a url" }, broker.CodeProviderCreationFailed},
		"token_url with user":    {func(p *broker.ProfileInput) { p.TokenURL.Value = "https://u:p@x.example/" }, broker.CodeProviderCreationFailed},
		"token_url of a file":    {func(p *broker.ProfileInput) { p.TokenURL.Value = "file:///etc/passwd" }, broker.CodeProviderCreationFailed},
		"params no object":       {func(p *broker.ProfileInput) { p.Params = broker.Given(json.RawMessage(`[1]`)) }, broker.CodeProviderCreationFailed},
		"NUL":                    {func(p *broker.ProfileInput) { p.Description = broker.Given("a\x00b") }, broker.CodeProviderCreationFailed},
		"secret too long":        {func(p *broker.ProfileInput) { p.ClientSecret = text(string(make([]byte, secret.MaxValueBytes+1))) }, broker.CodeProviderCreationFailed},
		"secret no UTF-8":        {func(p *broker.ProfileInput) { p.ClientSecret = text("\xff") }, broker.CodeProviderCreationFailed},
		"public with a secret":   {func(p *broker.ProfileInput) { p.AuthHeader.Value = "none" }, broker.CodeProviderCreationFailed},
		"a reference":            {func(p *broker.ProfileInput) { p.CredentialsRef = broker.Given(broker.ReferencePair{}) }, broker.CodeMissingClientID},
		"only the id, no secret": {func(p *broker.ProfileInput) { p.ClientSecret = text("") }, broker.CodeMissingClientSecret},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			in := h.profile("google")
			c.change(&in)
			_, err := h.Register(t.Context(), in)
			code(t, c.want, err)
			require.Empty(t, h.vault.Calls(), "the vault is not asked")
			list, err := broker.All(h.Providers(t.Context(), broker.Page{}))
			require.NoError(t, err)
			require.Empty(t, list)
		})
	}
}

func TestRegisterTwiceIsADuplicate(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	h.register("google")
	_, err := h.Register(t.Context(), h.profile("google"))
	code(t, broker.CodeInvalidProviderName, err)
	require.Equal(t, clientSecret, h.inVault("google/client_secret"), "the first one's values are untouched")
}

func TestConcurrentRegistrationsOfOneName(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	var mu sync.Mutex
	var created int
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := h.Register(t.Context(), h.profile("google")); err == nil {
				mu.Lock()
				created++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, created)
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
}

// A registration that fails at any call to the vault leaves nothing in either system.
func TestFailedRegistrationLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{secret.ErrUnavailable, secret.ErrDenied, secret.ErrThrottled} {
		for _, key := range []string{"google/client_id", "google/client_secret"} {
			for _, lost := range []bool{false, true} {
				if lost && !errors.Is(cause, secret.ErrUnavailable) {
					continue // what is refused has not been written
				}
				t.Run(fmt.Sprintf("%v at %s, answer lost %v", cause, key, lost), func(t *testing.T) {
					h := newHouse(t, options{})
					hook := func(_ context.Context, c memory.Call) error {
						if c.Op == memory.OpCreate && c.Key == key {
							return fmt.Errorf("injected: %w", cause)
						}
						return nil
					}
					if lost {
						h.vault.After(hook)
					} else {
						h.vault.Before(hook)
					}
					_, err := h.Register(t.Context(), h.profile("google"))
					require.Error(t, err)
					h.vault.After(nil)
					h.vault.Before(nil)
					require.Empty(t, h.inVault("google/client_id"))
					require.Empty(t, h.inVault("google/client_secret"))
					h.register("google") // the name is free
				})
			}
		}
	}
}

// If the vault goes away in the middle, what was written is deleted when it is back.
func TestRegistrationCutOffByAnOutageIsSwept(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	h.vault.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpCreate && c.Key == "google/client_id" {
			h.vault.Fail(errDown) // from here on nothing works, not even the undoing
		}
		return nil
	})
	_, err := h.Register(t.Context(), h.profile("google"))
	code(t, broker.CodeSecretBackendUnavailable, err)
	h.vault.After(nil)
	h.vault.Before(nil)
	require.NotEqual(t, "", h.inVault("google/client_id")+h.inVault("google/client_secret"))

	h.register("google") // takes the pending deletion over
	require.Equal(t, clientID, h.inVault("google/client_id"))
	h.SweepOnce(t.Context())
	require.Equal(t, clientID, h.inVault("google/client_id"), "a late sweep does not hit the successor")
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
}

func TestRegisterNeverOverwrites(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", "somebody's"))
	_, err := h.Register(t.Context(), h.profile("google"))
	e := code(t, broker.CodeCredentialsExist, err)
	require.Contains(t, e.Message, "google")
	require.Equal(t, "somebody's", h.inVault("google/client_secret"))
	require.Empty(t, h.inVault("google/client_id"), "what was written beside it is taken back")
}

func TestInternalPlaceThatIsTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{internal: true})
	first := h.register("google")
	require.NoError(t, h.PatchProvider(t.Context(), first, broker.ProfileInput{Name: broker.Given("google-2")}))
	second := h.register("google")
	require.NotEqual(t, h.provider(first).Credentials.Key, h.provider(second).Credentials.Key)
	h.connect(second)
	h.connect(first)
}

func TestAdoptExternalCredentials(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := h.profile("google")
	in.ClientID, in.ClientSecret = broker.Field[broker.SecretText]{}, broker.Field[broker.SecretText]{}
	_, err := h.Register(t.Context(), in)
	e := code(t, broker.CodeCredentialsNotFoundAtRegistration, err)
	require.Equal(t, "credentials_not_found", e.WireCode())
	require.Contains(t, e.Message, "google/client_id")
	require.Contains(t, e.Message, "google/client_secret")

	require.NoError(t, h.vault.Set(t.Context(), "google/client_id", clientID))
	_, err = h.Register(t.Context(), in)
	e = code(t, broker.CodeCredentialsNotFoundAtRegistration, err)
	require.NotContains(t, e.Message, "google/client_id", "only what is missing is named")

	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", clientSecret))
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	require.False(t, h.provider(id).Credentials.Managed)
	connection := h.connect(id)

	code(t, broker.CodeCredentialsExternal, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("x")}))
	e = code(t, broker.CodeCredentialsExternal, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("other")}))
	require.Contains(t, e.Message, "in hashicorp-vault at memory/google are not the broker's to move")
	require.Contains(t, e.Message, "put them at memory/other/client_id and memory/other/client_secret first")
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Description: broker.Given("fine")}))

	require.NoError(t, h.DeleteProvider(t.Context(), id))
	require.Equal(t, clientSecret, h.inVault("google/client_secret"), "never deleted")
	_, err = h.Token(t.Context(), connection)
	require.NoError(t, err, "stored tokens are still served")
	_, err = h.Refresh(t.Context(), connection)
	code(t, broker.CodeProviderNotFound, err)
}

func TestReadOnlyWritesNothing(t *testing.T) {
	t.Parallel()
	vault := memory.NewFaulty(memory.New())
	h := newHouse(t, options{readOnly: true, vault: vault})
	_, err := h.Register(t.Context(), h.profile("google"))
	code(t, broker.CodeCredentialsExternal, err)
	require.NoError(t, vault.Set(t.Context(), "google/client_id", clientID))
	require.NoError(t, vault.Set(t.Context(), "google/client_secret", clientSecret))
	in := h.profile("google")
	in.ClientID, in.ClientSecret = null(), null()
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	written := vault.Count(memory.Writes...)
	h.connect(id)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	h.SweepOnce(t.Context())
	require.Equal(t, written, vault.Count(memory.Writes...), "no call that writes is ever made")
}

func TestPublicClientHasNoSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := h.profile("google")
	in.AuthHeader, in.ClientSecret = broker.Given("none"), broker.Field[broker.SecretText]{}
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, clientID, h.inVault("google/client_id"))
	for _, c := range h.vault.Calls() {
		require.NotEqual(t, "google/client_secret", c.Key, "%v", c)
	}
	h.begin(id)
}

func TestStaticProviderNeedsOnlyAName(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	for _, authType := range []string{"api_key", "basic_auth", "header", "query_param", "hmac_payload", "aws_sigv4"} {
		name := "p-" + string(authType[0]) + fmt.Sprint(len(authType))
		id, err := h.Register(t.Context(), broker.ProfileInput{Name: broker.Given(name), AuthType: broker.Given(authType)})
		require.NoError(t, err)
		require.True(t, h.provider(id).Credentials.IsZero())
	}
	require.Empty(t, h.vault.Calls())
}

func TestDatabaseThatFailsToPublishLeavesNoSecret(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	h.vault.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpCreate && c.Key == "google/client_secret" {
			_ = h.store.Close() // the database goes away before the row is published
		}
		return nil
	})
	_, err := h.Register(t.Context(), h.profile("google"))
	require.Error(t, err)
	require.NotContains(t, err.Error(), clientSecret)
	require.Empty(t, h.inVault("google/client_secret"))
	require.Empty(t, h.inVault("google/client_id"))
}

// What a person puts where a deleted provider's credentials are still to be deleted is
// not taken for theirs once it is adopted.
func TestAdoptWhereADeletionIsPending(t *testing.T) {
	t.Parallel()
	for _, rename := range []bool{false, true} {
		h := newHouse(t, options{})
		id := h.register("google")
		h.vault.Fail(errDown)
		require.NoError(t, h.DeleteProvider(t.Context(), id))
		h.vault.Fail(nil)
		h.pass(time.Minute)
		adopt := func(name string) uuid.UUID {
			require.NoError(t, h.vault.Set(t.Context(), name+"/client_id", clientID))
			require.NoError(t, h.vault.Set(t.Context(), name+"/client_secret", clientSecret))
			in := h.profile(name)
			in.ClientID, in.ClientSecret = null(), null()
			id, err := h.Register(t.Context(), in)
			require.NoError(t, err)
			return id
		}
		var adopted uuid.UUID
		if rename {
			adopted = adopt("other")
			require.NoError(t, h.vault.Set(t.Context(), "google/client_id", clientID))
			require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", clientSecret))
			require.NoError(t, h.PatchProvider(t.Context(), adopted, broker.ProfileInput{Name: broker.Given("google")}))
		} else {
			adopted = adopt("google")
		}
		h.pass(2 * time.Hour)
		h.SweepOnce(t.Context())
		require.Equal(t, clientSecret, h.inVault("google/client_secret"), "rename %v", rename)
		h.connect(adopted)
	}
}

// A broker that may delete nothing adopts what a person has put where a deletion is still
// pending. Whoever may delete takes nothing of it away later.
func TestAReadOnlyBrokerAdoptsWhereADeletionIsPending(t *testing.T) {
	t.Parallel()
	o := options{path: filepath.Join(t.TempDir(), "broker.db"), vault: memory.NewFaulty(memory.New())}
	h := newHouse(t, o)
	id := h.register("google")
	h.vault.Fail(errDown)
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	h.vault.Fail(nil)
	o.readOnly = true
	reader := newHouse(t, o)
	in := h.profile("google")
	in.ClientID, in.ClientSecret = null(), null()
	require.NoError(t, h.vault.Delete(t.Context(), "google/client_secret"))
	_, err := reader.Register(t.Context(), in)
	code(t, broker.CodeCredentialsNotFoundAtRegistration, err)
	due, err := h.store.ClaimCleanupsAt(t.Context(), vaultName, "google", 0)
	require.NoError(t, err)
	require.Len(t, due, 1, "nobody uses the place yet: the deletion stays to be done")

	require.NoError(t, h.vault.Set(t.Context(), "google/client_id", clientID))
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", clientSecret))
	adopted, err := reader.Register(t.Context(), in)
	require.NoError(t, err)
	o.readOnly = false
	h.pass(2 * time.Hour)
	newHouse(t, o).SweepOnce(t.Context())
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	h.connect(adopted)
}

func TestLimitsCountCharacters(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := h.profile("google")
	in.Category, in.Description = broker.Given(strings.Repeat("é", 100)), broker.Given(`the text \u0000 is no NUL`)
	_, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	in = h.profile("other")
	in.Params = broker.Given(json.RawMessage(`{"a":["\u0000"]}`))
	_, err = h.Register(t.Context(), in)
	code(t, broker.CodeProviderCreationFailed, err)
}

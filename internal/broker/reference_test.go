package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

const teamSecret = "team-a/salesforce"

var teamReferences = broker.ReferencePair{ClientID: teamSecret + "#id", ClientSecret: teamSecret + "#secret"}

// newTeamHouse returns a house whose vault a team uses too, for its client.
func newTeamHouse(t *testing.T, o options) (*house, *memory.Backend) {
	t.Helper()
	m := memory.New()
	o.vault = memory.NewFaulty(m)
	o.prefixes = []string{"team-a", "team-c"}
	placePair(t, m, teamSecret, clientID, clientSecret)
	return newHouse(t, o), m
}

func placePair(t *testing.T, m *memory.Backend, path, id, sec string) {
	t.Helper()
	object, err := json.Marshal(map[string]string{"id": id, "secret": sec})
	require.NoError(t, err)
	_, err = m.Place(path, string(object))
	require.NoError(t, err)
}

// byReference is the house's profile with references instead of values.
func (h *house) byReference(name string, r broker.ReferencePair) broker.ProfileInput {
	in := h.profile(name)
	in.ClientID, in.ClientSecret = broker.Field[broker.SecretText]{}, broker.Field[broker.SecretText]{}
	in.CredentialsRef = broker.Given(r)
	return in
}

func (h *house) registerByReference(name string) uuid.UUID {
	h.t.Helper()
	id, err := h.Register(h.t.Context(), h.byReference(name, teamReferences))
	require.NoError(h.t, err)
	return id
}

func unreferenced() broker.Field[broker.ReferencePair] {
	return broker.Field[broker.ReferencePair]{Present: true, Null: true}
}

func TestAProviderByReferenceWorksAndOwnsNothing(t *testing.T) {
	t.Parallel()
	h, m := newTeamHouse(t, options{})
	id := h.registerByReference("salesforce")
	h.connect(id)
	view, err := h.Provider(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, teamSecret+"#id and "+teamSecret+"#secret", view.Location)
	ref := view.Provider.Credentials
	require.False(t, ref.Managed)
	require.Equal(t, teamReferences, broker.ReferencePair{ClientID: ref.ClientIDReference, ClientSecret: ref.ClientSecretReference})

	h.rotate(m, "another")
	h.connect(id)

	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("sales")}))
	require.Equal(t, ref, h.provider(id).Credentials, "a rename moves nothing")
	require.NoError(t, h.DeleteProvider(t.Context(), id))
	h.SweepOnce(t.Context())
	require.Zero(t, h.vault.Count(memory.Writes...), "the broker wrote nothing there, and deleted nothing")
	require.Empty(t, h.events(audit.CredentialsWritten))
	_, err = h.vault.ReadReference(t.Context(), secret.Reference{Path: teamSecret})
	require.NoError(t, err)
}

// rotate gives the client another secret, at the provider and in the vault.
func (h *house) rotate(m *memory.Backend, to string) {
	h.t.Helper()
	h.op.SetSecret(clientID, to)
	placePair(h.t, m, teamSecret, clientID, to)
}

func TestReferencesThatAreRefused(t *testing.T) {
	t.Parallel()
	both := func(path string) broker.ReferencePair {
		return broker.ReferencePair{ClientID: path + "#id", ClientSecret: path + "#secret"}
	}
	for name, c := range map[string]struct {
		references broker.ReferencePair
		change     func(*broker.ProfileInput)
		want       broker.Code
	}{
		"another team's":          {both("team-b/x"), nil, broker.CodeCredentialsRefDenied},
		"the same beginning":      {both("team-ab/x"), nil, broker.CodeCredentialsRefDenied},
		"path traversal":          {both("team-a/../team-b/x"), nil, broker.CodeCredentialsRefDenied},
		"an empty segment":        {both("team-a//x"), nil, broker.CodeCredentialsRefDenied},
		"encoded":                 {both("team-a%2f..%2fteam-b/x"), nil, broker.CodeCredentialsRefDenied},
		"no path":                 {broker.ReferencePair{ClientID: "#id", ClientSecret: teamSecret}, nil, broker.CodeCredentialsRefDenied},
		"only one is allowed":     {broker.ReferencePair{ClientID: teamSecret, ClientSecret: "team-b/x"}, nil, broker.CodeCredentialsRefDenied},
		"no client_secret":        {broker.ReferencePair{ClientID: teamSecret}, nil, broker.CodeMissingClientSecret},
		"no client_id":            {broker.ReferencePair{ClientSecret: teamSecret}, nil, broker.CodeMissingClientID},
		"nothing":                 {broker.ReferencePair{}, nil, broker.CodeMissingClientID},
		"public with a secret":    {teamReferences, func(p *broker.ProfileInput) { p.AuthHeader.Value = "none" }, broker.CodeProviderCreationFailed},
		"with a client_id":        {teamReferences, func(p *broker.ProfileInput) { p.ClientID = text("x") }, broker.CodeProviderCreationFailed},
		"with a client_secret":    {teamReferences, func(p *broker.ProfileInput) { p.ClientSecret = text("x") }, broker.CodeProviderCreationFailed},
		"api_key, no client_id":   {broker.ReferencePair{ClientSecret: teamSecret}, func(p *broker.ProfileInput) { p.AuthType = broker.Given("api_key") }, broker.CodeMissingClientID},
		"a place without a value": {both("team-a/none"), nil, broker.CodeCredentialsNotFoundAtRegistration},
		"a field without a value": {broker.ReferencePair{ClientID: teamSecret + "#id", ClientSecret: teamSecret + "#none"}, nil, broker.CodeCredentialsInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			h, m := newTeamHouse(t, options{})
			placePair(t, m, "team-b/x", "i", "s")
			placePair(t, m, "team-ab/x", "i", "s")
			in := h.byReference("salesforce", c.references)
			if c.change != nil {
				c.change(&in)
			}
			_, err := h.Register(t.Context(), in)
			e := code(t, c.want, err)
			switch c.want {
			case broker.CodeCredentialsNotFoundAtRegistration:
				require.Equal(t, map[string]any{"paths": []string{"team-a/none#id", "team-a/none#secret"}}, e.Details)
			case broker.CodeCredentialsInvalid:
			default:
				require.Empty(t, h.vault.Calls(), "the vault is not asked")
			}
			list, err := broker.All(h.Providers(t.Context(), broker.Page{}))
			require.NoError(t, err)
			require.Empty(t, list)

			// What a registration refuses an update does too, and the provider stays as it was.
			if c.change != nil {
				return
			}
			id := h.registerByReference("salesforce")
			before := h.provider(id)
			code(t, c.want, h.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: in.CredentialsRef}))
			require.Equal(t, before.Credentials, h.provider(id).Credentials)
		})
	}
}

// Whoever gives a reference that is none is told why, in the words of the store, and the
// store is not blamed for it.
func TestAMalformedReferenceSaysWhy(t *testing.T) {
	t.Parallel()
	for reference, why := range map[string]string{
		teamSecret + "@x#id":                  "a version is a number",
		teamSecret + "@#id":                   "nothing follows @ or #",
		"team-a//x#id":                        `path "team-a//x": a segment is empty, "." or ".."`,
		"team-a/" + strings.Repeat("x", 2000): "the limit is 1024",
	} {
		h, _ := newTeamHouse(t, options{})
		pair := broker.ReferencePair{ClientID: reference, ClientSecret: teamSecret + "#secret"}
		_, err := h.Register(t.Context(), h.byReference("salesforce", pair))
		require.Contains(t, code(t, broker.CodeCredentialsRefDenied, err).Message, why)
		id := h.registerByReference("salesforce")
		err = h.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: broker.Given(pair)})
		require.Contains(t, code(t, broker.CodeCredentialsRefDenied, err).Message, why)
	}
}

func TestTheInternalBackendHasNoReferences(t *testing.T) {
	t.Parallel()
	h, _ := newTeamHouse(t, options{internal: true})
	_, err := h.Register(t.Context(), h.byReference("salesforce", teamReferences))
	code(t, broker.CodeCredentialsRefDenied, err)
	id := h.register("google")
	code(t, broker.CodeCredentialsRefDenied, h.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: broker.Given(teamReferences)}))
	require.Empty(t, h.vault.Calls())
}

func TestAPublicClientByReferenceHasNoSecret(t *testing.T) {
	t.Parallel()
	h, _ := newTeamHouse(t, options{provider: oauthtest.Options{}})
	in := h.byReference("salesforce", broker.ReferencePair{ClientID: teamSecret + "#id"})
	in.AuthHeader.Value = "none"
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, 1, h.vault.Count(memory.OpReadReference))
	// It becomes confidential only with a reference to a secret, and public by itself.
	basic := broker.ProfileInput{AuthHeader: broker.Given("client_secret_basic")}
	code(t, broker.CodeMissingClientSecret, h.PatchProvider(t.Context(), id, basic))
	basic.CredentialsRef = broker.Given(teamReferences)
	require.NoError(t, h.PatchProvider(t.Context(), id, basic))
	h.connect(id)
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{AuthHeader: broker.Given("none")}))
	require.Empty(t, h.provider(id).Credentials.ClientSecretReference)
}

// A managed pair that references replace is deleted; what a person has put there is not.
func TestFromAPairToReferences(t *testing.T) {
	t.Parallel()
	for _, internal := range []bool{false, true} {
		path := t.TempDir() + "/broker.db"
		h, m := newTeamHouse(t, options{internal: internal, path: path})
		id := h.register("google")
		if internal { // and then SECRET_BACKEND is the vault
			require.NoError(t, h.store.Close())
			h = newHouse(t, options{path: path, vault: h.vault, prefixes: []string{"team-a"}})
		}
		before := h.provider(id).Credentials
		require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: broker.Given(teamReferences)}))
		after := h.provider(id).Credentials
		require.Equal(t, before.Generation+1, after.Generation)
		require.False(t, after.Managed)
		require.Empty(t, m.Keys(), "the pair that nobody needs is gone")
		if internal {
			_, err := h.creds.Read(t.Context(), before)
			require.ErrorIs(t, err, secret.ErrNotFound)
		}
		h.SweepOnce(t.Context())
		_, err := h.vault.ReadReference(t.Context(), secret.Reference{Path: teamSecret})
		require.NoError(t, err)
		require.Zero(t, h.pendingCleanups())
	}

	h, m := newTeamHouse(t, options{})
	placePair(t, m, "team-c/x", "i", "s")
	require.NoError(t, h.vault.Set(t.Context(), "google/client_id", clientID))
	require.NoError(t, h.vault.Set(t.Context(), "google/client_secret", clientSecret))
	in := h.byReference("google", broker.ReferencePair{})
	in.CredentialsRef = broker.Field[broker.ReferencePair]{}
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: broker.Given(teamReferences)}))
	h.SweepOnce(t.Context())
	require.Equal(t, clientSecret, h.inVault("google/client_secret"), "an external pair stays")
}

// While the vault is down the row remembers the pair that references have replaced.
func TestAPairThatReferencesReplaceIsDeletedLater(t *testing.T) {
	t.Parallel()
	h, m := newTeamHouse(t, options{})
	id := h.register("google")
	h.vault.Fail(errDown, memory.OpRead, memory.OpDelete)
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: broker.Given(teamReferences)}))
	require.Len(t, m.Keys(), 2)
	h.vault.Fail(nil)
	h.register("google-2")
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{
		CredentialsRef: unreferenced(), ClientID: text(clientID), ClientSecret: text(clientSecret),
	}), "going back takes the pending deletion over")
	h.SweepOnce(t.Context())
	require.Equal(t, clientSecret, h.inVault("google/client_secret"), "a late deletion does not hit the newer value")
}

func TestAReferenceThatCannotBeReadChangesNothing(t *testing.T) {
	t.Parallel()
	h, _ := newTeamHouse(t, options{})
	id := h.register("google")
	before := h.provider(id)
	for want, cause := range map[broker.Code]error{
		broker.CodeSecretBackendUnavailable: secret.ErrUnavailable, broker.CodeSecretBackendDenied: secret.ErrDenied,
		broker.CodeCredentialsNotFoundAtRegistration: secret.ErrNotFound,
	} {
		h.vault.Fail(fmt.Errorf("injected: %w", cause), memory.OpReadReference)
		code(t, want, h.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: broker.Given(teamReferences)}))
	}
	h.vault.Fail(nil)
	h.SweepOnce(t.Context())
	require.Equal(t, before.Credentials, h.provider(id).Credentials)
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	h.connect(id)
}

// A reference to the pair that it replaces would be deleted with it.
func TestAReferenceToTheOwnPairIsRefused(t *testing.T) {
	t.Parallel()
	h, _ := newTeamHouse(t, options{})
	id := h.register("google")
	own := broker.ReferencePair{ClientID: "memory/google/client_id", ClientSecret: "memory/google/client_secret"}
	code(t, broker.CodeCredentialsRefDenied, h.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: broker.Given(own)}))
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	// Another provider may read it: below the own place everything may be named.
	_, err := h.Register(t.Context(), h.byReference("twin", own))
	require.NoError(t, err)
}

func TestFromReferencesBack(t *testing.T) {
	t.Parallel()
	h, m := newTeamHouse(t, options{})
	id := h.registerByReference("google")
	pair := broker.ProfileInput{ClientID: text(clientID), ClientSecret: text(clientSecret)}
	e := code(t, broker.CodeCredentialsExternal, h.PatchProvider(t.Context(), id, pair))
	require.Contains(t, e.Message, "credentials_ref")

	// Null alone: the pair has to be at the provider's own place.
	null := broker.ProfileInput{CredentialsRef: unreferenced()}
	e = code(t, broker.CodeCredentialsNotFoundAtRegistration, h.PatchProvider(t.Context(), id, null))
	require.Equal(t, map[string]any{"paths": []string{"memory/google/client_id", "memory/google/client_secret"}}, e.Details)
	require.True(t, h.provider(id).Credentials.Referenced())

	// Null with a pair: it is managed from now on.
	pair.CredentialsRef = unreferenced()
	require.NoError(t, h.PatchProvider(t.Context(), id, pair))
	ref := h.provider(id).Credentials
	require.True(t, ref.Managed)
	require.False(t, ref.Referenced())
	require.Equal(t, int64(2), ref.Generation)
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))
	h.connect(id)
	require.NoError(t, h.PatchProvider(t.Context(), id, null), "there is nothing to end")
	require.Equal(t, ref, h.provider(id).Credentials)
	h.SweepOnce(t.Context())
	require.Len(t, m.Keys(), 2)
	_, err := h.vault.ReadReference(t.Context(), secret.Reference{Path: teamSecret})
	require.NoError(t, err)
}

// A manifest tool sends the same profile every time: nothing is read for that.
func TestTheSameReferencesAgainCostNothing(t *testing.T) {
	t.Parallel()
	h, m := newTeamHouse(t, options{})
	id := h.registerByReference("salesforce")
	generation := h.provider(id).Credentials.Generation
	h.vault.Reset()
	require.NoError(t, h.ReplaceProvider(t.Context(), id, h.byReference("salesforce", teamReferences)))
	in := h.byReference("salesforce", teamReferences)
	in.CredentialsRef = broker.Field[broker.ReferencePair]{}
	require.NoError(t, h.ReplaceProvider(t.Context(), id, in), "what a PUT leaves out is kept")
	require.Empty(t, h.vault.Calls())
	require.Equal(t, generation, h.provider(id).Credentials.Generation)

	placePair(t, m, "team-c/x", clientID, clientSecret)
	require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{
		CredentialsRef: broker.Given(broker.ReferencePair{ClientID: "team-c/x#id", ClientSecret: "team-c/x#secret"}),
	}))
	require.Equal(t, generation+1, h.provider(id).Credentials.Generation)
	h.connect(id)
}

// An operator who takes a prefix away ends the flows that used it, with the reason.
func TestAPrefixThatIsTakenAway(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	h, _ := newTeamHouse(t, options{path: path})
	id := h.registerByReference("salesforce")
	stricter := newHouse(t, options{path: path, vault: h.vault, prefixes: []string{"team-c"}})
	h.vault.Reset()
	_, err := stricter.Begin(t.Context(), request(id))
	e := code(t, broker.CodeSecretBackendDenied, err)
	require.Contains(t, e.Message, "SECRET_REF_ALLOWED_PREFIXES")
	require.Empty(t, h.vault.Calls())
	require.NoError(t, stricter.PatchProvider(t.Context(), id, broker.ProfileInput{Description: broker.Given("still editable")}))
	require.NoError(t, stricter.DeleteProvider(t.Context(), id))
}

// A read-only broker writes nothing, whatever it is asked to do with references.
func TestReadOnlyReferences(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	h, m := newTeamHouse(t, options{path: path})
	managed := h.register("managed")
	before := len(m.Keys())
	h.vault.Reset()
	reader := newHouse(t, options{path: path, vault: h.vault, prefixes: []string{"team-a"}, readOnly: true})
	id := reader.registerByReference("salesforce")
	reader.connect(id)
	toReferences := broker.ProfileInput{CredentialsRef: broker.Given(teamReferences)}
	code(t, broker.CodeCredentialsExternal, reader.PatchProvider(t.Context(), managed, toReferences))
	require.NoError(t, reader.ReplaceProvider(t.Context(), id, reader.byReference("sales", broker.ReferencePair{
		ClientID: teamSecret + "@1#id", ClientSecret: teamSecret + "@1#secret"})))
	code(t, broker.CodeCredentialsExternal, reader.PatchProvider(t.Context(), id, broker.ProfileInput{
		CredentialsRef: unreferenced(), ClientID: text("x"), ClientSecret: text("y"),
	}))
	code(t, broker.CodeCredentialsNotFoundAtRegistration, reader.PatchProvider(t.Context(), id, broker.ProfileInput{CredentialsRef: unreferenced()}))
	require.NoError(t, reader.DeleteProvider(t.Context(), id))
	require.NoError(t, reader.DeleteProvider(t.Context(), managed))
	reader.SweepOnce(t.Context())
	require.Zero(t, h.vault.Count(memory.Writes...))
	require.Len(t, m.Keys(), before)
}

// pendingCleanups returns how many deletions are still to be done.
func (h *house) pendingCleanups() (n int) {
	h.t.Helper()
	named, err := h.store.NamedBackends(context.WithoutCancel(h.t.Context()))
	require.NoError(h.t, err)
	for _, backend := range named {
		n += backend.Due
	}
	return n
}

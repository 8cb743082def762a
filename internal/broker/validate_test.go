package broker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// urlFields are the URLs of a profile and where each is.
var urlFields = map[string]struct {
	in func(*broker.ProfileInput) *broker.Field[string]
	of func(*broker.Profile) *string
}{
	"auth_url":       {func(p *broker.ProfileInput) *broker.Field[string] { return &p.AuthURL }, func(p *broker.Profile) *string { return &p.AuthURL }},
	"token_url":      {func(p *broker.ProfileInput) *broker.Field[string] { return &p.TokenURL }, func(p *broker.Profile) *string { return &p.TokenURL }},
	"issuer":         {func(p *broker.ProfileInput) *broker.Field[string] { return &p.Issuer }, func(p *broker.Profile) *string { return &p.Issuer }},
	"revocation_url": {func(p *broker.ProfileInput) *broker.Field[string] { return &p.RevocationURL }, func(p *broker.Profile) *string { return &p.RevocationURL }},
	"api_base_url":   {func(p *broker.ProfileInput) *broker.Field[string] { return &p.APIBaseURL }, func(p *broker.Profile) *string { return &p.APIBaseURL }},
}

// What no flow would call is refused when it is registered, and when it is changed. The
// message names the member and quotes no password.
func TestURLsThatNoFlowCallsAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.register("google")
	bad := []string{"op.example", "ftp://op.example/", "https://", "https://:443/t", "https://op.example/#b", "https://u:hunter2@op.example/", "https://op example/"}
	for name, f := range urlFields {
		refused := bad
		if name == "issuer" {
			refused = append(refused[:len(refused):len(refused)], "https://op.example/?a=b", "https://op.example/"+strings.Repeat("a", 2048))
		}
		if name == "api_base_url" { // a text for agents, which captured credentials may be tried out at
			refused = []string{"https://u:hunter2@op.example/", "http://hunter2@op.example:port", "//u:hunter2@{tenant}.example#"}
			for _, fine := range []string{"https://{tenant}.example/x@y", "op.example", "';--", "https://"} {
				require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{APIBaseURL: broker.Given(fine)}), fine)
			}
		}
		for _, u := range refused {
			in := h.profile("another")
			*f.in(&in) = broker.Given(u)
			_, err := h.Register(t.Context(), in)
			e := code(t, broker.CodeProviderCreationFailed, err)
			require.True(t, strings.HasPrefix(e.Message, name+" "), e.Message)
			require.NotContains(t, e.Message, "hunter2")
			var patch broker.ProfileInput
			*f.in(&patch) = broker.Given(u)
			code(t, broker.CodeProviderCreationFailed, h.PatchProvider(t.Context(), id, patch))
		}
		var patch broker.ProfileInput
		*f.in(&patch) = broker.Given("http://op.example:8080/a%2Fb")
		require.NoError(t, h.PatchProvider(t.Context(), id, patch), name)
	}
}

// asBefore puts a profile into the database as a program with other rules has stored it.
func (h *house) asBefore(id uuid.UUID, change func(*broker.Profile)) {
	h.t.Helper()
	op := broker.Op{ID: uuid.New(), Kind: broker.OpUpdate, TTL: time.Minute}
	p, err := h.store.BeginOp(h.t.Context(), id, op, false)
	require.NoError(h.t, err)
	change(&p.Profile)
	require.NoError(h.t, h.store.UpdateProvider(h.t.Context(), p, op, nil, nil))
}

// A row that is older than a rule stays changeable: of its name and its URLs only what a
// change makes new must keep the rule.
func TestAProfileFromBeforeARuleCanBeChanged(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, o options) {
		h := newHouse(t, o)
		id := h.register("google")
		h.asBefore(id, func(p *broker.Profile) {
			p.Name = "New Provider Name"
			for _, f := range urlFields {
				*f.of(p) += "#b"
			}
		})
		in := h.profile("New Provider Name")
		for _, f := range urlFields {
			was := h.provider(id).Profile
			*f.in(&in) = broker.Given(*f.of(&was))
		}
		in.ClientSecret = text("another secret")
		require.NoError(t, h.ReplaceProvider(t.Context(), id, in))
		require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Description: broker.Given("ours"), ClientSecret: text("rotated")}))
		p := h.provider(id)
		require.Equal(t, "New Provider Name", p.Profile.Name)
		require.Equal(t, "ours", p.Profile.Description)
		require.Equal(t, "rotated", h.inVault(p.Credentials.Key+"/client_secret"))

		code(t, broker.CodeInvalidProviderName, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("New Provider")}))
		code(t, broker.CodeProviderCreationFailed, h.PatchProvider(t.Context(), id, broker.ProfileInput{TokenURL: broker.Given(p.Profile.AuthURL)}))
		require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("new"), TokenURL: broker.Given("https://op.example/t")}))
	})
}

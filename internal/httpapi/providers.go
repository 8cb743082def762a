package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

func (a *api) registerProvider(w http.ResponseWriter, r *http.Request) error {
	in, err := wrappedProfile(r)
	if err != nil {
		return err
	}
	id, err := a.Broker.Register(r.Context(), in)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, struct {
		ID      uuid.UUID `json:"id"`
		Message string    `json:"message"`
	}{id, "Provider profile created successfully"})
}

// wrappedProfile reads {"profile":{…}}.
func wrappedProfile(r *http.Request) (in broker.ProfileInput, err error) {
	var body struct {
		Profile broker.Field[json.RawMessage] `json:"profile"`
	}
	if err := decodeBody(r, &body, 2); err != nil {
		return in, err
	}
	profile := body.Profile
	switch {
	case !profile.Present || profile.Null:
		return in, failure(broker.CodeMissingProfile, `the body has no "profile" object`)
	case profile.Value[0] != '{':
		return in, failure(codeInvalidJSON, `the member "profile" is not an object`)
	}
	return in, decodeObject(profile.Value, &in)
}

func (a *api) replaceProvider(w http.ResponseWriter, r *http.Request) error {
	id, in, err := bareProfile(r)
	if err != nil {
		return err
	}
	return done(w, a.Broker.ReplaceProvider(r.Context(), id, in))
}

func (a *api) patchProvider(w http.ResponseWriter, r *http.Request) error {
	id, in, err := bareProfile(r)
	if err != nil {
		return err
	}
	return done(w, a.Broker.PatchProvider(r.Context(), id, in))
}

// bareProfile reads a profile without a wrapper and the id in the path.
func bareProfile(r *http.Request) (id uuid.UUID, in broker.ProfileInput, err error) {
	if id, err = pathID(r, codeInvalidProviderID); err != nil {
		return id, in, err
	}
	return id, in, decodeBody(r, &in, 1)
}

func (a *api) deleteProvider(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, codeInvalidProviderID)
	if err != nil {
		return err
	}
	return done(w, a.Broker.DeleteProvider(r.Context(), id))
}

// done answers 200 with an empty body, unless err is to be answered.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusOK)
	}
	return err
}

func (a *api) providerByName(w http.ResponseWriter, r *http.Request) error {
	id, err := a.Broker.ProviderIDByName(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		ID uuid.UUID `json:"id"`
	}{id})
}

func (a *api) deleteProvidersByName(w http.ResponseWriter, r *http.Request) error {
	n, err := a.Broker.DeleteProvidersByName(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	if n == 0 {
		return failure(broker.CodeProviderNotFound, "there is no provider with this name")
	}
	return writeJSON(w, http.StatusOK, struct {
		Message string `json:"message"`
	}{fmt.Sprintf("Deleted %d provider(s)", n)})
}

func (a *api) getProvider(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, codeInvalidProviderID)
	if err != nil {
		return err
	}
	role, read := callFrom(r.Context()).role, a.Broker.ProviderWithoutValues
	if role == Admin {
		read = a.Broker.Provider
	}
	view, err := read(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, newProfileBody(view, role))
}

// profileBody is a provider as GET /providers/{id} answers it.
type profileBody struct {
	ID               uuid.UUID        `json:"id"`
	Name             string           `json:"name"`
	AuthType         string           `json:"auth_type"`
	AuthHeader       string           `json:"auth_header,omitempty"`
	ClientID         shown            `json:"client_id,omitzero"`
	ClientSecret     shown            `json:"client_secret,omitzero"`
	AuthURL          string           `json:"auth_url,omitempty"`
	TokenURL         string           `json:"token_url,omitempty"`
	Issuer           string           `json:"issuer,omitempty"`
	EnableDiscovery  bool             `json:"enable_discovery"`
	Scopes           []string         `json:"scopes"`
	APIBaseURL       string           `json:"api_base_url,omitempty"`
	UserInfoEndpoint string           `json:"user_info_endpoint,omitempty"`
	RevocationURL    string           `json:"revocation_url,omitempty"`
	Params           json.RawMessage  `json:"params,omitempty"`
	Description      string           `json:"description,omitempty"`
	Category         string           `json:"category,omitempty"`
	Credentials      *credentialsBody `json:"credentials,omitempty"`
	CredentialsRef   *referencesBody  `json:"credentials_ref,omitempty"`
}

// credentialsBody says where a provider's credentials are and how they do.
type credentialsBody struct {
	Backend    string `json:"backend"`
	Managed    bool   `json:"managed"`
	State      string `json:"state"`
	Location   string `json:"location"`
	Generation int64  `json:"generation"`
}

// referencesBody says where else the values lie, as it was registered.
type referencesBody struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret,omitempty"`
}

func newProfileBody(v broker.ProviderView, role Role) profileBody {
	p := v.Provider.Profile
	body := profileBody{
		ID: v.Provider.ID, Name: p.Name, AuthType: authType(p), AuthHeader: p.AuthHeader,
		AuthURL: p.AuthURL, TokenURL: p.TokenURL, Issuer: p.Issuer, EnableDiscovery: p.EnableDiscovery,
		Scopes: orEmpty(p.Scopes), APIBaseURL: p.APIBaseURL, UserInfoEndpoint: p.UserInfoEndpoint,
		RevocationURL: p.RevocationURL, Params: givenParams(p.Params),
		Description: p.Description, Category: p.Category,
	}
	if role == Admin {
		body.ClientID = shown{v.ClientID}
		body.ClientSecret = shown{v.ClientSecret}
	}
	if v.ShowCredentials {
		ref := v.Provider.Credentials
		body.Credentials = &credentialsBody{
			Backend: ref.Backend, Managed: ref.Managed, State: string(ref.State),
			Location: v.Location, Generation: ref.Generation,
		}
		if ref.Referenced() {
			body.CredentialsRef = &referencesBody{ref.ClientIDReference, ref.ClientSecretReference}
		}
	}
	return body
}

// authType returns the profile's auth type; rows of older brokers may have none.
func authType(p broker.Profile) string {
	if p.AuthType == "" {
		return broker.AuthOAuth2
	}
	return p.AuthType
}

func givenParams(p broker.Params) json.RawMessage {
	if string(p) == "null" {
		return nil
	}
	return json.RawMessage(p)
}

// orEmpty returns list, or a list without elements: JSON shall have [], not null.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (a *api) listProviders(w http.ResponseWriter, r *http.Request) error {
	type body struct {
		ID   uuid.UUID `json:"id"`
		Name string    `json:"name"`
	}
	providers, err := a.providers(r)
	if err != nil {
		return err
	}
	return writeList(w, providers, func(p broker.Provider) any { return body{p.ID, p.Profile.Name} })
}

func (a *api) providersHealth(w http.ResponseWriter, r *http.Request) error {
	type body struct {
		ID        uuid.UUID           `json:"id"`
		Name      string              `json:"name"`
		Status    broker.HealthStatus `json:"health_status"`
		Message   string              `json:"health_message"`
		CheckedAt *time.Time          `json:"last_health_check_at"`
	}
	providers, err := a.providers(r)
	if err != nil {
		return err
	}
	return writeList(w, providers, func(p broker.Provider) any {
		return body{p.ID, p.Profile.Name, healthStatus(p.Health), p.Health.Message, orNull(p.Health.CheckedAt)}
	})
}

func healthStatus(h broker.Health) broker.HealthStatus {
	if h.Status == "" {
		return broker.HealthUnknown
	}
	return h.Status
}

// orNull returns nil for the zero time.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (a *api) providersMetadata(w http.ResponseWriter, r *http.Request) error {
	type body struct {
		ID               uuid.UUID `json:"id"`
		APIBaseURL       string    `json:"api_base_url"`
		UserInfoEndpoint string    `json:"user_info_endpoint"`
		Scopes           []string  `json:"scopes"`
		Description      string    `json:"description"`
		Category         string    `json:"category"`
	}
	providers, err := a.providers(r)
	if err != nil {
		return err
	}
	all := map[string]map[string]body{}
	for p, err := range providers {
		if err != nil {
			return err
		}
		f := p.Profile
		t := authType(f)
		if all[t] == nil {
			all[t] = map[string]body{}
		}
		all[t][f.Name] = body{p.ID, f.APIBaseURL, f.UserInfoEndpoint, orEmpty(f.Scopes), f.Description, f.Category}
	}
	return writeJSON(w, http.StatusOK, all)
}

// providers gives the part of the listing that the query selects.
func (a *api) providers(r *http.Request) (broker.Listing[broker.Provider], error) {
	page, err := pageOf(r.URL.Query())
	if err != nil {
		return nil, err
	}
	return a.Broker.Providers(r.Context(), page), nil
}

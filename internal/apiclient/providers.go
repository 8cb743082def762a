package apiclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Summary is a provider in the listing.
type Summary struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Profile is a provider as the broker shows it. What it leaves out is zero.
type Profile struct {
	ID               string          `json:"id"`
	Name             string          `json:"name"`
	AuthType         string          `json:"auth_type"`
	AuthHeader       string          `json:"auth_header"`
	ClientID         shown           `json:"client_id"`
	ClientSecret     shown           `json:"client_secret"`
	AuthURL          string          `json:"auth_url"`
	TokenURL         string          `json:"token_url"`
	Issuer           string          `json:"issuer"`
	EnableDiscovery  bool            `json:"enable_discovery"`
	Scopes           []string        `json:"scopes"`
	APIBaseURL       string          `json:"api_base_url"`
	UserInfoEndpoint string          `json:"user_info_endpoint"`
	RevocationURL    string          `json:"revocation_url"`
	Params           json.RawMessage `json:"params"`
	Description      string          `json:"description"`
	Category         string          `json:"category"`
	// Credentials says where the credentials are. It is nil where the broker shows the
	// values themselves, or where there are none.
	Credentials    *Credentials `json:"credentials"`
	CredentialsRef *Reference   `json:"credentials_ref"`
}

// Credentials says where a provider's credentials are and how they do.
type Credentials struct {
	Backend  string `json:"backend"`
	Managed  bool   `json:"managed"`
	State    string `json:"state"`
	Location string `json:"location"`
}

// Reference is where a provider's credentials lie if not at the broker's own place.
type Reference struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret,omitempty"`
}

// shown is a credential in an answer. It does not print itself.
type shown struct{ secret.Value }

// UnmarshalJSON implements json.Unmarshaler.
func (s *shown) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return ErrNotBroker // the decoder's own error would quote the input
	}
	s.Value = secret.NewValue(text)
	return nil
}

// Fields are members of a profile as they are sent: nil is null, which clears, and a
// secret.Value is revealed on the wire, and there only.
type Fields map[string]any

// wire returns the fields with their secrets revealed.
func (f Fields) wire() map[string]any {
	all := make(map[string]any, len(f))
	for name, value := range f {
		if s, ok := value.(secret.Value); ok {
			value = s.Reveal()
		}
		all[name] = value
	}
	return all
}

// Providers returns all providers, newest first.
func (c *Client) Providers(ctx context.Context) ([]Summary, error) {
	const path = "/providers"
	var all []Summary
	if err := c.call(ctx, http.MethodGet, path, nil, &all, http.StatusOK); err != nil {
		return nil, err
	}
	for _, p := range all {
		if p.ID == "" {
			return nil, &Error{Op: "GET " + path, Status: http.StatusOK, Err: ErrNotBroker, Message: notBroker}
		}
	}
	return all, nil
}

// Provider returns a provider's profile.
func (c *Client) Provider(ctx context.Context, id string) (p Profile, err error) {
	path := providerPath(id)
	err = c.call(ctx, http.MethodGet, path, nil, &p, http.StatusOK)
	if err == nil && p.ID != id {
		err = &Error{Op: "GET " + path, Status: http.StatusOK, Err: ErrNotBroker, Message: notBroker}
	}
	return p, err
}

// Register registers a provider and returns its id.
func (c *Client) Register(ctx context.Context, profile Fields) (id string, err error) {
	var created struct {
		ID string `json:"id"`
	}
	err = c.call(ctx, http.MethodPost, "/providers", map[string]any{"profile": profile.wire()}, &created, http.StatusCreated)
	return created.ID, err
}

// Patch changes the given fields of a provider.
func (c *Client) Patch(ctx context.Context, id string, changes Fields) error {
	return c.call(ctx, http.MethodPatch, providerPath(id), changes.wire(), nil, http.StatusOK)
}

// Delete deletes a provider. One that is not there is deleted too.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, providerPath(id), nil, nil, http.StatusOK)
}

func providerPath(id string) string { return "/providers/" + url.PathEscape(id) }

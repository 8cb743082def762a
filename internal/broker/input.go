package broker

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Field is a member of a JSON object that may be absent, null or given.
type Field[T any] struct {
	Present bool // the member is there, null included
	Null    bool
	Value   T // zero unless given
}

// Given returns a Field that holds v.
func Given[T any](v T) Field[T] { return Field[T]{Present: true, Value: v} }

// UnmarshalJSON implements json.Unmarshaler; it is called only for a member that
// is there.
func (f *Field[T]) UnmarshalJSON(b []byte) error {
	f.Present = true
	if bytes.Equal(b, []byte("null")) {
		f.Null = true
		return nil
	}
	return json.Unmarshal(b, &f.Value)
}

var errNotAString = errors.New("a credential must be a JSON string")

// SecretText is a JSON string that holds a credential and does not print itself.
type SecretText struct{ secret.Value }

// UnmarshalJSON implements json.Unmarshaler.
func (s *SecretText) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errNotAString // the decoder's own error would quote the input
	}
	s.Value = secret.NewValue(text)
	return nil
}

// ReferencePair is where a provider's credentials lie, in the written form of a
// secret.Reference; "" for a member that is absent or null.
type ReferencePair struct{ ClientID, ClientSecret string }

var errNotReferences = errors.New("credentials_ref must be an object with the strings client_id and client_secret, and nothing else")

// UnmarshalJSON implements json.Unmarshaler. A member that it does not know is refused:
// here a misspelt one must not be taken for one that was left out.
func (r *ReferencePair) UnmarshalJSON(b []byte) error {
	var members map[string]*string
	if json.Unmarshal(b, &members) != nil || members == nil {
		return errNotReferences
	}
	for name, text := range members {
		field := map[string]*string{"client_id": &r.ClientID, "client_secret": &r.ClientSecret}[name]
		switch {
		case field == nil, text != nil && *text == "":
			return errNotReferences
		case text != nil:
			*field = *text
		}
	}
	return nil
}

// ProfileInput is a profile as a caller sends it: whole to POST and PUT, in part
// to PATCH, where an absent member is kept and null clears.
type ProfileInput struct {
	Name             Field[string]          `json:"name"`
	AuthType         Field[string]          `json:"auth_type"`
	AuthHeader       Field[string]          `json:"auth_header"`
	ClientID         Field[SecretText]      `json:"client_id"`
	ClientSecret     Field[SecretText]      `json:"client_secret"`
	AuthURL          Field[string]          `json:"auth_url"`
	TokenURL         Field[string]          `json:"token_url"`
	Issuer           Field[string]          `json:"issuer"`
	EnableDiscovery  Field[bool]            `json:"enable_discovery"`
	Scopes           Field[[]string]        `json:"scopes"`
	APIBaseURL       Field[string]          `json:"api_base_url"`
	UserInfoEndpoint Field[string]          `json:"user_info_endpoint"`
	RevocationURL    Field[string]          `json:"revocation_url"`
	Params           Field[json.RawMessage] `json:"params"`
	Description      Field[string]          `json:"description"`
	Category         Field[string]          `json:"category"`
	CredentialsRef   Field[ReferencePair]   `json:"credentials_ref"`
}

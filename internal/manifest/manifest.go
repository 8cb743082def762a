// Package manifest compares a file that says which providers a broker shall have with
// those that it has, and makes the one into the other.
//
// A manifest is the whole profile of each provider that it names: what it leaves out
// has the broker's default. Client credentials are the exception, because they may lie
// where nobody but the broker can read them: left out, they stay as they are.
//
// No credential is part of a text that this package returns, errors included.
package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/secret"
)

// Version is the version of the format that is read and written.
const Version = 1

// The names of the members that are treated in a way of their own.
const (
	fieldName            = "name"
	fieldPreviousName    = "previous_name"
	fieldClientID        = "client_id"
	fieldClientSecret    = "client_secret"
	fieldEnableDiscovery = "enable_discovery"
	fieldScopes          = "scopes"
	fieldParams          = "params"
	fieldCredentialsRef  = "credentials_ref"
)

// Manifest is what one or more files say.
type Manifest struct {
	Providers []Provider // in the order of the files; each name once
}

// Provider is a provider's profile.
type Provider struct {
	Name string
	// PreviousName is the name under which the broker may still have it: then it is
	// renamed, and its connections stay. "" if there is none.
	PreviousName string

	AuthType         string
	AuthHeader       string
	AuthURL          string
	TokenURL         string
	Issuer           string
	APIBaseURL       string
	UserInfoEndpoint string
	RevocationURL    string
	Description      string
	Category         string

	EnableDiscovery bool
	Scopes          []string
	Params          map[string]any // as encoding/json decodes it, with json.Number

	// ClientID and ClientSecret are zero if they are not given.
	ClientID, ClientSecret secret.Value
	CredentialsRef         *apiclient.Reference // nil if it is not given
}

// text is a member that is a text and nothing more.
type text struct {
	name  string
	value *string
}

// texts returns the members that are compared and sent as they are.
func (p *Provider) texts() []text {
	return []text{
		{"auth_type", &p.AuthType}, {"auth_header", &p.AuthHeader},
		{"auth_url", &p.AuthURL}, {"token_url", &p.TokenURL}, {"issuer", &p.Issuer},
		{"api_base_url", &p.APIBaseURL}, {"user_info_endpoint", &p.UserInfoEndpoint},
		{"revocation_url", &p.RevocationURL}, {"description", &p.Description}, {"category", &p.Category},
	}
}

// Fields returns the names of the members that a provider may have.
func Fields() []string {
	names := []string{
		fieldName, fieldPreviousName, fieldClientID, fieldClientSecret,
		fieldEnableDiscovery, fieldScopes, fieldParams, fieldCredentialsRef,
	}
	for _, t := range new(Provider).texts() {
		names = append(names, t.name)
	}
	return names
}

// fromBroker returns a profile as the broker shows it. Credentials that it does not
// show are zero.
func fromBroker(b apiclient.Profile) (Provider, error) {
	p := Provider{
		Name: b.Name, AuthType: b.AuthType, AuthHeader: b.AuthHeader, AuthURL: b.AuthURL, TokenURL: b.TokenURL,
		Issuer: b.Issuer, APIBaseURL: b.APIBaseURL, UserInfoEndpoint: b.UserInfoEndpoint,
		RevocationURL: b.RevocationURL, Description: b.Description, Category: b.Category,
		EnableDiscovery: b.EnableDiscovery, Scopes: b.Scopes,
		ClientID: b.ClientID.Value, ClientSecret: b.ClientSecret.Value, CredentialsRef: b.CredentialsRef,
	}
	if len(b.Params) > 0 {
		d := json.NewDecoder(strings.NewReader(string(b.Params)))
		d.UseNumber()
		if d.Decode(&p.Params) != nil {
			return p, fmt.Errorf("the broker's params of %q are no object", b.Name)
		}
	}
	return p, nil
}

// Problem is one thing that is wrong with a manifest.
type Problem struct {
	File string
	Line int // 0: unknown
	Text string
}

// String returns the problem as one line.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// Problems is everything that is wrong with a manifest, at least one.
type Problems []Problem

// Error returns one line that counts the problems, and a line for each.
func (ps Problems) Error() string {
	var b strings.Builder
	if len(ps) == 1 {
		b.WriteString("the manifest has 1 problem:")
	} else {
		fmt.Fprintf(&b, "the manifest has %d problems:", len(ps))
	}
	for _, p := range ps {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

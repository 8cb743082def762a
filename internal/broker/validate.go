package broker

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/secret"
)

var providerName = regexp.MustCompile(`^[a-z0-9-]+$`)

var authTypes = []string{
	AuthOAuth2, AuthAPIKey, AuthBasic, AuthHeader, AuthQueryParam, AuthHMACPayload, AuthAWSSigV4,
}

// Characters of the columns that have a limit.
const (
	maxName     = 255
	maxCategory = 100
)

// apply returns the profile after in: of p every member is kept that in leaves
// out; null clears.
func (in ProfileInput) apply(p Profile) Profile {
	set(&p.Name, in.Name)
	set(&p.AuthType, in.AuthType)
	set(&p.AuthHeader, in.AuthHeader)
	set(&p.AuthURL, in.AuthURL)
	set(&p.TokenURL, in.TokenURL)
	set(&p.Issuer, in.Issuer)
	set(&p.EnableDiscovery, in.EnableDiscovery)
	set(&p.Scopes, in.Scopes)
	set(&p.APIBaseURL, in.APIBaseURL)
	set(&p.UserInfoEndpoint, in.UserInfoEndpoint)
	set(&p.RevocationURL, in.RevocationURL)
	set(&p.Description, in.Description)
	set(&p.Category, in.Category)
	if in.Params.Present {
		p.Params = Params(in.Params.Value)
	}
	if p.AuthType == "" {
		p.AuthType = AuthOAuth2
	}
	return p
}

func set[T any](to *T, f Field[T]) {
	if f.Present {
		*to = f.Value
	}
}

// public reports whether the profile is of a client without a secret.
func (p Profile) public() bool {
	return p.AuthType == AuthOAuth2 && oauth.ParseAuthStyle(p.AuthHeader) == oauth.NoClientAuth
}

// validate checks a profile as a whole, apart from its credentials. A name and a URL that
// are as stored, the profile that it replaces (nil: none), are not looked at again: a row
// may be older than the rule, and must be changeable otherwise.
func (p Profile) validate(stored *Profile) *Error {
	named := stored != nil && p.Name == stored.Name
	if !named && (!providerName.MatchString(p.Name) || len(p.Name) > maxName) {
		return fail(CodeInvalidProviderName,
			"the name must match ^[a-z0-9-]+$ and have at most 255 characters")
	}
	if !slices.Contains(authTypes, p.AuthType) {
		return fail(CodeProviderCreationFailed,
			"auth_type must be one of "+strings.Join(authTypes, ", "))
	}
	if err := p.validateTexts(); err != nil {
		return err
	}
	if err := p.validateURLs(stored); err != nil {
		return err
	}
	if p.AuthType == AuthOAuth2 {
		return p.validateEndpoints()
	}
	return nil
}

func (p Profile) validateEndpoints() *Error {
	switch {
	case p.EnableDiscovery && p.Issuer == "":
		return fail(CodeProviderCreationFailed, "enable_discovery needs an issuer")
	case p.EnableDiscovery:
		return nil
	case p.AuthURL == "":
		return fail(CodeMissingAuthURL, "auth_url is required for oauth2 without enable_discovery")
	case p.TokenURL == "":
		return fail(CodeMissingTokenURL, "token_url is required for oauth2 without enable_discovery")
	}
	return nil
}

func (p Profile) validateTexts() *Error {
	texts := append([]string{
		p.AuthHeader, p.AuthURL, p.TokenURL, p.Issuer, p.APIBaseURL, p.UserInfoEndpoint,
		p.RevocationURL, p.Description, p.Category,
	}, p.Scopes...)
	if slices.ContainsFunc(texts, func(t string) bool { return strings.ContainsRune(t, 0) }) {
		return fail(CodeProviderCreationFailed, "a field contains a NUL character")
	}
	if utf8.RuneCountInString(p.Category) > maxCategory {
		return fail(CodeProviderCreationFailed, "category has at most 100 characters")
	}
	if !p.Params.IsZero() {
		var object map[string]any
		switch {
		case json.Unmarshal(p.Params, &object) != nil:
			return fail(CodeProviderCreationFailed, "params must be a JSON object")
		case holdsNUL(object):
			return fail(CodeProviderCreationFailed, "params contain a NUL character")
		}
	}
	return nil
}

// validateURLs checks the URLs that are not as stored with the rule of the flows that will
// call them. A password in one would be shown to everybody who may see the profile.
func (p Profile) validateURLs(stored *Profile) *Error {
	if stored == nil {
		stored = &Profile{}
	}
	for _, u := range []struct {
		name, is, was string
		check         func(string) error
	}{
		{"auth_url", p.AuthURL, stored.AuthURL, oauth.CheckEndpoint},
		{"token_url", p.TokenURL, stored.TokenURL, oauth.CheckEndpoint},
		{"issuer", p.Issuer, stored.Issuer, oauth.CheckIssuer},
		{"revocation_url", p.RevocationURL, stored.RevocationURL, oauth.CheckEndpoint},
		{"api_base_url", p.APIBaseURL, stored.APIBaseURL, oauth.CheckBaseURL},
	} {
		if u.is == "" || u.is == u.was {
			continue
		}
		if err := u.check(u.is); err != nil {
			return fail(CodeProviderCreationFailed, u.name+" "+err.Error())
		}
	}
	return nil
}

// holdsNUL reports whether a decoded JSON value has a NUL in a name or a text, which
// PostgreSQL's jsonb cannot hold.
func holdsNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.ContainsRune(v, 0)
	case []any:
		return slices.ContainsFunc(v, holdsNUL)
	case map[string]any:
		for name, member := range v {
			if holdsNUL(name) || holdsNUL(member) {
				return true
			}
		}
	}
	return false
}

// checkCredential checks a client credential that a caller sent.
func checkCredential(name string, v secret.Value) *Error {
	if v.IsZero() {
		return nil
	}
	if err := secret.CheckValue(v.Reveal()); err != nil {
		return &Error{Code: CodeProviderCreationFailed, Message: name + " cannot be stored: " + err.Error()}
	}
	return nil
}

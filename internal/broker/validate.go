package broker

import (
	"encoding/json"
	"fmt"
	"net/url"
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

// validate checks a profile as a whole, apart from its credentials.
func (p Profile) validate() *Error {
	if !providerName.MatchString(p.Name) || len(p.Name) > maxName {
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
	for _, u := range []struct{ name, url string }{
		{"auth_url", p.AuthURL}, {"token_url", p.TokenURL}, {"issuer", p.Issuer}, {"revocation_url", p.RevocationURL},
	} {
		if err := checkURL(u.url); err != nil {
			return fail(CodeProviderCreationFailed, u.name+": "+err.Error())
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

// checkURL accepts "" and absolute http(s) URLs without user information.
func checkURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("not a URL")
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return fmt.Errorf("not an absolute http or https URL")
	case u.User != nil:
		return fmt.Errorf("a URL must not contain a user name or password")
	}
	return nil
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

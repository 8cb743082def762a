package broker

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/secret"
)

var providerName = regexp.MustCompile(`^[a-z0-9-]+$`)

var authTypes = []string{
	AuthOAuth2, AuthAPIKey, AuthBasic, AuthHeader, AuthQueryParam, AuthHMACPayload, AuthAWSSigV4,
}

// Bytes of the columns that have a limit.
const (
	maxNameBytes     = 255
	maxCategoryBytes = 100
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
	if !providerName.MatchString(p.Name) || len(p.Name) > maxNameBytes {
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
		p.RevocationURL, p.Description, p.Category, string(p.Params),
	}, p.Scopes...)
	for _, t := range texts {
		if strings.ContainsRune(t, 0) || strings.Contains(t, `\u0000`) {
			return fail(CodeProviderCreationFailed, "a field contains a NUL character")
		}
	}
	if len(p.Category) > maxCategoryBytes {
		return fail(CodeProviderCreationFailed, "category has at most 100 characters")
	}
	if !p.Params.IsZero() {
		var object map[string]json.RawMessage
		if json.Unmarshal(p.Params, &object) != nil {
			return fail(CodeProviderCreationFailed, "params must be a JSON object")
		}
	}
	urls := map[string]string{
		"auth_url": p.AuthURL, "token_url": p.TokenURL, "issuer": p.Issuer,
		"revocation_url": p.RevocationURL,
	}
	for name, u := range urls {
		if err := checkURL(u); err != nil {
			return fail(CodeProviderCreationFailed, name+": "+err.Error())
		}
	}
	return nil
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

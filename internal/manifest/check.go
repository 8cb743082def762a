package manifest

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

const oauth2 = "oauth2"

var nameCharacters = regexp.MustCompile(`^[a-z0-9-]+$`)

// legalName reports whether a provider can be registered under name.
func legalName(name string) bool { return len(name) <= 255 && nameCharacters.MatchString(name) }

// authTypes are those that a broker knows.
func authTypes() []string {
	return []string{oauth2, "api_key", "basic_auth", "header", "query_param", "hmac_payload", "aws_sigv4"}
}

// authType returns the effective auth_type.
func (p *Provider) authType() string {
	if p.AuthType == "" {
		return oauth2
	}
	return p.AuthType
}

// public reports whether the profile is of a client without a secret.
func (p *Provider) public() bool {
	return p.authType() == oauth2 && oauth.ParseAuthStyle(p.AuthHeader) == oauth.NoClientAuth
}

// check returns what a broker would refuse, as far as that can be known without it:
// a plan shall not promise what cannot be done.
func (p *Provider) check() (wrong []string) {
	say := func(sure bool, text string) {
		if sure {
			wrong = append(wrong, text)
		}
	}
	say(p.Name == "", "a provider without a name")
	say(p.Name != "" && !legalName(p.Name), "name must match ^[a-z0-9-]+$ and have at most 255 characters")
	say(p.PreviousName != "" && p.PreviousName == p.Name, "previous_name is the name itself")
	say(!slices.Contains(authTypes(), p.authType()), "auth_type must be one of "+strings.Join(authTypes(), ", "))
	if p.authType() == oauth2 {
		say(p.EnableDiscovery && p.Issuer == "", "enable_discovery needs an issuer")
		say(!p.EnableDiscovery && p.AuthURL == "", "auth_url is required for oauth2 without enable_discovery")
		say(!p.EnableDiscovery && p.TokenURL == "", "token_url is required for oauth2 without enable_discovery")
	}
	for _, u := range []text{{"auth_url", &p.AuthURL}, {"token_url", &p.TokenURL}, {"issuer", &p.Issuer}, {"revocation_url", &p.RevocationURL}} {
		say(!absoluteURL(*u.value), u.name+" must be an absolute http or https URL without a password")
	}
	pair := !p.ClientID.IsZero() || !p.ClientSecret.IsZero()
	say(p.public() && !p.ClientSecret.IsZero(), `a public client ("auth_header: none") has no client_secret`)
	if ref := p.CredentialsRef; ref != nil {
		say(pair, "client_id and client_secret, or credentials_ref: not both")
		say(ref.ClientID == "", "credentials_ref.client_id is missing")
		say(ref.ClientSecret == "" && p.authType() == oauth2 && !p.public(), "credentials_ref.client_secret is missing")
		say(ref.ClientSecret != "" && p.public(), `a public client ("auth_header: none") has no client_secret`)
	}
	return wrong
}

// absoluteURL accepts "" too.
func absoluteURL(s string) bool {
	if s == "" {
		return true
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}

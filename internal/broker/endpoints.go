package broker

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

// asksOpenID reports whether a consent with these scopes asks for an ID token: by them, or
// by the scope parameter that the profile sends in their place.
func (p Profile) asksOpenID(scopes []string) bool {
	return hasOpenID(scopes) || hasOpenID(p.Params.authorization()["scope"])
}

// hasOpenID reports whether openid is among the scopes. Each may hold several, as they
// are joined by spaces on the wire (RFC 6749 §3.3); some providers also take commas.
func hasOpenID(scopes []string) bool {
	separates := func(r rune) bool { return r == ',' || unicode.IsSpace(r) }
	return slices.ContainsFunc(scopes, func(s string) bool {
		return slices.ContainsFunc(strings.FieldsFunc(s, separates), func(one string) bool { return strings.EqualFold(one, "openid") })
	})
}

// endpoints returns the endpoints of a provider: discovered where the profile or an
// openid scope asks for it and the issuer answers, else the profile's own.
func (s *Service) endpoints(ctx context.Context, p Provider, scopes []string) (oauth.Metadata, error) {
	profile := p.Profile
	own := oauth.Metadata{
		Issuer: profile.Issuer, AuthorizationEndpoint: profile.AuthURL,
		TokenEndpoint: profile.TokenURL, RevocationEndpoint: profile.RevocationURL,
	}
	if !profile.EnableDiscovery && !profile.asksOpenID(scopes) {
		return own, nil
	}
	found, err := s.discover(ctx, profile)
	if err == nil {
		found.AuthorizationEndpoint = cmp.Or(found.AuthorizationEndpoint, own.AuthorizationEndpoint)
		found.TokenEndpoint = cmp.Or(found.TokenEndpoint, own.TokenEndpoint)
		found.RevocationEndpoint = cmp.Or(own.RevocationEndpoint, found.RevocationEndpoint)
		return found, nil
	}
	s.log.InfoContext(ctx, "discovery failed", "provider_id", p.ID, "error", err)
	if own.AuthorizationEndpoint != "" && own.TokenEndpoint != "" {
		own.Outage = profile.discoveryIsOut(err)
		return own, nil
	}
	s.learn(ctx, p, HealthUnreachable, "OIDC discovery failed")
	return own, &Error{Code: CodeUpstreamError, Err: err,
		Message: "the provider's OIDC discovery does not answer and the profile names no endpoints"}
}

// discoveryIsOut reports whether a discovery has failed for a reason that passes, and not
// because there is none: no complete answer, an error of the server's, or throttling. A
// refusal is throttling too, as gateways do it, where the profile says that the provider
// has discovery. Where the issuer is a guess it is how some say that there is nothing.
func (p Profile) discoveryIsOut(err error) bool {
	var e *oauth.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusUnauthorized, http.StatusForbidden:
		return p.Issuer != "" || p.EnableDiscovery
	}
	return unreachable(err) || e.Err != nil
}

// canVerify checks, before a code is spent, that the ID token that comes for it can be
// verified: a consent whose provider has an outage can be tried again.
func (s *Service) canVerify(ctx context.Context, p Provider, scopes []string, endpoints oauth.Metadata) error {
	switch {
	case !p.Profile.asksOpenID(scopes):
		return nil
	case endpoints.Outage:
		return fail(CodeUpstreamError, "the provider's OIDC discovery does not answer, so its ID token could not be verified; try again")
	case endpoints.JWKSURI == "":
		return nil // there is no discovery: an ID token will be refused, but there may be none either
	}
	err := s.oauth.FetchKeys(ctx, endpoints.JWKSURI)
	if err == nil {
		return nil
	}
	if unreachable(err) {
		s.learn(ctx, p, HealthUnreachable, "the signing keys cannot be fetched")
	}
	out := &Error{Code: CodeUpstreamError, Err: err,
		Message: "the provider's signing keys cannot be fetched, so its ID token could not be verified; try again"}
	var e *oauth.Error
	if errors.As(err, &e) {
		out.RetryAfter = e.RetryAfter
	}
	return out
}

func (s *Service) discover(ctx context.Context, profile Profile) (oauth.Metadata, error) {
	issuer := profile.Issuer
	if issuer == "" {
		derived, err := oauth.DeriveIssuer(profile.AuthURL)
		if err != nil {
			return oauth.Metadata{}, err
		}
		issuer = derived
	}
	return s.oauth.Discover(ctx, issuer)
}

// clientAuth is how the provider's client authenticates, with pair.
func (p Profile) clientAuth(pair credentials.Pair) oauth.ClientAuth {
	return oauth.ClientAuth{
		Style: oauth.ParseAuthStyle(p.AuthHeader), ID: pair.ClientID, Secret: pair.ClientSecret,
	}
}

// withPair calls a provider's token endpoint with its credentials. If the provider
// refuses them they are read again past the cache, and if they have changed the
// call is made once more: that is how a rotation in the vault takes effect at once.
func (s *Service) withPair(ctx context.Context, p Provider, call func(credentials.Pair) (oauth.TokenSet, error)) (oauth.TokenSet, error) {
	pair, err := s.flowPair(ctx, &p)
	if err != nil {
		return oauth.TokenSet{}, err
	}
	tokens, err := call(pair)
	if refused(err) {
		fresh, changed, reloadErr := s.creds.Reload(ctx, p.Credentials, pair)
		if reloadErr != nil {
			return tokens, s.noPair(ctx, p, reloadErr)
		}
		if changed {
			tokens, err = call(fresh)
		}
	}
	switch {
	case err == nil:
		s.learn(ctx, p, HealthHealthy, "")
	case refused(err):
		const message = "the provider refused the client credentials; the administrator of the provider must correct them"
		s.learn(ctx, p, HealthCredentialsRejected, message)
		return tokens, &Error{Code: CodeCredentialsRejected, Err: err, Message: message}
	case unreachable(err):
		s.learn(ctx, p, HealthUnreachable, err.Error())
	}
	return tokens, err
}

// refused reports whether the provider did not accept the client's credentials
// (RFC 6749 §5.2).
func refused(err error) bool { return oauthCode(err) == "invalid_client" }

func unreachable(err error) bool {
	var e *oauth.Error
	return errors.As(err, &e) && (e.Status == 0 || e.Status >= 500)
}

// oauthCode returns the OAuth error code of a provider's answer, "" if err is
// something else or the provider named none that is known.
func oauthCode(err error) string {
	var e *oauth.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

package oauth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

const (
	discoveryOp      = "discovery"
	discoveryTTL     = time.Hour
	discoveryTimeout = 5 * time.Second // a consent waits for it, and can do without
	maxDiscoveries   = 10_000
	maxURLBytes      = 2048 // of an issuer, and of an endpoint in a discovery document
)

// Discover returns what a provider publishes at
// <issuer>/.well-known/openid-configuration (OpenID Connect Discovery 1.0 §4). An
// endpoint that the document leaves out is "".
//
// The document must name the issuer that was asked for (§4.3). A slash at the end
// makes no difference, and Microsoft, which publishes one document for many tenants,
// may write "{tenantid}" or the tenant's id where the issuer has an alias. An
// endpoint must be https if the issuer is.
//
// A good answer is kept for an hour; a failure is not. It takes 5 seconds at most.
func (c *Client) Discover(ctx context.Context, issuer string) (Metadata, error) {
	if e, ok := c.discoveries.get(issuer); ok {
		c.onDiscovery("cached", 0)
		return e.value, nil
	}
	e, err := c.discoveries.fetch(ctx, issuer, 0, func(ctx context.Context) (Metadata, error) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
		defer cancel()
		m, err := c.discover(ctx, issuer)
		result := "success"
		if err != nil {
			result = "error"
		}
		c.onDiscovery(result, time.Since(begin))
		return m, err
	})
	if err != nil {
		return Metadata{}, asError(discoveryOp, err)
	}
	return e.value, nil
}

func (c *Client) discover(ctx context.Context, issuer string) (Metadata, error) {
	if reason := issuerReason(issuer); reason != "" {
		return Metadata{}, &Error{Op: discoveryOp, Reason: "the issuer " + reason}
	}
	a, err := c.getJSON(ctx, discoveryOp, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return Metadata{}, err
	}
	if a.status != http.StatusOK {
		return Metadata{}, &Error{Op: discoveryOp, Status: a.status, RetryAfter: c.retryAfter(a)}
	}
	m, reason := readMetadata(a.body, issuer)
	if reason != "" {
		return Metadata{}, &Error{Op: discoveryOp, Status: a.status, Reason: reason}
	}
	return m, nil
}

// readMetadata reads a discovery document. The reason quotes nothing of it.
func readMetadata(document []byte, issuer string) (m Metadata, reason string) {
	var d struct {
		Issuer                string   `json:"issuer"`
		AuthorizationEndpoint string   `json:"authorization_endpoint"`
		TokenEndpoint         string   `json:"token_endpoint"`
		JWKSURI               string   `json:"jwks_uri"`
		RevocationEndpoint    string   `json:"revocation_endpoint"`
		SigningAlgs           []string `json:"id_token_signing_alg_values_supported"`
	}
	if json.Unmarshal(document, &d) != nil {
		return Metadata{}, "the answer is not a discovery document"
	}
	if !sameIssuer(issuer, d.Issuer) {
		return Metadata{}, "the document is another issuer's"
	}
	secure := strings.HasPrefix(issuer, "https:")
	for name, endpoint := range map[string]string{
		"authorization_endpoint": d.AuthorizationEndpoint,
		"token_endpoint":         d.TokenEndpoint,
		"jwks_uri":               d.JWKSURI,
		"revocation_endpoint":    d.RevocationEndpoint,
	} {
		if endpoint == "" {
			continue
		}
		u, reason := endpointURL(endpoint)
		switch {
		case reason != "":
			return Metadata{}, "the document's " + name + " " + reason
		case len(endpoint) > maxURLBytes:
			return Metadata{}, "the document's " + name + " is too long"
		case secure && u.Scheme != "https":
			return Metadata{}, "the document's " + name + " is not https"
		}
	}
	return Metadata{
		Discovered:            true,
		Issuer:                d.Issuer,
		AuthorizationEndpoint: d.AuthorizationEndpoint,
		TokenEndpoint:         d.TokenEndpoint,
		JWKSURI:               d.JWKSURI,
		RevocationEndpoint:    d.RevocationEndpoint,
		SigningAlgs:           knownAlgorithms(d.SigningAlgs),
	}, ""
}

// tenantTemplate stands in the issuer of a document that is published for many
// tenants: https://login.microsoftonline.com/{tenantid}/v2.0 (Microsoft identity
// platform, "OpenID Connect on the Microsoft identity platform").
const tenantTemplate = "{tenantid}"

// sameIssuer reports whether the document's issuer is the one that was asked for.
func sameIssuer(asked, stated string) bool {
	asked, stated = strings.TrimSuffix(asked, "/"), strings.TrimSuffix(stated, "/")
	if asked == stated {
		return true
	}
	a, rest, ok := splitTenant(asked)
	if !ok {
		return false
	}
	s, statedRest, ok := splitTenant(stated)
	if !ok || rest != statedRest || a == "" {
		return false
	}
	// A tenant's id in place of an alias ("consumers", "contoso.com") is believed of
	// Microsoft only: elsewhere it could be a neighbour's.
	return s == tenantTemplate || tenantID.MatchString(s) && !tenantID.MatchString(a) && microsoft(asked)
}

var tenantID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// splitTenant cuts the first segment, the tenant, out of an issuer's path.
func splitTenant(issuer string) (tenant, rest string, ok bool) {
	scheme, after, ok := strings.Cut(issuer, "://")
	if !ok {
		return "", "", false
	}
	host, path, ok := strings.Cut(after, "/")
	if !ok {
		return "", "", false
	}
	tenant, path, _ = strings.Cut(path, "/")
	return tenant, scheme + "://" + host + "/" + path, true
}

// microsoft reports whether the issuer is on one of the hosts of the Microsoft
// identity platform ("National clouds": global, US Government, China).
func microsoft(issuer string) bool {
	u, err := url.Parse(issuer)
	if err != nil {
		return false
	}
	switch u.Host {
	case "login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn":
		return u.Scheme == "https"
	}
	return false
}

var microsoftAuthorize = regexp.MustCompile(`^/([^/]+)/oauth2/v2\.0/authorize/?$`)

// DeriveIssuer guesses the issuer of a provider of which only the authorization
// endpoint is known: for Microsoft's /{tenant}/oauth2/v2.0/authorize it is
// /{tenant}/v2.0 on the same host, else scheme://host, which is right for Google
// and for many others.
func DeriveIssuer(authURL string) (string, error) {
	u, reason := endpointURL(authURL)
	if reason != "" {
		return "", &Error{Op: discoveryOp, Reason: "the authorization endpoint " + reason}
	}
	origin := u.Scheme + "://" + u.Host
	if m := microsoftAuthorize.FindStringSubmatch(u.EscapedPath()); m != nil {
		return origin + "/" + m[1] + "/v2.0", nil
	}
	return origin, nil
}

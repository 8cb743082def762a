package oauth

import (
	"context"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/nexus-broker/nexus-broker/secret"
)

// maxAhead is how far the provider's clock may be ahead of ours.
const maxAhead = 2 * time.Minute

// idClaims are the claims of an ID token that are checked (OpenID Connect Core §2).
type idClaims struct {
	jwt.Claims
	Nonce           string `json:"nonce"`
	AuthorizedParty string `json:"azp"`
	TenantID        string `json:"tid"` // Microsoft
}

// VerifyIDToken checks an ID token by the rules of OpenID Connect Core §3.1.3.7:
//
//   - it is signed by one of the provider's published keys, with an algorithm that
//     the metadata names (RS256 if it names none). Algorithms with a shared secret and
//     "none" are never accepted;
//   - iss is the metadata's issuer. Where that holds "{tenantid}" the token's tid takes
//     its place;
//   - aud holds the client id; azp is the client id where it is given, and is given
//     where there are several audiences;
//   - exp has not passed; iat and nbf are at most two minutes ahead; sub is there;
//   - nonce is the one that was sent, if one was.
//
// Every error is an *Error that names the rule and quotes nothing of the token.
func (c *Client) VerifyIDToken(ctx context.Context, raw secret.Value, check IDTokenCheck) error {
	algs := knownAlgorithms(check.Metadata.SigningAlgs)
	if len(check.Metadata.SigningAlgs) == 0 {
		algs = []string{string(jose.RS256)}
	}
	accepted := make([]jose.SignatureAlgorithm, len(algs))
	for i, a := range algs {
		accepted[i] = jose.SignatureAlgorithm(a)
	}
	token, err := jwt.ParseSigned(raw.Reveal(), accepted)
	if err != nil {
		return invalidIDToken("it is not a JWT signed with an algorithm that the provider announces")
	}
	var signer any
	found, err := c.verifyWith(ctx, check.Metadata.JWKSURI, token.Headers[0], func(key any) bool {
		signer = key
		return token.Claims(key) == nil
	})
	if err != nil {
		return err
	}
	if !found {
		return invalidIDToken("none of the provider's keys made its signature")
	}
	var claims idClaims
	if token.Claims(signer, &claims) != nil {
		return invalidIDToken("its claims are malformed")
	}
	if reason := claims.check(check, c.now()); reason != "" {
		return invalidIDToken(reason)
	}
	return nil
}

func invalidIDToken(reason string) error {
	return &Error{Op: "ID token verification", Reason: reason}
}

// check returns the rule that is broken, "" if none is.
func (c *idClaims) check(want IDTokenCheck, now time.Time) (reason string) {
	clientID := want.ClientID.Reveal()
	switch {
	case !issuerMatches(want.Metadata.Issuer, c.Issuer, c.TenantID):
		return "iss is not the provider's issuer"
	case clientID == "" || !slices.Contains(c.Audience, clientID):
		return "aud does not contain the client id"
	case len(c.Audience) > 1 && c.AuthorizedParty == "":
		return "several audiences and no azp"
	case c.AuthorizedParty != "" && c.AuthorizedParty != clientID:
		return "azp is not the client id"
	case c.Subject == "":
		return "sub is missing"
	case c.Expiry == nil || !now.Before(c.Expiry.Time()):
		return "it has expired (exp)"
	case c.IssuedAt == nil:
		return "iat is missing"
	case c.IssuedAt.Time().After(now.Add(maxAhead)):
		return "iat is more than two minutes ahead: compare the clocks"
	case c.NotBefore != nil && c.NotBefore.Time().After(now.Add(maxAhead)):
		return "nbf is more than two minutes ahead: compare the clocks"
	case want.Nonce != "" && subtle.ConstantTimeCompare([]byte(c.Nonce), []byte(want.Nonce)) != 1:
		return "nonce is not the one that was sent"
	}
	return ""
}

// issuerMatches compares iss with the issuer that discovery or the profile states.
func issuerMatches(issuer, iss, tenant string) bool {
	switch {
	case issuer == "":
		return false
	case strings.Contains(issuer, tenantTemplate):
		return tenantID.MatchString(tenant) && iss == strings.ReplaceAll(issuer, tenantTemplate, tenant)
	case issuer == "https://accounts.google.com":
		// Google sends either form ("OpenID Connect", Validating an ID token).
		return iss == issuer || iss == "accounts.google.com"
	}
	return iss == issuer
}

// knownAlgorithms returns those of algs that verify with a public key.
func knownAlgorithms(algs []string) []string {
	return slices.DeleteFunc(slices.Clone(algs), func(a string) bool {
		switch jose.SignatureAlgorithm(a) {
		case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
			jose.ES256, jose.ES384, jose.ES512, jose.EdDSA:
			return false
		}
		return true
	})
}

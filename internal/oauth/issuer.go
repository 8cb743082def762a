package oauth

import "strings"

// MatchesIssuer reports whether iss, the parameter of an authorization response
// (RFC 9207 §2.4), names the provider of m. Where nothing is known of the issuer
// there is nothing to compare and every iss matches. Of an issuer that is published
// for many tenants any tenant matches: which one it was is the ID token's to say.
func (m Metadata) MatchesIssuer(iss string) bool {
	before, after, multiTenant := strings.Cut(m.Issuer, tenantTemplate)
	switch {
	case m.Issuer == "" || iss == m.Issuer:
		return true
	case multiTenant:
		tenant, ok := strings.CutPrefix(iss, before)
		if ok {
			tenant, ok = strings.CutSuffix(tenant, after)
		}
		return ok && tenantID.MatchString(tenant)
	}
	return false
}

package oauth

import "strings"

// MatchesIssuer reports whether iss, the parameter of an authorization response
// (RFC 9207 §2.4), names the provider of m. Where nothing is known of the issuer
// there is nothing to compare and every iss matches. Of an issuer that is published
// for many tenants any tenant matches: which one it was is the ID token's to say.
//
// The comparison is exact with an issuer that the provider itself has stated. One that a
// person has written down may differ by a slash at the end, as for Discover.
func (m Metadata) MatchesIssuer(iss string) bool {
	issuer := m.Issuer
	if !m.Discovered {
		issuer, iss = strings.TrimSuffix(issuer, "/"), strings.TrimSuffix(iss, "/")
	}
	before, after, multiTenant := strings.Cut(issuer, tenantTemplate)
	switch {
	case issuer == "" || iss == issuer:
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

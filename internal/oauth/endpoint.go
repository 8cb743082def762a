package oauth

import (
	"errors"
	"net/url"
	"strings"
)

// CheckEndpoint returns nil if the Client can call raw: an absolute http or https URL
// with a host, without fragment and without user information. The error says what is
// wrong, as in "contains a fragment", and quotes nothing of raw.
func CheckEndpoint(raw string) error {
	if _, reason := endpointURL(raw); reason != "" {
		return errors.New(reason)
	}
	return nil
}

// CheckIssuer is CheckEndpoint for an issuer, which has no query either and at most 2048
// bytes (OpenID Connect Discovery 1.0 §2).
func CheckIssuer(raw string) error {
	if reason := issuerReason(raw); reason != "" {
		return errors.New(reason)
	}
	return nil
}

// CheckBaseURL is the rule for the base URL of a provider's API, which is first of all a
// text for agents, as "https://{tenant}.example": it only holds no user information,
// which would be a credential that everybody sees.
func CheckBaseURL(raw string) error {
	_, rest, found := strings.Cut(raw, "//")
	if authority := strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune("/?#", r) }); found &&
		len(authority) > 0 && strings.Contains(authority[0], "@") {
		return errors.New("contains user information")
	}
	return nil
}

// issuerReason says what is wrong with an issuer, "" if nothing is.
func issuerReason(raw string) string {
	u, reason := endpointURL(raw)
	switch {
	case reason != "":
		return reason
	case u.RawQuery != "" || u.ForceQuery:
		return "contains a query"
	case len(raw) > maxURLBytes:
		return "is too long"
	}
	return ""
}

// endpointURL parses the URL of an endpoint. An endpoint is absolute, http or
// https, and has neither a fragment (RFC 6749 §3.1, §3.2) nor user information,
// which would be a credential in a URL. The reason quotes nothing of raw.
func endpointURL(raw string) (u *url.URL, reason string) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, "is not valid"
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, "does not begin with https:// or http://"
	case u.Host == "" || u.Hostname() == "":
		return nil, "has no host"
	case u.User != nil:
		return nil, "contains user information"
	case u.Fragment != "" || u.RawFragment != "":
		return nil, "contains a fragment"
	}
	return u, ""
}

package oauth

import (
	"errors"
	"net/url"
	"strings"
)

// AuthorizationURL returns the URL at which the user is asked for consent: the
// endpoint, with the query it may have, and the parameters of r.
//
// The scope parameter is there, if empty, unless r.SkipScope. Extra entries replace
// what the endpoint's query says and the scope, but not what the protocol relies
// on: client_id, redirect_uri, response_type, state, nonce and code_challenge*.
func AuthorizationURL(r AuthRequest) (string, error) {
	u, reason := endpointURL(r.Endpoint)
	if reason != "" {
		return "", errors.New("the authorization endpoint " + reason)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil { // its text would quote the query
		return "", errors.New("the authorization endpoint has a malformed query")
	}
	if !r.SkipScope {
		query.Set("scope", strings.Join(r.Scopes, " "))
	}
	for name, values := range r.Extra {
		if !protocolParameter(name) {
			query[name] = values
		}
	}
	query.Set("response_type", "code")
	query.Set("client_id", r.ClientID.Reveal())
	query.Set("redirect_uri", r.RedirectURI)
	query.Set("state", r.State)
	query.Set("code_challenge", r.CodeChallenge)
	query.Set("code_challenge_method", "S256")
	if r.Nonce != "" {
		query.Set("nonce", r.Nonce)
	}
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// protocolParameter reports whether only the broker may set the parameter.
func protocolParameter(name string) bool {
	switch name {
	case "client_id", "redirect_uri", "response_type", "state", "nonce":
		return true
	}
	return strings.HasPrefix(name, "code_challenge")
}

// Package oauth speaks to providers: authorization URL, code exchange, refresh,
// discovery and ID token. It knows no database and no secret backend.
package oauth

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// AuthStyle is how a client authenticates at the token endpoint (OpenID Connect
// Core §9, RFC 6749 §2.3.1).
type AuthStyle string

// The client authentication methods that are supported.
const (
	ClientSecretPost  AuthStyle = "client_secret_post"
	ClientSecretBasic AuthStyle = "client_secret_basic"
	NoClientAuth      AuthStyle = "none" // a public client: client_id only
)

// ParseAuthStyle reads a profile's auth_header: without regard to case, "Basic" is
// client_secret_basic, and anything unknown means client_secret_post.
func ParseAuthStyle(s string) AuthStyle {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "client_secret_basic", "basic":
		return ClientSecretBasic
	case "none":
		return NoClientAuth
	}
	return ClientSecretPost
}

// ClientAuth is what a client proves itself with.
type ClientAuth struct {
	Style  AuthStyle
	ID     secret.Value
	Secret secret.Value
}

// Metadata is what discovery or the profile says of a provider's endpoints.
type Metadata struct {
	Discovered            bool   // the provider has stated the issuer, in its discovery document
	Issuer                string // may hold "{tenantid}"
	AuthorizationEndpoint string
	TokenEndpoint         string
	JWKSURI               string
	RevocationEndpoint    string
	SigningAlgs           []string // id_token_signing_alg_values_supported
	// Outage: this is not what discovery says, since that did not answer when it was
	// asked. An ID token cannot be verified with it.
	Outage bool
}

// AuthRequest is an authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3).
type AuthRequest struct {
	Endpoint      string
	ClientID      secret.Value
	RedirectURI   string
	Scopes        []string
	SkipScope     bool // leave the scope parameter out
	State         string
	CodeChallenge string // S256
	Nonce         string // "" for none
	// Extra are the profile's own parameters. Those that the protocol or the broker
	// owns are left out.
	Extra url.Values
}

// TokenRequest is what exchange and refresh have in common.
type TokenRequest struct {
	Endpoint string
	Auth     ClientAuth
	JSON     bool     // send a JSON body instead of a form
	Scopes   []string // nil: the parameter is left out
}

// Exchange is the code grant (RFC 6749 §4.1.3).
type Exchange struct {
	TokenRequest
	Code         secret.Value
	CodeVerifier secret.Value
	RedirectURI  string
}

// Refresh is the refresh token grant (RFC 6749 §6).
type Refresh struct {
	TokenRequest
	RefreshToken secret.Value
}

// IDTokenCheck is what an ID token is verified against (OpenID Connect Core §3.1.3.7).
type IDTokenCheck struct {
	Metadata Metadata
	ClientID secret.Value
	Nonce    string
}

// Error is a provider's refusal or failure. Its text holds nothing that the
// provider sent but a known error code.
type Error struct {
	Op         string        // "exchange", "refresh", "discovery", …
	Code       string        // a registered OAuth error code, "" if none or unknown
	Status     int           // the HTTP status, 0 if there was no answer
	RetryAfter time.Duration // of a 429 or 503, zero if not said
	Reason     string        // ours, e.g. "the answer is not JSON"
	Err        error         // the network's, nil else; never holds a body
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s failed", e.Op)
	if e.Status != 0 {
		fmt.Fprintf(&b, " with status %d", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, " (%s)", e.Code)
	}
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the network's error.
func (e *Error) Unwrap() error { return e.Err }

// LogValue implements slog.LogValuer.
func (e *Error) LogValue() slog.Value { return slog.StringValue(e.Error()) }

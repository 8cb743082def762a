// Package broker is the domain: providers, connections and tokens, the flows
// between them, and the Store that they need.
package broker

import (
	"encoding/json"
	"errors"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

var errNotAString = errors.New("a credential must be a JSON string")

// ProviderView is a provider as an administrator may see it. Pair is set only
// where the values may be shown: internal backend, no redaction.
type ProviderView struct {
	Provider     Provider
	ClientID     string
	ClientSecret string
	// ShowCredentials: the answer has the "credentials" object.
	ShowCredentials bool
	Location        string // of the credentials, for a person
}

// ConsentRequest asks for a user's consent.
type ConsentRequest struct {
	WorkspaceID string
	ProviderID  string // as sent: what is no UUID is a provider that does not exist
	Scopes      []string
	ReturnURL   string
}

// Consent is where the user shall go.
type Consent struct {
	AuthURL    string
	State      string
	Scopes     []string // as requested; nil when absent
	ProviderID uuid.UUID
}

// Callback is what a provider's redirect carried.
type Callback struct {
	Code, State      string
	Error            string // the provider's "error"
	Issuer           string // RFC 9207 "iss", "" if absent
	ErrorDescription string // never shown to anybody; logged as present only
}

// CaptureForm is what a static provider wants of the user.
type CaptureForm struct {
	ProviderName string
	Schema       json.RawMessage
}

// Redirect is where the browser goes after a flow, with its query complete.
type Redirect struct{ URL string }

// TokenAnswer is what GET /connections/{id}/token answers, apart from encoding.
type TokenAnswer struct {
	AuthType  string
	Strategy  json.RawMessage // never nil
	Token     oauth.TokenSet  // the provider's fields, or the captured credentials
	ExpiresAt time.Time       // zero: the provider gave no expires_in
	Expired   bool            // meaningful with ExpiresAt
}

// Readiness is what GET /health/ready answers.
type Readiness struct {
	Status   string // "ready", "degraded", "unavailable"
	Database Component
	Secrets  Component
}

// Component is the state of one thing that the broker depends on.
type Component struct {
	Backend string // of the secret backend
	Status  string // "ok" or "unavailable", "denied"
	Since   time.Time
	Message string
}

// Config is what the flows need to know.
type Config struct {
	BaseURL              *url.URL
	RedirectPath         string
	StateKey             []byte
	EnforceReturnURL     bool
	AllowedReturnDomains []string
	RedactClientSecrets  bool
	AuditRetention       time.Duration // zero: for ever
}

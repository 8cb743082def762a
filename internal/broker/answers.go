package broker

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/secret"
)

// ProviderView is a provider as an administrator may see it. The values are set
// only where they may be shown: internal backend, no redaction.
type ProviderView struct {
	Provider     Provider
	ClientID     secret.Value
	ClientSecret secret.Value
	// ShowCredentials: the answer has the "credentials" object, instead of the values or,
	// where they may not fit together, beside them.
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
	Code   secret.Value
	State  string
	Error  string // the provider's "error"
	Issuer string // RFC 9207 "iss", "" if absent
}

// CaptureForm is what a static provider wants of the user.
type CaptureForm struct {
	ProviderName string
	Schema       json.RawMessage
}

// Redirect is where the browser goes after a flow, with its query complete.
type Redirect struct{ URL string }

// TokenAnswer is what GET /connections/{id}/token and a refresh answer, apart from
// encoding.
type TokenAnswer struct {
	AuthType  string
	Strategy  json.RawMessage // never nil
	Token     oauth.TokenSet  // the provider's fields, or the captured credentials
	ExpiresAt time.Time       // zero: the provider gave no expires_in
	Expired   bool            // meaningful with ExpiresAt
}

// Readiness is what GET /health/ready answers.
type Readiness struct {
	Status   ReadyStatus
	Database Component
	Secrets  Component
}

// ReadyStatus sums the components up.
type ReadyStatus string

// The states of readiness.
const (
	Ready       ReadyStatus = "ready"
	Degraded    ReadyStatus = "degraded"    // stored tokens are served, flows may fail
	Unavailable ReadyStatus = "unavailable" // nothing can be served
)

// Component is the state of one thing that the broker depends on.
type Component struct {
	Backend string // of the secret backend
	Status  string // "ok", "unavailable", "denied"
	Since   time.Time
	Message string
}

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
	// ConnectionID is the connection that the user consents to anew; uuid.Nil: the
	// consent makes a new one.
	ConnectionID uuid.UUID
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

// RevokeRequest asks for the end of a connection.
type RevokeRequest struct {
	ConnectionID uuid.UUID
	WorkspaceID  string // "": whichever it belongs to
	Reason       string // for the audit log; may be ""
}

// Revocation is how a connection ended.
type Revocation struct {
	ConnectionID uuid.UUID
	ProviderName string
	RevokedAt    time.Time
	TokenDeleted bool // by this call
	// ProviderRevoked: the provider has confirmed to this call that its token is void.
	ProviderRevoked bool
}

// Readiness is what GET /health/ready answers.
type Readiness struct {
	Status   ReadyStatus
	Database Component
	Secrets  Component
	// EncryptionKey is zero unless something is wrong with it.
	EncryptionKey Component
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

// Package audit names the events that the broker records and carries what is known
// of the request that caused them. It imports nothing of ours; the store keeps the
// events.
package audit

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Type names what happened. The names are part of the HTTP API (GET /audit).
type Type string

// The event types of the existing broker.
const (
	ProviderCreated           Type = "provider.created"
	ProviderUpdated           Type = "provider.updated"
	ProviderDeleted           Type = "provider.deleted"
	OAuthFlowCompleted        Type = "oauth_flow_completed"
	TokenRetrieved            Type = "token_retrieved"
	TokenRetrievalFailed      Type = "token_retrieval_failed"
	TokenExchangeFailed       Type = "token_exchange_failed"
	TokenRefreshFatal         Type = "token_refresh_fatal"
	StateVerificationFailed   Type = "state_verification_failed"
	ConnectionNotFound        Type = "connection_not_found"
	IDTokenVerificationFailed Type = "id_token_verification_failed"
	OAuthError                Type = "oauth_error"
	TokenStorageFailed        Type = "token_storage_failed"
	ProviderNotFound          Type = "provider_not_found"
	StatusUpdateFailed        Type = "status_update_failed"
	InvalidReturnURL          Type = "invalid_return_url"
)

// The event types that are ours.
const (
	CredentialsRead        Type = "credentials.read"
	CredentialsWritten     Type = "credentials.written"
	CredentialsDeleted     Type = "credentials.deleted"
	CredentialsDenied      Type = "credentials.denied"
	CredentialsUnavailable Type = "credentials.unavailable"
	CredentialsMigrated    Type = "credentials.migrated" // a provider's row names another backend
	TokenRefreshed         Type = "token_refreshed"
	CredentialCaptured     Type = "credential_captured"
	ConnectionRevoked      Type = "connection_revoked"
	ProviderRevocation     Type = "provider_revocation" // what the provider said to a revocation
	KeysRotated            Type = "keys.rotated"        // of the encryption; the data counts what was sealed anew
)

// Event is one row of the audit log. Data never holds a credential or a token.
type Event struct {
	ID           uuid.UUID
	ConnectionID uuid.UUID // uuid.Nil: about no connection
	Type         Type
	Data         map[string]any // "" and nil entries are left out by New
	IPAddress    string         // "" if unknown
	UserAgent    string         // "" if unknown
	CreatedAt    time.Time      // UTC, microseconds
}

// New returns an event of now, with what ctx knows of the request: address, user
// agent, and under "request_id" in Data the request's id.
func New(ctx context.Context, t Type, connectionID uuid.UUID, data map[string]any) Event {
	r := RequestFrom(ctx)
	d := make(map[string]any, len(data)+1)
	for k, v := range data {
		if v != nil && v != "" {
			d[k] = v
		}
	}
	if r.ID != "" {
		d["request_id"] = r.ID
	}
	return Event{
		ID: uuid.Must(uuid.NewV7()), ConnectionID: connectionID, Type: t, Data: d,
		IPAddress: r.IPAddress, UserAgent: r.UserAgent,
		CreatedAt: time.Now().UTC().Truncate(time.Microsecond),
	}
}

// DataJSON returns Data as a JSON object.
func (e Event) DataJSON() (string, error) {
	if e.Data == nil {
		return "{}", nil
	}
	b, err := json.Marshal(e.Data)
	return string(b), err
}

// Filter selects events. Zero fields select everything.
type Filter struct {
	Type         Type
	ConnectionID uuid.UUID
	Since, Until time.Time // Since is inclusive, Until exclusive
	After        uuid.UUID // the events that follow this one in a listing
	Limit        int       // 0: no limit
}

// Recorder makes events durable. When Record returns nil they are; when it returns
// an error none of them is.
type Recorder interface {
	Record(ctx context.Context, events ...Event) error
}

// Request is what is known of the HTTP request that an event belongs to.
type Request struct {
	ID, IPAddress, UserAgent string
}

type requestKey struct{}

// WithRequest returns a context whose events carry r.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestFrom returns the Request of ctx, zero if there is none.
func RequestFrom(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}

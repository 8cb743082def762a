package broker

import (
	"time"

	"github.com/google/uuid"
)

// ConnectionStatus is where a connection stands.
type ConnectionStatus string

// The states of a connection.
const (
	StatusPending   ConnectionStatus = "pending"   // the user has not consented yet
	StatusActive    ConnectionStatus = "active"    // a token is stored
	StatusFailed    ConnectionStatus = "failed"    // the consent ended in an error
	StatusAttention ConnectionStatus = "attention" // the refresh token is dead: the user must consent again
	StatusRevoked   ConnectionStatus = "revoked"   // ended for good
)

// Connection is one user's consent to one provider.
type Connection struct {
	ID           uuid.UUID
	WorkspaceID  string
	ProviderID   uuid.UUID
	Status       ConnectionStatus
	CodeVerifier string // sealed, or the existing broker's; "" once used, and for static types
	Scopes       []string
	ReturnURL    string
	CreatedAt    time.Time
	UpdatedAt    time.Time
	ExpiresAt    time.Time // of a pending connection: the end of its consent
	// Reconsent is set where this is a connection as a new consent to it sees it: when
	// that consent's state was issued.
	Reconsent time.Time
}

// ConnectionSummary is a connection in a list.
type ConnectionSummary struct {
	ID             uuid.UUID
	WorkspaceID    string
	ProviderID     uuid.UUID
	ProviderName   string
	Status         ConnectionStatus
	HealthStatus   HealthStatus
	Scopes         []string
	CreatedAt      time.Time
	UpdatedAt      time.Time
	TokenExpiresAt time.Time // zero: there is no token, or the provider gave no expires_in
}

// RevokedConnection is what the revocation of a connection found.
type RevokedConnection struct {
	Token      StoredToken // that was deleted; zero if there was none
	ProviderID uuid.UUID
	Scopes     []string
	RevokedAt  time.Time // of the first revocation
}

// StoredToken is a connection's token as the database holds it.
type StoredToken struct {
	Sealed    string    // the token's fields, sealed for TokenPurpose(connection id)
	ExpiresAt time.Time // zero: the provider gave no expires_in
}

// TokenView is all that handing out a stored token needs, read in one round trip.
type TokenView struct {
	ConnectionID uuid.UUID
	Status       ConnectionStatus
	Token        StoredToken // zero if none is stored
	Scopes       []string    // that the connection was asked for with
	ProviderID   uuid.UUID
	AuthType     string
	Params       Params
}

// TokenPurpose is what a connection's token is sealed for.
func TokenPurpose(connectionID uuid.UUID) string { return "token/" + connectionID.String() }

// VerifierPurpose is what a connection's code verifier is sealed for.
func VerifierPurpose(connectionID uuid.UUID) string { return "verifier/" + connectionID.String() }

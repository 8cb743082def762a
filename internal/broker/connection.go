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
	CodeVerifier string // sealed; "" once used, and for static types
	Scopes       []string
	ReturnURL    string
	CreatedAt    time.Time
	UpdatedAt    time.Time
	ExpiresAt    time.Time // of a pending connection: the end of its consent
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

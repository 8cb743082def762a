package broker

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// The auth types that a provider may have.
const (
	AuthOAuth2      = "oauth2"
	AuthAPIKey      = "api_key"
	AuthBasic       = "basic_auth"
	AuthHeader      = "header"
	AuthQueryParam  = "query_param"
	AuthHMACPayload = "hmac_payload"
	AuthAWSSigV4    = "aws_sigv4"
)

// Profile is what an administrator registers of a provider, without its client
// credentials.
type Profile struct {
	Name             string
	AuthType         string
	AuthHeader       string // as it was given; oauth.AuthStyle reads it
	AuthURL          string
	TokenURL         string
	Issuer           string
	EnableDiscovery  bool
	Scopes           []string
	APIBaseURL       string
	UserInfoEndpoint string
	RevocationURL    string
	Params           Params
	Description      string
	Category         string
}

// Params is the profile's free-form "params" object, kept as it was given. The
// broker's own switches in it are read by the methods of params.go.
type Params json.RawMessage

// Provider is a registered provider.
type Provider struct {
	ID          uuid.UUID
	Profile     Profile
	Credentials credentials.Ref
	Health      Health
	CreatedAt   time.Time
	UpdatedAt   time.Time
	DeletedAt   time.Time // zero: not deleted
}

// Deleted reports whether the provider has been deleted.
func (p Provider) Deleted() bool { return !p.DeletedAt.IsZero() }

// Health is what the flows last learned of a provider.
type Health struct {
	Status    HealthStatus
	Message   string
	CheckedAt time.Time // zero: never
}

// HealthStatus names the health of a provider.
type HealthStatus string

// The states of health of a provider.
const (
	HealthUnknown             HealthStatus = "unknown"
	HealthHealthy             HealthStatus = "healthy"
	HealthCredentialsRejected HealthStatus = "credentials_rejected"
	HealthCredentialsMissing  HealthStatus = "credentials_missing"
	HealthUnreachable         HealthStatus = "unreachable"

	// HealthUnhealthy is a connection's whose authorization the provider has ended.
	HealthUnhealthy HealthStatus = "unhealthy"
)

package hashicorpvault

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/nexus-broker/nexus-broker/secret"
)

// session is a token in use.
type session struct {
	token   secret.Value
	secrets *api.Client // with the token, in the namespace of the secrets
	self    *api.Client // with the token, in the namespace of the login
	since   time.Time
	// worked: the token has been accepted at least once.
	worked atomic.Bool
	// suspect: it came in place of a token of a login that never worked.
	suspect bool

	// The rest belongs to the authenticator and is guarded by its mutex.
	lifetime
	tend time.Time // when the keeper looks after the token; zero: never
}

// lifetime is what is known of a token's.
type lifetime struct {
	known     bool
	ttl       time.Duration // when it was issued; zero: it does not expire
	expires   time.Time     // meaningful with a ttl
	renewable bool
}

func newLifetime(ttl time.Duration, renewable bool, now time.Time) lifetime {
	return lifetime{known: true, ttl: ttl, expires: now.Add(ttl), renewable: renewable}
}

// expired is false for a token of unknown lifetime.
func (l lifetime) expired(now time.Time) bool { return l.known && l.ttl > 0 && !now.Before(l.expires) }

// client returns the client for r.
func (s *session) client(r request) *api.Client {
	if r.self {
		return s.self
	}
	return s.secrets
}

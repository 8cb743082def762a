// Package credentials knows where a provider's client credentials lie and hands
// them to the flows: through one cache, from the backend that the provider's row
// names, and never from another.
package credentials

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The last segments of the two keys of a provider.
const (
	ClientIDKey     = "client_id"
	ClientSecretKey = "client_secret"
)

// Internal names the backend that keeps values, sealed, in the broker's database.
const Internal = "internal"

// Pair is a provider's client credentials. ClientSecret is zero for a public
// client; both may be zero for a provider that is not OAuth.
type Pair struct {
	ClientID     secret.Value
	ClientSecret secret.Value
}

// Equal reports whether both pairs hold the same values.
func (p Pair) Equal(q Pair) bool {
	return p.ClientID.Equal(q.ClientID) && p.ClientSecret.Equal(q.ClientSecret)
}

// State is what is known of a provider's stored pair.
type State string

// The states of a stored pair, as the HTTP API shows them.
const (
	Ready      State = "ready"      // written in full, or seen in full
	Incomplete State = "incomplete" // a write was cut off between the two values
	Missing    State = "missing"    // the backend has no value at one of the keys
	Unknown    State = "unknown"    // not looked at
)

// Ref is what a provider's row says of its credentials. The zero Ref means that
// the provider has none.
type Ref struct {
	// ProviderID is the provider whose row this is, uuid.Nil where that is not known.
	// Caches tell by it a provider from an earlier one of the same name.
	ProviderID uuid.UUID
	// Backend names the backend that holds the pair, as in SECRET_BACKEND.
	Backend string
	// Key is what both keys begin with: "<provider name>" or "id.<uuid>"; "" for
	// references.
	Key string
	// ClientIDReference and ClientSecretReference say, in the written form of a
	// secret.Reference, where else the values lie; both "" for a pair under Key. Such a
	// pair is never Managed: nothing is written or deleted there.
	ClientIDReference, ClientSecretReference string
	// Managed: the broker wrote the pair, and deletes it with the provider. Else
	// somebody else put it there and the broker only reads.
	Managed bool
	// Public: a client without a secret (auth_header "none"); only client_id exists.
	Public bool
	// Optional: the provider's type needs no credentials; a missing value is no error.
	Optional bool
	// State is what is known of the pair.
	State State
	// Generation counts the changes made through the API. Caches use it to notice
	// changes that another replica made.
	Generation int64
}

// IsZero reports whether the provider has no credentials.
func (r Ref) IsZero() bool { return r.Backend == "" }

// Referenced reports whether the values lie where references say.
func (r Ref) Referenced() bool { return r.ClientIDReference != "" || r.ClientSecretReference != "" }

// Where names what the row points to, in logs and errors: the key, or the references.
func (r Ref) Where() string {
	if !r.Referenced() {
		return r.Key
	}
	return strings.Join(r.References(), " and ")
}

// References returns the references that there are, that of the client id first.
func (r Ref) References() []string {
	return slices.DeleteFunc([]string{r.ClientIDReference, r.ClientSecretReference}, func(s string) bool { return s == "" })
}

// ClientIDAt returns the key of the client id.
func (r Ref) ClientIDAt() string { return r.Key + "/" + ClientIDKey }

// ClientSecretAt returns the key of the client secret.
func (r Ref) ClientSecretAt() string { return r.Key + "/" + ClientSecretKey }

// Keys returns the keys that hold the pair, one for a public client and else two. Of
// references there are none.
func (r Ref) Keys() []string {
	if r.Public {
		return []string{r.ClientIDAt()}
	}
	return []string{r.ClientIDAt(), r.ClientSecretAt()}
}

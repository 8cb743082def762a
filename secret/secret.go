// Package secret defines what nexus-broker needs of a secret manager: three
// methods, a key grammar, limits and five error sentinels.
//
// A backend for another store can be written from the comments of this package
// alone and proved with [github.com/nexus-broker/nexus-broker/secret/secrettest].
// The package depends on the standard library only.
package secret

import "context"

// SecretBackend stores short secrets under slash-separated keys.
//
// Keys and values have the same limits in every backend ([CheckKey],
// [CheckValue]); an implementation checks them before it touches the network,
// so that what one backend accepts every other accepts.
//
// Every method is safe for concurrent use and honours ctx: cancellation or a
// deadline ends the call promptly with an error wrapping ctx.Err().
//
// Every other error wraps exactly one of [ErrNotFound], [ErrDenied],
// [ErrUnavailable], [ErrThrottled] and [ErrInvalid]. Its message names the
// backend, the operation and the key, and says what a person should do. It never
// contains a value, a login token, or anything derived from one.
type SecretBackend interface { //nolint:revive // the contract's published name; "secret.Backend" would be a different one
	// Get returns the value last stored under key, byte for byte.
	//
	// A missing key is an error wrapping ErrNotFound. An outage, a denial or an
	// answer that is not the store's never looks like a missing key.
	Get(ctx context.Context, key string) (string, error)

	// Set creates the key or replaces its value. When Set returns nil, a following
	// Get through the same backend sees the value. An empty value cannot be stored
	// (ErrInvalid). When Set returns an error the old value or the new one is
	// stored, never a mixture.
	Set(ctx context.Context, key, value string) error

	// Delete removes the key and every version of its value that the store keeps.
	// It is idempotent: deleting a missing key is nil. After Delete, Get is
	// ErrNotFound and Set works again at once, also where the store keeps deleted
	// names in a recovery window.
	Delete(ctx context.Context, key string) error
}

// OwnedBackend is implemented by backends that can store, in one step with a
// value, who wrote it. The broker uses it never to overwrite or delete what it
// did not write. A backend without it works too, with a read before each write
// instead of an atomic create.
//
// An owner is an opaque string of 1 to 200 bytes of the characters of a key,
// "/" included. The limits and errors of SecretBackend apply.
type OwnedBackend interface {
	SecretBackend

	// Read is Get that also returns what the store knows of the value.
	Read(ctx context.Context, key string) (Item, error)

	// Create stores value, marked as owner's, if and only if key holds no value;
	// else it changes nothing and returns an error wrapping ErrExists (and none of
	// the other sentinels). Of several concurrent Creates of one key exactly one
	// succeeds where the store offers a compare-and-set; a backend whose store does
	// not, says so in its documentation. It returns the version written.
	Create(ctx context.Context, key, value, owner string) (version string, err error)

	// Replace is Set that marks the value as owner's and returns the version written.
	// With an ifVersion other than "" it replaces that version only: if key holds
	// another one, or no value, it changes nothing and returns an error wrapping
	// ErrChanged (and none of the other sentinels). Of several concurrent Replaces of
	// one version exactly one succeeds, so that a write that was given up, and arrives
	// late, cannot hit a newer value. A store may begin to count anew after a Delete;
	// a backend that keeps no versions has no ifVersion but "".
	Replace(ctx context.Context, key, value, owner, ifVersion string) (version string, err error)
}

// Item is a stored value with what the store knows of it.
type Item struct {
	Value Value
	// Version is the store's name for this version of the value, "" where it keeps none.
	Version string
	// Owner is what Create or Replace was given, "" for a value stored by Set or by
	// somebody else.
	Owner string
}

// VersionRemover is implemented by an OwnedBackend that can take back a single write.
// The broker uses it to undo a Create, without a loss of what somebody else has kept
// at the key: older versions that can be undeleted, or a newer value.
type VersionRemover interface {
	// RemoveVersion removes, for good, the version that a Create or Replace of key has
	// returned, and no other one. If it was the newest, Get is ErrNotFound then and
	// Create works again at once; an older value does not come back by itself. If it was
	// the only one that the key ever had, the key goes with it. It is idempotent: a
	// version that is not there is nil. The limits and errors of SecretBackend apply;
	// a version that no call can have returned is ErrInvalid.
	RemoveVersion(ctx context.Context, key, version string) error
}

// RemnantRemover is implemented by an OwnedBackend whose store takes more than one step
// for a Create: one that was cut off can leave something at the key that is no value.
// Read and Get say ErrNotFound of it. The broker uses it so that nothing is left of a
// registration that nobody finished.
type RemnantRemover interface {
	// RemoveRemnant removes what a Create that was cut off has left at key, if key holds
	// no value and mine accepts the owner that the Create was for; removed reports
	// whether there was such a thing. Afterwards Create works again at once. What somebody
	// else has made, and what mine does not accept, stays, and is no error; neither is a
	// key that holds a value or nothing. What the store keeps of a key that was deleted
	// before, so that it can be undeleted, it keeps. mine may be called more than once.
	// The limits and errors of SecretBackend apply.
	RemoveRemnant(ctx context.Context, key string, mine func(owner string) bool) (removed bool, err error)
}

// Locator is implemented by backends that can tell a person where a key lies,
// for example "secret/nexus/providers/google/client_id". The key's last segments
// may be left out: Locate("google") is the place of a provider's credentials.
type Locator interface {
	Locate(key string) string
}

// Prober is implemented by backends that can check, without writing anything,
// that they are reachable, logged in and permitted to work. Probe returns nil,
// or an error wrapping the sentinel that a call would meet. A login that was
// refused and a token that is not valid wrap [ErrLogin] as well as ErrDenied.
type Prober interface {
	Probe(ctx context.Context, need Access) error
}

// Access is what a broker needs to be allowed to do below the backend's prefix.
type Access int

// The levels of Access.
const (
	ReadOnly  Access = iota // read
	ReadWrite               // create, read, update, delete
)

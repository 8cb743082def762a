package broker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// The errors of a Store that a caller can act on, tested with errors.Is. Any other
// error is the database's and never means that a row is missing.
var (
	ErrNoRow         = errors.New("no such row")
	ErrDuplicateName = errors.New("a provider with this name exists")
	// ErrNoProvider: the connection's provider is not visible.
	ErrNoProvider = errors.New("the provider has been deleted")
	// ErrRevoked: the connection has been revoked.
	ErrRevoked = errors.New("the connection has been revoked")
	// ErrBusy: another operation on this provider or connection is under way.
	ErrBusy = errors.New("another operation is under way")
	// ErrInterrupted is an ErrBusy: an update was cut off that may have torn the pair, and
	// nobody has looked at it yet.
	ErrInterrupted = fmt.Errorf("an update of the credentials was cut off: %w", ErrBusy)
	// ErrLostOp: the operation's lease ran out and somebody else took the provider over.
	ErrLostOp = errors.New("the operation lost its lease on the provider")
	// ErrStale: the row is no longer what the caller read.
	ErrStale = errors.New("the row has changed since it was read")
	// ErrUnstorable: a text holds a NUL byte, is not UTF-8 or is longer than its column,
	// or an object is no valid JSON. It is the caller's input that is wrong.
	ErrUnstorable = errors.New("the database cannot hold this text")
	// ErrDatabaseDown: the database did not answer, or not in time, or takes nothing now, as
	// a full disk: the same call may succeed later. What was asked for may have been done
	// all the same, if the answer was lost.
	ErrDatabaseDown = errors.New("the database is not available")
	// ErrReadOnly: the database answers and takes no writes: it is a standby, or its file is
	// write-protected. Nothing can leave the broker then, since nothing can be audited. It comes
	// with ErrDatabaseDown.
	ErrReadOnly = fmt.Errorf("the database is read-only: %w", ErrDatabaseDown)
)

// Store keeps the broker's rows. Each method is one transaction: when it returns
// an error nothing has changed, the audit events it was given included; when it
// returns nil everything is durable. Every method is safe for concurrent use, by
// several processes too, and honours ctx.
//
// A provider's credentials.Ref is returned with the provider's id in it.
//
// A provider is visible when it is published and not deleted. Times are UTC with
// microseconds, and the caller's. What is agreed between replicas has none: their clocks
// may differ by minutes, so one clock decides, the database's. An operation, a cleanup
// and a lease last for a duration, to the microsecond, from when the store notes it; with
// zero or less it has run out at once.
//
// What a caller chose and the database cannot hold is refused with ErrUnstorable. In
// what is only recorded (audit events, health messages, errors of cleanups) such
// characters are replaced instead, and an address that is none is left out: a strange
// user agent must not keep a token from its owner.
type Store interface {
	ProviderStore
	ConnectionStore
	RefreshStore
	UpgradeStore
	MoveStore
	audit.Recorder

	// AuditEvents gives the events that f selects, newest first.
	AuditEvents(ctx context.Context, f audit.Filter) Listing[audit.Event]
	// PruneAudit deletes at most limit events older than before and returns how many.
	PruneAudit(ctx context.Context, before time.Time, limit int) (int, error)
	// Lease gives the named lease to holder for ttl, if nobody else holds it. Calling it
	// again renews it.
	Lease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error)
	// Ping checks that the database answers and can be written to. ErrReadOnly.
	Ping(ctx context.Context) error
	// Close releases the connections.
	Close() error
}

// Op is a claim on a provider's row by one operation that spans the database and
// a secret backend. It ends by the method that publishes its result, or runs out: then
// the next operation or the sweep may take over.
type Op struct {
	ID   uuid.UUID
	Kind OpKind
	// TTL is how long the claim lasts that ReserveProvider, BeginOp or KeepOp notes. Of an
	// operation that the store returns it is zero.
	TTL time.Duration

	made time.Time // by newOp, for left
}

// OpKind names what an operation does.
type OpKind string

// The kinds of operations.
const (
	OpRegister OpKind = "register"
	OpUpdate   OpKind = "update"
	OpDelete   OpKind = "delete"
	OpRepair   OpKind = "repair" // the sweep
	OpMove     OpKind = "move"   // between backends, and what that has left behind
)

// Page selects a part of a listing: the rows that follow After in the order of
// the listing, at most Limit of them. Zero fields mean from the start and all. Nothing
// follows an After that does not exist.
type Page struct {
	After uuid.UUID
	Limit int
}

// Listing gives rows one by one as the database sends them, as they were at one moment;
// an error is its last element. It holds a connection to the database until it ends: what
// goes through it does nothing slow, and calls no store.
type Listing[T any] = iter.Seq2[T, error]

// All returns the rows of a listing.
func All[T any](l Listing[T]) ([]T, error) {
	var rows []T
	for row, err := range l {
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// Cleanup is a pair of credentials to be deleted from a backend: what a deletion,
// a rename or an interrupted operation leaves behind.
type Cleanup struct {
	ID      uuid.UUID
	Backend string
	Key     string // as in credentials.Ref
	// ProviderID and Generation fence the deletion: only values that carry the mark of
	// this provider, of this generation or an earlier one, are proven to be meant.
	ProviderID uuid.UUID
	Generation int64
	// Published: the provider had been published with this pair, so a value without
	// any mark (a person has rotated it) is deleted too.
	Published bool
	// Kept: it is never due, but waits for a person ("secrets scrub"): a move to another
	// backend has left the pair behind. Whoever wants the place takes it over like any
	// other, and it is due once its provider is deleted.
	Kept bool
	// Wait is how long after it was stored a cleanup is due that is not kept, and Claim how
	// long it is claimed then by whoever stores it; zero: nobody has. Of a cleanup that the
	// store returns both are zero.
	Wait, Claim time.Duration
	Attempts    int
	LastError   string
	CreatedAt   time.Time
}

// ProviderStore keeps the providers.
type ProviderStore interface {
	// ReserveProvider inserts p as a reservation under op: it holds the name and is
	// not visible. ErrDuplicateName if a reservation or a provider that is not deleted
	// has the name.
	ReserveProvider(ctx context.Context, p Provider, op Op) error
	// PublishProvider makes the reservation visible, with the profile, credentials and
	// times of p. ErrLostOp if op no longer holds it.
	PublishProvider(ctx context.Context, p Provider, op Op, events ...audit.Event) error
	// AbandonProvider deletes the reservation for good. Not an error if it is gone.
	AbandonProvider(ctx context.Context, id uuid.UUID, op Op) error

	// Provider returns a published provider, also a deleted one. ErrNoRow.
	Provider(ctx context.Context, id uuid.UUID) (Provider, error)
	// ProvidersByName returns the visible providers whose name is name without regard
	// to case.
	ProvidersByName(ctx context.Context, name string) ([]Provider, error)
	// Providers gives the visible providers, newest first.
	Providers(ctx context.Context, page Page) Listing[Provider]

	// BeginOp claims a visible provider for op and returns it as it was just before;
	// for OpRepair also a deleted one or a reservation, which stays one. ErrNoRow;
	// ErrBusy while another operation's claim lasts; ErrInterrupted, but for OpRepair and
	// OpDelete, if one has run out and the credentials are Incomplete: what follows would
	// hide which of the values it has written. If incomplete, the credentials state becomes
	// Incomplete in the same step (the provider returned still has the old one), so that a
	// crash from here on shows.
	BeginOp(ctx context.Context, id uuid.UUID, op Op, incomplete bool) (Provider, error)
	// UpdateProvider stores the profile, credentials and times of p and ends op. The
	// pair at the old place may be handed over to cleanups, and cleanups that are not
	// needed any more be dropped, in the same step. ErrLostOp, ErrDuplicateName.
	UpdateProvider(ctx context.Context, p Provider, op Op, add []Cleanup, drop []uuid.UUID, events ...audit.Event) error
	// DeleteProvider marks the provider deleted at p.DeletedAt with p's credentials,
	// which frees its name, and ends op. Cleanups are added and dropped as in
	// UpdateProvider, and what moves of the provider have left behind becomes due.
	// ErrLostOp.
	DeleteProvider(ctx context.Context, p Provider, op Op, add []Cleanup, drop []uuid.UUID, events ...audit.Event) error
	// KeepOp makes a claim last for op.TTL from now on, also one that has run out and that
	// nobody has taken over. It waits for whatever is still being committed on the row, so
	// that ErrLostOp is final.
	KeepOp(ctx context.Context, id uuid.UUID, op Op) error
	// EndOp gives the claim back and sets the credentials' state and generation. Not an
	// error if the claim is lost.
	EndOp(ctx context.Context, id uuid.UUID, op Op, state credentials.State, generation int64) error

	// SetHealth stores what a flow learned. Not an error if the provider is gone.
	SetHealth(ctx context.Context, id uuid.UUID, h Health) error
	// SetCredentialsState stores what a flow learned, unless an operation holds the
	// provider or its generation is another by now.
	SetCredentialsState(ctx context.Context, id uuid.UUID, generation int64, s credentials.State) error

	// ExpiredOps returns providers and reservations whose operation has run out, with that
	// operation, at most limit, the longest past first.
	ExpiredOps(ctx context.Context, limit int) ([]ExpiredOp, error)
	// Orphans returns deleted providers that still have managed credentials in the
	// named backend and no connection that is active.
	Orphans(ctx context.Context, backend string, limit int) ([]Provider, error)
	// DetachCredentials clears the credentials of an orphan's row and hands the pair
	// over to c in the same step. ErrStale if it is no orphan any more.
	DetachCredentials(ctx context.Context, id uuid.UUID, c Cleanup) error

	// AddCleanups stores cleanups.
	AddCleanups(ctx context.Context, cleanups ...Cleanup) error
	// ClaimCleanups claims at most limit cleanups that are due and that nobody has
	// claimed, for ttl.
	ClaimCleanups(ctx context.Context, ttl time.Duration, limit int) ([]Cleanup, error)
	// ClaimCleanupsAt claims every cleanup pending for one place, due or not, for ttl.
	// ErrBusy, claiming none, if somebody else has claimed one of them.
	ClaimCleanupsAt(ctx context.Context, backend, key string, ttl time.Duration) ([]Cleanup, error)
	// FinishCleanup removes the cleanup, with events. Not an error if it is gone.
	FinishCleanup(ctx context.Context, id uuid.UUID, events ...audit.Event) error
	// PostponeCleanup ends the claim and notes a failed attempt; the cleanup is due after
	// wait. Not an error if it is gone.
	PostponeCleanup(ctx context.Context, id uuid.UUID, wait time.Duration, lastError string) error
}

// ExpiredOp is an operation that did not end in time.
type ExpiredOp struct {
	Provider Provider
	Op       Op
	Reserved bool // the provider is a reservation, never published
}

// ConnectionStore keeps the connections and their tokens.
type ConnectionStore interface {
	// CreateConnection inserts a pending connection. ErrNoRow if the provider is not
	// visible.
	CreateConnection(ctx context.Context, c Connection, events ...audit.Event) error
	// Connection returns a connection. ErrNoRow.
	Connection(ctx context.Context, id uuid.UUID) (Connection, error)
	// Consent returns the connection as the consent sees it whose state was issued
	// then: of a re-consent with its CodeVerifier, Scopes, ReturnURL, ExpiresAt and
	// Reconsent. If there is no such re-consent it is what Connection returns. ErrNoRow.
	Consent(ctx context.Context, id uuid.UUID, issued time.Time) (Connection, error)
	// BeginReconsent stores a new consent to the connection c.ID, which stays as it is
	// meanwhile, in place of one that was begun before. ErrRevoked; ErrNoRow if it is
	// still pending, or of another workspace or provider.
	BeginReconsent(ctx context.Context, c Connection) error
	// ClaimConsent marks the state as used that was issued then, and erases its code
	// verifier, which it returns as part of what Consent returns. ErrNoRow if the
	// connection neither is pending nor has such a re-consent, or the consent has expired
	// at now, or has been claimed already: of any number of concurrent claims one
	// succeeds. ErrNoProvider if the provider is not visible.
	ClaimConsent(ctx context.Context, id uuid.UUID, issued, now time.Time) (Connection, error)
	// ReleaseConsent undoes the claim that returned c, so that the user can try again.
	// ErrNoRow if the consent is not claimed any more.
	ReleaseConsent(ctx context.Context, c Connection) error
	// CompleteConnection stores the token of the consent c and makes its connection
	// active, of a re-consent with the scopes and return URL of c. ErrNoRow if the consent
	// has ended: the connection is not pending any more, or the re-consent is gone. A
	// consent that was not claimed is claimed in the same step, and that fails as in
	// ClaimConsent.
	CompleteConnection(ctx context.Context, c Connection, t StoredToken, now time.Time, events ...audit.Event) error
	// FailConsent ends the consent c: a pending connection becomes failed; of a
	// re-consent the connection stays as it is. ErrStale if it has ended already.
	FailConsent(ctx context.Context, c Connection, now time.Time, events ...audit.Event) error
	// Connections gives the connections of a workspace that are not pending, newest
	// first.
	Connections(ctx context.Context, workspaceID string, page Page) Listing[ConnectionSummary]
	// RevokeConnection makes a connection revoked, deletes its token and its re-consent
	// for good, and returns the token. Of a connection that was revoked before and has no
	// token it only returns what it finds, and records nothing. ErrNoRow, also if
	// workspaceID is not "" and another one's.
	RevokeConnection(ctx context.Context, id uuid.UUID, workspaceID, reason string, now time.Time, event audit.Event) (RevokedConnection, error)
	// SetStatus moves a connection from one status to another. ErrStale if it is not
	// in the first.
	SetStatus(ctx context.Context, id uuid.UUID, from, to ConnectionStatus, now time.Time, events ...audit.Event) error

	// ReadToken returns what handing out the token needs. If the connection is active
	// and has a token, e is durable when it returns; else e is not recorded. ErrNoRow.
	ReadToken(ctx context.Context, id uuid.UUID, e audit.Event) (TokenView, error)
	// Token returns the same without recording anything.
	Token(ctx context.Context, id uuid.UUID) (TokenView, error)
	// ReplaceToken stores t if the sealed token is still old. ErrStale if it is
	// another one, or the connection is not active.
	ReplaceToken(ctx context.Context, id uuid.UUID, old string, t StoredToken, now time.Time, events ...audit.Event) error
	// Attention moves an active connection to attention if its sealed token is still
	// old. ErrStale else.
	Attention(ctx context.Context, id uuid.UUID, old string, now time.Time, events ...audit.Event) error
}

// RefreshLease is the right to ask the provider for a new token of a connection.
type RefreshLease struct {
	ConnectionID uuid.UUID
	Version      int64 // grows with every lease on the connection; fences the ones before
}

// RefreshState is what is known of the refreshes of a connection.
type RefreshState struct {
	Version int64 // of the newest lease; 0: there was none
	Held    bool  // the newest lease is in force
	Lapsed  bool  // the newest lease has run out and was not given back
	Ended   int64 // the newest lease that was given back
	Outcome string
}

// RefreshSeen is what a replica has seen before it claims a refresh.
type RefreshSeen struct {
	Sealed string // the token
	Ended  int64  // as in RefreshState
	Lapsed int64  // the version of a lease that may be taken over; 0: none
}

// RefreshStore keeps the leases on refreshes.
type RefreshStore interface {
	// ClaimRefresh gives the lease on a connection's refresh for ttl. The connection is
	// read in the same step: ErrStale if it is not active or its sealed token is not the
	// one that was seen. ErrBusy while somebody else's lease is in force, and also when it
	// has run out, unless it is seen.Lapsed; and if a refresh has ended since seen.Ended.
	// The lease returned then has the version of the one that is in the way, or has ended.
	ClaimRefresh(ctx context.Context, id uuid.UUID, seen RefreshSeen, ttl time.Duration) (RefreshLease, error)
	// KeepRefresh prolongs a lease by ttl from now on, also one that has run out and that
	// nobody has taken over. ErrStale if somebody has, or it was given back.
	KeepRefresh(ctx context.Context, l RefreshLease, ttl time.Duration) error
	// EndRefresh gives a lease back and leaves the outcome for those who wait. Not an
	// error if somebody has taken it over: then nothing changes.
	EndRefresh(ctx context.Context, l RefreshLease, outcome string) error
	// RefreshState returns what is known; zero if there never was a lease.
	RefreshState(ctx context.Context, id uuid.UUID) (RefreshState, error)
}

package broker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// ErrFinished: plaintext cannot be stored, since the upgrade of the database is finished,
// or there never was one.
var ErrFinished = errors.New("the upgrade of the database is finished: nothing is stored in plaintext any more")

// UpgradeStore is what a database needs that the existing broker uses too, because its
// upgrade is not finished. Provider and the others that return providers give a pair that
// lies in the row as PairInRow does; UpdateProvider leaves it there if p.Credentials says that
// it is in the row, and empties the row of it in the same statement if not.
// CreateConnection and ReleaseConsent return ErrFinished for a code verifier that is not sealed.
type UpgradeStore interface {
	// Unfinished reports whether the existing broker may use the database too.
	Unfinished(ctx context.Context) (bool, error)
	// InsertProviderInRow inserts p, visible, with its pair in the row: for another program
	// there is no moment at which it is half there. ErrDuplicateName, ErrFinished.
	InsertProviderInRow(ctx context.Context, p Provider, pair credentials.Pair, events ...audit.Event) error
	// UpdateProviderInRow is UpdateProvider that also puts the pair into the row. ErrFinished.
	UpdateProviderInRow(ctx context.Context, p Provider, op Op, pair credentials.Pair, add []Cleanup, events ...audit.Event) error
}

// PairInRow returns what the row of p says of credentials that lie in the row.
func PairInRow(p Provider) credentials.Ref {
	return credentials.Ref{
		ProviderID: p.ID, Backend: credentials.Internal, Key: credentials.InRowKey(p.ID), Managed: true,
		Public: p.Profile.public(), Optional: p.Profile.AuthType != AuthOAuth2,
		State: p.Credentials.State, Generation: p.Credentials.Generation,
	}
}

// KeyFor returns what both keys of a provider's pair begin with: its name where that is a
// legal segment, else its id.
func KeyFor(name string, id uuid.UUID) string { return keyFor(name, id) }

// finishedEvery is how often the database is asked whether its upgrade has been finished
// meanwhile. What is written in the old form until then does no harm: the database refuses
// plaintext once it is finished, and tokens of both formats open.
const finishedEvery = 5 * time.Second

// upgrade is what is known of the upgrade of the database.
type upgrade struct {
	finished atomic.Bool  // for good
	asked    atomic.Int64 // when, in nanoseconds since 1970; 0: never
}

// unfinished reports whether the existing broker may use the database too. A database
// that does not answer counts as unfinished until it has said otherwise.
func (s *Service) unfinished(ctx context.Context) bool {
	if s.upgrade.finished.Load() {
		return false
	}
	now, asked := s.clock().UnixNano(), s.upgrade.asked.Load()
	if asked != 0 && now-asked >= 0 && now-asked < int64(finishedEvery) {
		return true
	}
	unfinished, err := s.store.Unfinished(ctx)
	if err != nil {
		return true
	}
	s.upgrade.asked.Store(now)
	s.upgrade.finished.Store(!unfinished)
	return unfinished
}

// learnFinished notes that the database has refused plaintext, and reports whether err
// says so.
func (s *Service) learnFinished(err error) bool {
	if !errors.Is(err, ErrFinished) {
		return false
	}
	s.upgrade.finished.Store(true)
	return true
}

// writeTarget returns where a managed pair of a provider is written to. Until the upgrade
// is finished the internal backend's place is the row, where the existing broker finds it.
func (s *Service) writeTarget(ctx context.Context, ref credentials.Ref, name string, id uuid.UUID) credentials.Ref {
	ref.Backend = s.creds.WriteTo()
	switch {
	case ref.Backend == credentials.Internal && s.unfinished(ctx):
		ref.Key = credentials.InRowKey(id)
	case ref.InRow():
		ref.Key = keyFor(name, id)
	}
	return ref
}

// registerInRow stores a provider with its pair in one statement.
func (s *Service) registerInRow(ctx context.Context, p Provider, pair credentials.Pair) error {
	event := audit.New(ctx, audit.ProviderCreated, uuid.Nil, providerData(p))
	insert := func() error { return s.store.InsertProviderInRow(ctx, p, pair, event) }
	err := insert()
	if errors.Is(err, ErrDuplicateName) {
		s.repairExpired(ctx, always)
		err = insert()
	}
	switch {
	case err == nil, s.learnFinished(err):
		return err
	case errors.Is(err, ErrDuplicateName):
		err = errNameTaken(p.Profile.Name)
	}
	// The answer may have been lost, and the row be there.
	if found, readErr := s.store.Provider(ctx, p.ID); readErr == nil && found.ID == p.ID {
		return nil
	}
	return unstorable(err, CodeProviderCreationFailed)
}

// storedVerifier returns the code verifier of a new consent as it is stored: as the
// existing broker reads it while that may have to complete the consent.
func (s *Service) storedVerifier(ctx context.Context, c Connection, verifier string) string {
	if c.Reconsent.IsZero() && s.unfinished(ctx) {
		return verifier
	}
	return s.keyring.Seal(VerifierPurpose(c.ID), []byte(verifier))
}

// withVerifier stores a consent whose verifier may be plaintext, and seals that if the
// database does not take it any more.
func (s *Service) withVerifier(c Connection, store func(Connection) error) error {
	err := store(c)
	if !s.learnFinished(err) || seal.Sealed(c.CodeVerifier) {
		return err
	}
	c.CodeVerifier = s.keyring.Seal(VerifierPurpose(c.ID), []byte(c.CodeVerifier))
	return store(c)
}

// openVerifier returns the code verifier of a consent that has been claimed. Plaintext is
// the existing broker's, and of no worth in a database that it does not use: there nothing
// binds it to the consent.
func (s *Service) openVerifier(ctx context.Context, c Connection) ([]byte, error) {
	if c.CodeVerifier != "" && !seal.Sealed(c.CodeVerifier) && c.Reconsent.IsZero() && s.unfinished(ctx) {
		return []byte(c.CodeVerifier), nil
	}
	return s.keyring.Open(VerifierPurpose(c.ID), c.CodeVerifier)
}

// sealed returns a token as it is stored.
func (s *Service) sealed(ctx context.Context, id uuid.UUID, plain []byte) string {
	if s.unfinished(ctx) {
		return s.keyring.SealAsBefore(plain)
	}
	return s.keyring.Seal(TokenPurpose(id), plain)
}

package broker

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

// ReplaceProvider stores in as the whole profile. Credentials that it leaves out are
// kept on an external backend and missed on the internal one, as on registration.
func (s *Service) ReplaceProvider(ctx context.Context, id uuid.UUID, in ProfileInput) error {
	return s.update(ctx, id, in, false)
}

// PatchProvider changes the members that in has; null clears.
func (s *Service) PatchProvider(ctx context.Context, id uuid.UUID, in ProfileInput) error {
	return s.update(ctx, id, in, true)
}

func (s *Service) update(ctx context.Context, id uuid.UUID, in ProfileInput, patch bool) error {
	g, err := in.credentials()
	if err != nil {
		return err
	}
	ctx, cancel := s.opContext(ctx)
	defer cancel()
	for tries := 1; ; tries++ {
		before, err := s.visible(ctx, id)
		if err != nil {
			return err
		}
		c, err := s.planUpdate(ctx, before, in, g, patch)
		if err != nil {
			return err
		}
		current, op, err := s.begin(ctx, id, OpUpdate, c.writesBoth())
		if err != nil {
			return err
		}
		if changedSince(before, current) { // somebody was faster: plan again
			s.end(ctx, id, op, current.Credentials.State, current.Credentials.Generation)
			continue
		}
		err = s.carryOut(ctx, c, op)
		if !errors.Is(err, credentials.ErrChanged) && !errors.Is(err, ErrFinished) {
			return err
		}
		if tries == maxPlans { // somebody keeps writing in the vault itself
			return errBusy(err)
		}
	}
}

// maxPlans is how often an update is planned anew because the stored pair has changed
// since it was read.
const maxPlans = 3

func changedSince(a, b Provider) bool {
	return !a.UpdatedAt.Equal(b.UpdatedAt) || a.Credentials.Generation != b.Credentials.Generation
}

// visible returns a provider that is published and not deleted.
func (s *Service) visible(ctx context.Context, id uuid.UUID) (Provider, error) {
	p, err := s.store.Provider(ctx, id)
	if errors.Is(err, ErrNoRow) || err == nil && p.Deleted() {
		return p, fail(CodeProviderNotFound, "no provider has this id")
	}
	return p, err
}

// carryOut writes what has been planned, under a claim on the row: the credentials
// first, then the row. If a step fails the ones before it are undone, unless nobody can
// tell whether the row has been switched: then the sweep sees to it.
func (s *Service) carryOut(ctx context.Context, c change, op Op) error {
	step, err := s.writeCredentials(ctx, &c, op)
	if err != nil {
		s.endWith(ctx, c.before.ID, op, step)
		return err
	}
	event := audit.New(ctx, audit.ProviderUpdated, uuid.Nil, providerData(c.after))
	if c.after.Credentials.InRow() && c.writes() {
		err = s.store.UpdateProviderInRow(ctx, c.after, op, c.want, step.add, event)
	} else {
		err = s.store.UpdateProvider(ctx, c.after, op, step.add, step.drop, event)
	}
	if err != nil {
		s.learnFinished(err)
		switch s.fateOf(ctx, c.before.ID, op, c.took) {
		case happened:
			err = nil
		case notHappened:
			s.takeBack(ctx, c.before.ID, op, step)
		}
	}
	switch {
	case errors.Is(err, ErrDuplicateName):
		return errNameTaken(c.after.Profile.Name)
	case err != nil:
		return unstorable(err, CodeProviderCreationFailed)
	}
	if c.leavesPlace() { // else what is in memory may still have to bridge an outage
		s.creds.Forget(c.before.Credentials)
	}
	for _, left := range step.add {
		s.cleanUpNow(ctx, left)
	}
	return nil
}

// takeBack undoes a step under the claim that has just been prolonged for it.
func (s *Service) takeBack(ctx context.Context, id uuid.UUID, op Op, done step) {
	ctx, cancel := s.opContext(ctx)
	defer cancel()
	if done.undo != nil {
		done.state, done.generation = done.undo(ctx)
		done.doubtful = done.doubtful && done.state == credentials.Incomplete
	}
	s.endWith(ctx, id, op, done)
}

// endWith gives the claim back after a change that failed. A pair that may not fit
// together is the sweep's to look at, once the store answers: the row says that it is
// incomplete, and the claim has run out, so that whoever comes to repair it need not wait.
func (s *Service) endWith(ctx context.Context, id uuid.UUID, op Op, done step) {
	if !done.doubtful {
		s.end(ctx, id, op, done.state, done.generation)
		return
	}
	s.endAsExpired(ctx, id, op)
}

// leavesPlace reports whether the row points to something else than before: another
// place, other references, another generation of the pair, or another part of it.
func (c change) leavesPlace() bool {
	before, after := c.before.Credentials, c.after.Credentials
	before.State, after.State = "", "" // what is known of the pair does not change it
	return before != after
}

// took reports whether the row is as the change wants it.
func (c change) took(p Provider) bool {
	return p.UpdatedAt.Equal(c.after.UpdatedAt) && p.Credentials.Generation == c.after.Credentials.Generation
}

// step is what writing the credentials of a change has come to.
type step struct {
	// state and generation are what the row shall say if the update ends here.
	state      credentials.State
	generation int64
	// doubtful: of the two values either or both may be the new ones. The marks tell.
	doubtful bool
	// undo takes the writing back and returns the state and generation after it.
	undo func(context.Context) (credentials.State, int64)
	// add and drop are the notes of places to clean that the row's switch changes.
	add  []Cleanup
	drop []uuid.UUID
}

func (s *Service) writeCredentials(ctx context.Context, c *change, op Op) (step, error) {
	before, after := c.before.Credentials, c.after.Credentials
	unchanged := step{state: before.State, generation: before.Generation}
	switch {
	case after == before, after.IsZero():
		return unchanged, nil
	case after.InRow(): // with the row, in one statement
		if before.Managed && !before.InRow() {
			unchanged.add = []Cleanup{s.cleanupOf(c.before.ID, before, true, s.cleanupTime())}
		}
		return unchanged, nil
	case !after.Managed:
		if c.moves() {
			if err := s.takeOver(ctx, after, op); err != nil {
				return unchanged, err
			}
		}
		if before.Managed && !before.InRow() { // references replace it
			unchanged.add = []Cleanup{s.cleanupOf(c.before.ID, before, true, s.cleanupTime())}
		}
		return unchanged, s.checkReadable(ctx, *c)
	case !c.writes():
		return unchanged, nil
	case c.moves():
		return s.movePair(ctx, c, op)
	}
	return s.replacePair(ctx, *c)
}

// checkReadable: credentials that the broker only reads are where the row will
// point to.
func (s *Service) checkReadable(ctx context.Context, c change) error {
	ref := c.after.Credentials
	_, err := s.creds.Read(ctx, ref)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, secret.ErrNotFound) && c.renames():
		return s.errNotThereYet(c.before.Credentials, ref)
	}
	return s.secretError(ref, CodeCredentialsNotFoundAtRegistration, err)
}

// replacePair writes the values that differ in place.
func (s *Service) replacePair(ctx context.Context, c change) (step, error) {
	before, ref := c.before.Credentials, c.after.Credentials
	owner := ownerOf(c.before.ID, ref.Generation)
	// Both places are meant, unless the client was public and stays so.
	ref.Public = before.Public && ref.Public
	done := step{state: before.State, generation: ref.Generation}
	if c.anew {
		done.state = credentials.Incomplete
		if err := s.creds.Erase(ctx, ref.Backend, ref.Key, owner, true); err != nil {
			return done, s.secretError(ref, CodeCredentialsNotFoundAtFlow, err)
		}
		done.undo = func(context.Context) (credentials.State, int64) { return credentials.Incomplete, ref.Generation }
		return done, s.createPair(ctx, c.before.ID, ref, c.want)
	}
	if err := s.creds.Replace(ctx, ref, owner, c.old, c.want); err != nil {
		if errors.Is(err, credentials.ErrTorn) {
			done.state, done.doubtful = credentials.Incomplete, c.writesBoth()
		} else if errors.Is(err, credentials.ErrChanged) {
			return done, err
		}
		return done, s.secretError(ref, CodeCredentialsNotFoundAtFlow, err)
	}
	done.doubtful = c.writesBoth()
	done.undo = func(ctx context.Context) (credentials.State, int64) {
		// With the old generation's mark: if this is cut off too, the marks tell.
		if err := s.creds.Replace(ctx, ref, ownerOf(c.before.ID, before.Generation), c.want, c.old); err != nil {
			return credentials.Incomplete, ref.Generation
		}
		return before.State, ref.Generation
	}
	return done, nil
}

// movePair copies the pair to its new place. The copy is noted for deletion before
// it is made, and the switch of the row drops that note and hands the old place
// over instead: whichever of the two the row names, the other goes.
func (s *Service) movePair(ctx context.Context, c *change, op Op) (step, error) {
	before := c.before.Credentials
	done := step{state: before.State, generation: before.Generation}
	note, err := s.copyPair(ctx, c.before.ID, c.after.Credentials, op, c.want)
	if own := idKey(c.before.ID); CodeOf(err) == CodeCredentialsExist && before.Key != own &&
		c.after.Credentials.Backend == credentials.Internal {
		// In the broker's own database a place that is taken is not the caller's business.
		c.after.Credentials.Key = own
		note, err = s.copyPair(ctx, c.before.ID, c.after.Credentials, op, c.want)
	}
	if err != nil {
		return done, err
	}
	done.drop = []uuid.UUID{note.ID}
	if before.Managed && !before.InRow() { // else nothing of the broker's is left behind
		done.add = []Cleanup{s.cleanupOf(c.before.ID, before, true, s.cleanupTime())}
	}
	done.undo = func(ctx context.Context) (credentials.State, int64) {
		s.cleanUpNow(ctx, note)
		return before.State, before.Generation
	}
	return done, nil
}

// copyPair writes a pair to a place that must be free, noting it for deletion first.
func (s *Service) copyPair(ctx context.Context, id uuid.UUID, ref credentials.Ref, op Op, pair credentials.Pair) (Cleanup, error) {
	if err := s.takeOver(ctx, ref, op); err != nil {
		return Cleanup{}, err
	}
	note := s.cleanupOf(id, ref, false, op.left())
	if err := s.store.AddCleanups(ctx, note); err != nil {
		return note, err
	}
	err := s.createPair(ctx, id, ref, pair)
	if err != nil {
		s.cleanUpNow(ctx, note)
	}
	return note, err
}

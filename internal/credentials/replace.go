package credentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Replace changes the stored pair of ref from old, which the caller has just read,
// to new. Only what differs is touched: a value is written with the mark of owner,
// one that is zero in new is deleted, one that is zero in old must not exist. Equal
// pairs cost no call.
//
// The pair is read once more, and only the versions that were read are replaced:
// if it is not old any more the error wraps ErrChanged, and nothing is changed. (A
// value where old has none, and none was read, is an *ExistsError.) A store without
// versions cannot fence a write like that: there somebody else's write between the
// reading and the writing is lost.
//
// If a step fails, the old values are put back, with the mark of the generation
// before owner's, and so that a write whose answer was lost cannot take place any
// more. The old pair is then in place unless the error wraps ErrTorn too. Events that
// cannot be recorded are a failure (ErrNotAudited).
func (s *Service) Replace(ctx context.Context, ref Ref, owner Owner, old, new Pair) error {
	return s.exchange(ctx, ref, owner, old, new, false)
}

// Overwrite is Replace of a pair that may be somebody else's. Their values that are put
// back carry the mark that they had, or restoredMark if they had none: nothing takes them
// for the broker's afterwards. (Not a place without a mark: a store writes over the version
// that was read only with one.)
func (s *Service) Overwrite(ctx context.Context, ref Ref, owner Owner, old, new Pair) error {
	return s.exchange(ctx, ref, owner, old, new, true)
}

func (s *Service) exchange(ctx context.Context, ref Ref, owner Owner, old, new Pair, theirs bool) error {
	src, err := s.writable(ref.Backend, ref.Key)
	if err != nil {
		return err
	}
	changes := ref.changes(old, new)
	if err := checkChanges(changes); err != nil || len(changes) == 0 {
		return err
	}
	if err := s.readVersions(ctx, src, ref, old, changes); err != nil {
		return err
	}
	for i := range changes {
		if mark, ours := ParseOwner(changes[i].readMark); theirs && !(ours && mark.ProviderID == owner.ProviderID) {
			changes[i].backMark = cmp.Or(changes[i].readMark, restoredMark)
		}
	}
	defer s.Forget(ref)
	var t trail
	for i := range changes {
		err := s.apply(ctx, src, owner, &changes[i], &t)
		switch {
		case err == nil:
		case mayHaveWritten(err):
			return s.undoReplace(ctx, src, owner, changes[:i], &changes[i], err, &t)
		default:
			return s.undoReplace(ctx, src, owner, changes[:i], nil, err, &t)
		}
	}
	if err := s.record(ctx, t); err != nil {
		return s.undoReplace(ctx, src, owner, changes, nil, err, &t)
	}
	return nil
}

// readVersions reads the pair and notes the versions of what will be changed.
func (s *Service) readVersions(ctx context.Context, src *source, ref Ref, old Pair, changes []change) error {
	ref.Public = ref.Public && len(changes) == 1 && changes[0].key == ref.ClientIDAt()
	results, err := s.readAll(ctx, src, ref.ProviderID, ref.Keys(), src.items)
	if err != nil {
		return err
	}
	if _, err := verdict(src, results); err != nil {
		return err // that a value is missing is none: it is compared like any other
	}
	for i, want := range []secret.Value{old.ClientID, old.ClientSecret}[:len(results)] {
		found := results[i]
		at := slices.IndexFunc(changes, func(c change) bool { return c.key == found.key })
		switch same := found.item.Value.Equal(want); {
		case !same && at >= 0 && want.IsZero():
			return &ExistsError{Backend: src.name, Path: src.locate(found.key)}
		case !same:
			return changedAt(src, found.key)
		case at >= 0:
			changes[at].read, changes[at].readMark = found.item.Version, found.item.Owner
		}
	}
	return nil
}

func changedAt(src *source, key string) error {
	return fmt.Errorf("%w: in %s at %s", ErrChanged, src.name, src.locate(key))
}

// apply carries out one change.
func (s *Service) apply(ctx context.Context, src *source, owner Owner, c *change, t *trail) error {
	switch {
	case c.new.IsZero():
		return s.remove(ctx, src, owner, c.key, t)
	case c.old.IsZero():
		return s.create(ctx, src, owner, c, t)
	}
	return s.replace(ctx, src, owner, c, t)
}

// replace writes the new value over the version that was read.
func (s *Service) replace(ctx context.Context, src *source, owner Owner, c *change, t *trail) error {
	version, err := src.store.Replace(ctx, c.key, c.new.Reveal(), c.markFor(owner), c.read)
	s.observe(ctx, src, owner.ProviderID, "replace", c.key, err)
	if errors.Is(err, secret.ErrChanged) {
		version, err = s.writtenBefore(ctx, src, owner, *c, changedAt(src, c.key))
	}
	if err != nil {
		return err
	}
	c.wrote = version
	t.written(ctx, src, owner, c.key, version)
	return nil
}

// undoReplace puts the old values back, the doubtful one included, and returns
// cause with what became of that.
func (s *Service) undoReplace(ctx context.Context, src *source, owner Owner, written []change, doubtful *change, cause error, t *trail) error {
	ctx, cancel := undoContext(ctx)
	defer cancel()
	var failed error
	if doubtful != nil {
		failed = s.putBack(ctx, src, owner, *doubtful, t)
	}
	for _, c := range written {
		failed = errors.Join(failed, s.putBack(ctx, src, owner, c, t))
	}
	s.recordFailed(ctx, t)
	if failed != nil {
		return fmt.Errorf("%w; %w", cause, ErrTorn)
	}
	return cause
}

// putBack undoes a change that has, or may have, taken place. What somebody else has
// written since stays, and is an error.
func (s *Service) putBack(ctx context.Context, src *source, owner Owner, c change, t *trail) error {
	if c.old.IsZero() {
		return s.takeBack(ctx, src, owner, c, t)
	}
	back := change{key: c.key, new: c.old, read: c.wrote, mark: c.backMark}
	if c.wrote == "" {
		item, err := s.look(ctx, src, owner, c.key)
		switch {
		case err != nil:
			return err
		case item.Value.IsZero() && c.new.IsZero(): // deleted
			return s.create(ctx, src, owner.previous(), &back, t)
		case !c.isNew(src, owner, item) && !item.Value.Equal(c.old):
			return changedAt(src, c.key)
		}
		// Also if the old value is still there: once it is a newer version, a write that
		// is under way over the one that was read cannot take place any more.
		back.read = item.Version
	}
	return s.replace(ctx, src, owner.previous(), &back, t)
}

package credentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// What is undone after a failure is undone even if the caller has given up: until
// undoGrace after the caller's deadline, or within undoMost for a caller without one.
// The grace is less than what the caller's claim on the provider outlives its
// deadline by, so that a process that was suspended undoes nothing afterwards.
// What a call is late with all the same is harmless where the store keeps versions:
// only the version that the operation has written is removed or replaced.
const (
	undoGrace = 4 * time.Second
	undoMost  = 30 * time.Second
)

// Create stores the values of p at the place of ref, marked as owner's, where no
// value may be yet; it never overwrites. Zero values are not stored.
//
// A place that holds a value is an *ExistsError, unless it is this owner's same
// value already. If Create fails, what it has written is removed again; where that
// could not be done or told the error wraps ErrLeftBehind too, and the caller has
// to see to it. Events that cannot be recorded are a failure (ErrNotAudited).
func (s *Service) Create(ctx context.Context, ref Ref, owner Owner, p Pair) error {
	src, err := s.writable(ref.Backend, ref.Key)
	if err != nil {
		return err
	}
	changes := ref.changes(Pair{}, p)
	if err := checkChanges(changes); err != nil {
		return err
	}
	defer s.Forget(ref)
	var t trail
	for i := range changes {
		if err := s.create(ctx, src, owner, &changes[i], &t); err != nil {
			return s.undoCreate(ctx, src, owner, changes[:i], changes[i], err, &t)
		}
	}
	if err := s.record(ctx, t); err != nil {
		return s.undoCreate(ctx, src, owner, changes, change{}, err, &t)
	}
	return nil
}

// undoCreate removes the written values, and the attempted one if it has been
// written after all, and returns cause with what became of that.
func (s *Service) undoCreate(ctx context.Context, src *source, owner Owner, written []change, attempted change, cause error, t *trail) error {
	ctx, cancel := undoContext(ctx)
	defer cancel()
	var left []string
	if attempted.key != "" && mayHaveWritten(cause) {
		if err := s.takeBack(ctx, src, owner, attempted, t); err != nil {
			left = append(left, src.locate(attempted.key))
		}
	}
	for _, c := range written {
		if err := s.takeBack(ctx, src, owner, c, t); err != nil {
			left = append(left, src.locate(c.key))
		}
	}
	s.recordFailed(ctx, t)
	if len(left) > 0 {
		return fmt.Errorf("%w; %w at %s", cause, ErrLeftBehind, strings.Join(left, " and "))
	}
	return cause
}

// change is what is to be done with one key: from old to new, zero meaning no value.
type change struct {
	key      string
	old, new secret.Value
	// The versions of old, as it was read, and of new, once it is written; "" where the
	// store keeps none.
	read, wrote string
	// The marks: that of old, as it was read; that of new, "" for the owner's; and that
	// which old is put back with, "" for the owner's previous one.
	readMark, mark, backMark string
}

// markFor returns what the new value is marked with.
func (c change) markFor(owner Owner) string { return cmp.Or(c.mark, owner.String()) }

// changes returns what leads from one pair to the other.
func (r Ref) changes(from, to Pair) []change {
	var cs []change
	if !from.ClientID.Equal(to.ClientID) {
		cs = append(cs, change{key: r.ClientIDAt(), old: from.ClientID, new: to.ClientID})
	}
	if !from.ClientSecret.Equal(to.ClientSecret) {
		cs = append(cs, change{key: r.ClientSecretAt(), old: from.ClientSecret, new: to.ClientSecret})
	}
	return cs
}

// checkChanges finds what cannot be stored before anything is.
func checkChanges(changes []change) error {
	for _, c := range changes {
		if err := secret.CheckKey(c.key); err != nil {
			return err
		}
		if c.new.IsZero() {
			continue
		}
		if err := secret.CheckValue(c.new.Reveal()); err != nil {
			return fmt.Errorf("the value for %s: %w", c.key, err)
		}
	}
	return nil
}

// create stores a value where none may be.
func (s *Service) create(ctx context.Context, src *source, owner Owner, c *change, t *trail) error {
	version, err := src.store.Create(ctx, c.key, c.new.Reveal(), c.markFor(owner))
	s.observe(ctx, src, owner.ProviderID, "create", c.key, err)
	if errors.Is(err, secret.ErrExists) {
		version, err = s.writtenBefore(ctx, src, owner, *c, &ExistsError{Backend: src.name, Path: src.locate(c.key)})
	}
	if err != nil {
		return err
	}
	c.wrote = version
	t.written(ctx, src, owner, c.key, version)
	return nil
}

// writtenBefore returns the version of a value that is this owner's and the wanted
// one already, because a client has repeated a request whose answer was lost; else
// refusal.
func (s *Service) writtenBefore(ctx context.Context, src *source, owner Owner, c change, refusal error) (version string, err error) {
	results, err := s.readAll(ctx, src, owner.ProviderID, []string{c.key}, src.items)
	if err != nil {
		return "", err
	}
	switch found := results[0]; {
	case found.err == nil && found.item.Owner == c.markFor(owner) && found.item.Value.Equal(c.new):
		return found.item.Version, nil
	case found.err == nil, classify(found.err) == good, classify(found.err) == denied:
		return "", refusal
	default:
		return "", found.err // nobody can tell
	}
}

func (s *Service) remove(ctx context.Context, src *source, owner Owner, key string, t *trail) error {
	err := src.store.Delete(ctx, key)
	s.observe(ctx, src, owner.ProviderID, "delete", key, err)
	if err != nil {
		return err
	}
	t.deleted(ctx, src, owner, key)
	return nil
}

// removeVersion takes back a single write, where the store can do that: other
// versions, which somebody may want to undelete, stay.
func (s *Service) removeVersion(ctx context.Context, src *source, owner Owner, key, version string, t *trail) error {
	if src.can.Versions == nil || version == "" {
		return s.remove(ctx, src, owner, key, t)
	}
	err := src.can.Versions.RemoveVersion(ctx, key, version)
	s.observe(ctx, src, owner.ProviderID, "remove_version", key, err)
	if err != nil {
		return err
	}
	t.removed(ctx, src, owner, key, version)
	return nil
}

// takeBack undoes a create. Where it is not known which version it has written, or the
// store cannot remove a single one, the value is removed if it is the create's: by its
// mark, or by being the same value where no marks are kept. Where there is no value, what
// the create has begun is.
func (s *Service) takeBack(ctx context.Context, src *source, owner Owner, c change, t *trail) error {
	if src.can.Versions != nil && c.wrote != "" {
		return s.removeVersion(ctx, src, owner, c.key, c.wrote, t)
	}
	item, err := s.look(ctx, src, owner, c.key)
	switch {
	case err != nil:
		return err
	case item.Value.IsZero():
		return s.removeRemnant(ctx, src, owner, c.key, t)
	case !c.isNew(src, owner, item):
		return nil
	}
	return s.removeVersion(ctx, src, owner, c.key, item.Version, t)
}

// removeRemnant removes what a create of owner's that was cut off has begun at a key that
// holds no value, where the store takes more than one step for one.
func (s *Service) removeRemnant(ctx context.Context, src *source, owner Owner, key string, t *trail) error {
	if src.can.Remnants == nil {
		return nil
	}
	removed, err := src.can.Remnants.RemoveRemnant(ctx, key, owner.covers)
	s.observe(ctx, src, owner.ProviderID, "remove_remnant", key, err)
	if err != nil || !removed {
		return err
	}
	t.deleted(ctx, src, owner, key)
	return nil
}

// look reads what a key holds now, the zero Item if nothing.
func (s *Service) look(ctx context.Context, src *source, owner Owner, key string) (secret.Item, error) {
	results, err := s.readAll(ctx, src, owner.ProviderID, []string{key}, src.items)
	if err != nil {
		return secret.Item{}, err
	}
	if err := results[0].err; err != nil && !errors.Is(err, secret.ErrNotFound) {
		return secret.Item{}, err
	}
	return results[0].item, nil
}

// isNew reports whether item is what the change, made by owner, writes.
func (c change) isNew(src *source, owner Owner, item secret.Item) bool {
	if !src.keepsMarks() {
		return !item.Value.IsZero() && item.Value.Equal(c.new)
	}
	return item.Owner == owner.String()
}

// mayHaveWritten reports whether a write that failed may have taken place all the
// same, its answer lost. A write that was refused has not.
func mayHaveWritten(err error) bool {
	for _, refusal := range []error{secret.ErrExists, ErrChanged, secret.ErrDenied, secret.ErrInvalid} {
		if errors.Is(err, refusal) {
			return false
		}
	}
	return true
}

// recordFailed records what was written and undone, as well as that is possible:
// the operation has failed already.
func (s *Service) recordFailed(ctx context.Context, t *trail) {
	if err := s.record(ctx, *t); err != nil {
		s.log.ErrorContext(ctx, "writes of a failed operation not audited", "events", len(t.events), "error", err)
	}
}

func undoContext(ctx context.Context) (context.Context, context.CancelFunc) {
	until := time.Now().Add(undoMost)
	if deadline, ok := ctx.Deadline(); ok {
		until = deadline.Add(undoGrace)
	}
	return context.WithDeadline(context.WithoutCancel(ctx), until)
}

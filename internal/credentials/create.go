package credentials

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// What is undone after a failure is undone even if the caller has given up: within
// what is left of the caller's time, but at least undoLeast, and within undoMost
// for a caller without a deadline.
const (
	undoLeast = 4 * time.Second
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
	for i, c := range changes {
		if err := s.apply(ctx, src, owner, c, &t); err != nil {
			return s.undoCreate(ctx, src, owner, changes[:i], c, err, &t)
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
		if err := s.removeIfOurs(ctx, src, owner, attempted, t); err != nil {
			left = append(left, src.locate(attempted.key))
		}
	}
	for _, c := range written {
		if err := s.remove(ctx, src, owner, c.key, t); err != nil {
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
}

// changes returns what leads from one pair to the other.
func (r Ref) changes(from, to Pair) []change {
	var cs []change
	if !from.ClientID.Equal(to.ClientID) {
		cs = append(cs, change{r.ClientIDAt(), from.ClientID, to.ClientID})
	}
	if !from.ClientSecret.Equal(to.ClientSecret) {
		cs = append(cs, change{r.ClientSecretAt(), from.ClientSecret, to.ClientSecret})
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

// apply carries out one change.
func (s *Service) apply(ctx context.Context, src *source, owner Owner, c change, t *trail) error {
	switch {
	case c.new.IsZero():
		return s.remove(ctx, src, owner, c.key, t)
	case c.old.IsZero():
		return s.create(ctx, src, owner, c, t)
	}
	return s.replace(ctx, src, owner, c.key, c.new, t)
}

func (s *Service) create(ctx context.Context, src *source, owner Owner, c change, t *trail) error {
	version, err := src.store.Create(ctx, c.key, c.new.Reveal(), owner.String())
	s.observe(ctx, src, owner.ProviderID, "create", c.key, err)
	if errors.Is(err, secret.ErrExists) {
		// The store's own client may have repeated a request whose answer was lost.
		version, err = s.createdBefore(ctx, src, owner, c)
	}
	if err != nil {
		return err
	}
	t.written(ctx, src, owner, c.key, version)
	return nil
}

// createdBefore returns the version of a value that is this owner's and the wanted
// one already; else an *ExistsError.
func (s *Service) createdBefore(ctx context.Context, src *source, owner Owner, c change) (version string, err error) {
	results, err := s.readAll(ctx, src, owner.ProviderID, []string{c.key})
	if err != nil {
		return "", err
	}
	if found := results[0]; found.err == nil && found.item.Owner == owner.String() && found.item.Value.Equal(c.new) {
		return found.item.Version, nil
	}
	return "", &ExistsError{Backend: src.name, Path: src.locate(c.key)}
}

func (s *Service) replace(ctx context.Context, src *source, owner Owner, key string, value secret.Value, t *trail) error {
	version, err := src.store.Replace(ctx, key, value.Reveal(), owner.String())
	s.observe(ctx, src, owner.ProviderID, "replace", key, err)
	if err != nil {
		return err
	}
	t.written(ctx, src, owner, key, version)
	return nil
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

// removeIfOurs removes the value of an attempted create if it is there and the
// attempt's: by its mark, or by being the same value where no marks are kept.
func (s *Service) removeIfOurs(ctx context.Context, src *source, owner Owner, c change, t *trail) error {
	results, err := s.readAll(ctx, src, owner.ProviderID, []string{c.key})
	if err != nil {
		return err
	}
	found := results[0]
	switch {
	case errors.Is(found.err, secret.ErrNotFound):
		return nil
	case found.err != nil:
		return found.err
	}
	ours := found.item.Owner == owner.String()
	if !src.marks {
		ours = found.item.Value.Equal(c.new)
	}
	if !ours {
		return nil
	}
	return s.remove(ctx, src, owner, c.key, t)
}

// mayHaveWritten reports whether a write that failed may have taken place all the
// same, its answer lost. A write that was refused has not.
func mayHaveWritten(err error) bool {
	return !errors.Is(err, secret.ErrExists) && !errors.Is(err, secret.ErrDenied) && !errors.Is(err, secret.ErrInvalid)
}

// recordFailed records what was written and undone, as well as that is possible:
// the operation has failed already.
func (s *Service) recordFailed(ctx context.Context, t *trail) {
	if err := s.record(ctx, *t); err != nil {
		s.log.ErrorContext(ctx, "writes of a failed operation not audited", "events", len(t.events), "error", err)
	}
}

func undoContext(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := undoMost
	if deadline, ok := ctx.Deadline(); ok {
		limit = max(time.Until(deadline), undoLeast)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

package credentials

import (
	"context"
	"errors"
	"fmt"
)

// Replace changes the stored pair of ref from old, which the caller has just read,
// to new. Only what differs is touched: a value is written with the mark of owner,
// one that is zero in new is deleted, one that is zero in old must not exist
// (*ExistsError). Equal pairs cost no call.
//
// If a step fails, the old values are put back, with the mark of the generation
// before owner's. The old pair is then in place unless the error wraps ErrTorn too.
// Events that cannot be recorded are a failure (ErrNotAudited).
func (s *Service) Replace(ctx context.Context, ref Ref, owner Owner, old, new Pair) error {
	src, err := s.writable(ref.Backend, ref.Key)
	if err != nil {
		return err
	}
	changes := ref.changes(old, new)
	if err := checkChanges(changes); err != nil || len(changes) == 0 {
		return err
	}
	defer s.Forget(ref)
	var t trail
	for i, c := range changes {
		err := s.apply(ctx, src, owner, c, &t)
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

// undoReplace puts the old values back, the doubtful one included, and returns
// cause with what became of that.
func (s *Service) undoReplace(ctx context.Context, src *source, owner Owner, written []change, doubtful *change, cause error, t *trail) error {
	ctx, cancel := undoContext(ctx)
	defer cancel()
	var failed error
	if doubtful != nil {
		failed = s.putBack(ctx, src, owner, *doubtful, true, t)
	}
	for _, c := range written {
		failed = errors.Join(failed, s.putBack(ctx, src, owner, c, false, t))
	}
	s.recordFailed(ctx, t)
	if failed != nil {
		return fmt.Errorf("%w; %w", cause, ErrTorn)
	}
	return cause
}

func (s *Service) putBack(ctx context.Context, src *source, owner Owner, c change, doubtful bool, t *trail) error {
	switch {
	case !c.old.IsZero():
		return s.replace(ctx, src, owner.previous(), c.key, c.old, t)
	case doubtful:
		return s.removeIfOurs(ctx, src, owner, c, t)
	}
	return s.remove(ctx, src, owner, c.key, t)
}

package gcpsecretmanager

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/nexus-broker/nexus-broker/secret"
)

// RemoveRemnant implements [secret.RemnantRemover]: it deletes a secret that was made for
// a version that has not come, and takes the announcement of one from a secret that was
// there before. A version that is added after that has no secret, or no owner.
func (b *GCPBackend) RemoveRemnant(ctx context.Context, key string, mine func(owner string) bool) (removed bool, err error) {
	name, act, err := b.keyed("remove remnant", key)
	if err != nil {
		return false, err
	}
	if removed, err = b.removeRemnant(ctx, name, mine); err != nil {
		return false, act.wrap(err)
	}
	return removed, nil
}

func (b *GCPBackend) removeRemnant(ctx context.Context, name string, mine func(owner string) bool) (removed bool, err error) {
	unlock, err := b.locks.lock(ctx, name)
	if err != nil {
		return false, err
	}
	defer unlock()
	err = again(ctx, func() (err error) {
		removed, err = b.tryRemoveRemnant(ctx, name, mine)
		return err
	})
	return removed, err
}

func (b *GCPBackend) tryRemoveRemnant(ctx context.Context, name string, mine func(owner string) bool) (removed bool, err error) {
	s, err := b.get(ctx, name)
	if is(err, codes.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m := marksOf(s)
	if m.pending == nil || !mine(m.pending.owner) {
		return false, nil
	}
	there, err := b.hasValue(ctx, name, m)
	if err != nil || there {
		return false, err
	}
	if ours(s) && m.pending.number == 1 { // versions are numbered from 1, so there has been none
		err = b.delete(ctx, name, s.GetEtag())
	} else {
		m.pending = nil
		_, err = b.update(ctx, s, annotate(s, m), s.GetLabels())
	}
	switch {
	case err == nil:
		return true, nil
	case is(err, codes.NotFound):
		return false, nil
	case is(err, codes.FailedPrecondition), is(err, codes.Aborted):
		return false, errAgain
	default:
		return false, err
	}
}

// hasValue reports whether the announced version has come, or there is another one that
// can be read.
func (b *GCPBackend) hasValue(ctx context.Context, name string, m marks) (bool, error) {
	_, err := b.access(ctx, name, format(m.pending.number))
	if is(err, codes.NotFound) && m.pending.number > 1 {
		_, err = b.current(ctx, name, m.newest())
		if errors.Is(err, secret.ErrNotFound) {
			return false, nil
		}
	}
	switch {
	case err == nil, is(err, codes.FailedPrecondition): // disabled or destroyed since
		return true, nil
	case is(err, codes.NotFound):
		return false, nil
	default:
		return false, err
	}
}

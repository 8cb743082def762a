package gcpsecretmanager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/nexus-broker/nexus-broker/secret"
)

// intent is a Create or a Replace.
type intent struct {
	op, value, owner string
	create           bool  // only if there is no value
	conditional      bool  // only if ifVersion is current
	ifVersion        int64 // 0: what no version has
}

// allow is the condition, on the version that is current; nil for none.
func (in intent) allow(current *version) error {
	switch {
	case in.create && current != nil:
		return fmt.Errorf("%w: there is a value already", secret.ErrExists)
	case in.conditional && (current == nil || current.number != in.ifVersion):
		return fmt.Errorf("%w: read it again", secret.ErrChanged)
	}
	return nil
}

// errAgain: somebody else was faster, or is at it; what is there has to be looked at again.
var errAgain = errors.New("again")

// patience is how long a writer waits for others: longer than an announcement lasts.
const patience = 2 * claimLife

// again repeats try until it returns something else than errAgain, the longer the
// slower, at random so that those who compete do not keep in step.
func again(ctx context.Context, try func() error) error {
	start := time.Now()
	for attempt := 1; ; attempt++ {
		err := try()
		if !errors.Is(err, errAgain) {
			return err
		}
		if time.Since(start) > patience {
			return fmt.Errorf("%w: others write to the secret all the time: try again", secret.ErrUnavailable)
		}
		if err := pause(ctx, rand.N(time.Duration(min(attempt, 20))*10*time.Millisecond)); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// claimAndAdd announces a version, adds it, and settles it. Cut off at any point it
// leaves the old version with its owner, or the new one with its own.
func (b *GCPBackend) claimAndAdd(ctx context.Context, name string, in intent) (number int64, err error) {
	unlock, err := b.locks.lock(ctx, name)
	if err != nil {
		return 0, err
	}
	defer unlock()
	err = again(ctx, func() (err error) {
		number, err = b.tryWrite(ctx, name, in)
		return err
	})
	if err != nil {
		return 0, err
	}
	b.recent.wrote(name, number, in.owner)
	if !in.create {
		b.prune(ctx, name, number)
	}
	return number, nil
}

func (b *GCPBackend) tryWrite(ctx context.Context, name string, in intent) (int64, error) {
	made := time.Now()
	claimed, before, err := b.announce(ctx, name, in)
	if err != nil {
		return 0, err
	}
	limit, cancel := context.WithDeadline(ctx, made.Add(claimLife/2))
	defer cancel()
	number, err := b.add(limit, name, in.value)
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if errors.Is(err, context.DeadlineExceeded) { // ours, not the caller's
			err = fmt.Errorf("%w: no answer in time: check the network and Google's status page", secret.ErrUnavailable)
		}
		return 0, b.notAdded(ctx, name, claimed, before == nil, err)
	}
	p := marksOf(claimed).pending
	if number < p.number { // the secret was deleted and made anew
		return 0, b.takeBack(ctx, name, number)
	}
	if in.create || in.conditional {
		overtaken, err := b.enabledBetween(ctx, name, p.number, number)
		if err != nil || overtaken {
			if back := b.takeBack(ctx, name, number); err == nil || !errors.Is(back, errAgain) {
				err = back
			}
			b.withdraw(ctx, name, claimed)
			return 0, err
		}
	}
	return number, b.settle(ctx, name, claimed, before, number, made)
}

// announce checks the condition and writes the claim, by compare-and-set on the etag. It
// returns the secret with the claim, and what it was before; nil if it was made.
func (b *GCPBackend) announce(ctx context.Context, name string, in intent) (claimed, before *secretmanagerpb.Secret, err error) {
	s, err := b.get(ctx, name)
	if is(err, codes.NotFound) {
		claimed, err := b.announceFirst(ctx, name, in)
		return claimed, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	m := marksOf(s)
	now, err := b.current(ctx, name, m.newest())
	there := &now
	if errors.Is(err, secret.ErrNotFound) {
		there, err = nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if m.pending != nil {
		switch {
		case there != nil && m.pending.covers(there.number, there.value): // its process has not come to settle it
			m.owners[there.number], m.pending = m.pending.owner, nil
			if _, err := b.update(ctx, s, annotate(s, m), s.GetLabels()); err != nil && !is(err, codes.FailedPrecondition) && !is(err, codes.NotFound) {
				return nil, nil, err
			}
			return nil, nil, errAgain
		case m.pending.nonce == b.recent.get(name).abandoned: // ours: nobody has to wait for it
		case !m.pending.ended(b.now()):
			return nil, nil, errAgain
		}
	}
	if in.conditional && (there == nil || there.number < in.ifVersion) && in.ifVersion > 0 {
		if v, err := b.access(ctx, name, format(in.ifVersion)); err == nil { // it is there; the newest lags behind
			there = &v
		}
	}
	if err := in.allow(there); err != nil {
		return nil, nil, err
	}
	m.pending = newClaim(max(now.newest, m.newest(), b.recent.get(name).number)+1, in.value, in.owner, b.now())
	labels := s.GetLabels()
	if ours(s) {
		labels = labelled(labels, in.owner)
	}
	claimed, err = b.update(ctx, s, annotate(s, m), labels)
	switch {
	case is(err, codes.FailedPrecondition), is(err, codes.NotFound), is(err, codes.Aborted):
		err = errAgain
	case err != nil: // it may be there all the same
		b.recent.abandoned(name, m.pending.nonce)
	}
	return claimed, s, err
}

// announceFirst makes the secret with the claim of its first version.
func (b *GCPBackend) announceFirst(ctx context.Context, name string, in intent) (*secretmanagerpb.Secret, error) {
	if in.conditional {
		if in.ifVersion == 0 {
			return nil, in.allow(nil)
		}
		// The secret may be there and not be seen yet.
		switch _, err := b.access(ctx, name, format(in.ifVersion)); {
		case is(err, codes.NotFound), is(err, codes.FailedPrecondition):
			return nil, in.allow(nil)
		case err != nil:
			return nil, err
		}
		return nil, errAgain
	}
	m := marks{pending: newClaim(1, in.value, in.owner, b.now())}
	s, err := b.make(ctx, name, annotate(nil, m), in.owner)
	switch {
	case is(err, codes.AlreadyExists):
		err = errAgain
	case err != nil:
		b.recent.abandoned(name, m.pending.nonce)
	}
	return s, err
}

// update writes annotations and labels if the secret is still the one that was read.
func (b *GCPBackend) update(ctx context.Context, s *secretmanagerpb.Secret, annotations, labels map[string]string) (*secretmanagerpb.Secret, error) {
	return call(ctx, b.conn, "secretmanager.secrets.update", func(ctx context.Context) (*secretmanagerpb.Secret, error) {
		return b.conn.client.UpdateSecret(ctx, &secretmanagerpb.UpdateSecretRequest{
			Secret:     &secretmanagerpb.Secret{Name: s.GetName(), Etag: s.GetEtag(), Annotations: annotations, Labels: labels},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"annotations", "labels"}},
		})
	})
}

// settle gives the version its owner and ends the claim. If another has ended it, and
// has not done the same, the version is taken back: its addition came too late.
func (b *GCPBackend) settle(ctx context.Context, name string, claimed, before *secretmanagerpb.Secret, number int64, made time.Time) error {
	nonce, s := marksOf(claimed).pending.nonce, claimed
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.conn.timeout)
	defer cancel()
	return again(ctx, func() error {
		m := marksOf(s)
		m.owners[number], m.pending = m.pending.owner, nil
		_, err := b.update(ctx, s, annotate(s, m), s.GetLabels())
		switch {
		case err == nil:
			return nil
		case is(err, codes.NotFound): // deleted, after it was written
			return nil
		case !is(err, codes.FailedPrecondition) && !is(err, codes.Aborted):
			return b.unsettled(err, name, made)
		}
		fresh, err := b.get(ctx, name)
		if err != nil {
			return b.unsettled(err, name, made)
		}
		if e := fresh.GetEtag(); e == s.GetEtag() || e == before.GetEtag() { // it lags behind
			return errAgain
		}
		now := marksOf(fresh)
		switch _, settled := now.owners[number]; {
		case now.pending != nil && now.pending.nonce == nonce: // a person has changed something else
			s = fresh
			return errAgain
		case settled: // by one who was waiting for it
			return nil
		default:
			return b.takeBack(ctx, name, number)
		}
	})
}

// unsettled decides what to say of a version that is there while its claim could not be
// ended. As long as that lasts nobody else has made one, and it gives the owner.
func (b *GCPBackend) unsettled(err error, name string, made time.Time) error {
	if time.Since(made) > claimLife*2/3 {
		return err
	}
	b.log.Warn("a version was added, and its announcement is still there: the next write will end it", "secret", name, "error", err)
	return nil
}

// takeBack destroys a version that was added against the condition.
func (b *GCPBackend) takeBack(ctx context.Context, name string, number int64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.conn.timeout)
	defer cancel()
	if err := b.destroy(ctx, name, number); err != nil && !is(err, codes.NotFound) {
		return err
	}
	return errAgain
}

// enabledBetween reports whether a version from low to below high can be read.
func (b *GCPBackend) enabledBetween(ctx context.Context, name string, low, high int64) (bool, error) {
	for n := low; n < high; n++ {
		_, err := b.access(ctx, name, format(n))
		if err == nil {
			return true, nil
		}
		if !is(err, codes.NotFound) && !is(err, codes.FailedPrecondition) {
			return false, err
		}
	}
	return false, nil
}

// notAdded ends the claim of a version that was certainly not added, so that nobody has
// to wait for it, and deletes the secret if it was made for it.
func (b *GCPBackend) notAdded(ctx context.Context, name string, claimed *secretmanagerpb.Secret, first bool, err error) error {
	switch {
	case is(err, codes.NotFound): // deleted meanwhile, and the claim with it
		return errAgain
	case !errors.Is(err, secret.ErrDenied) && !errors.Is(err, secret.ErrThrottled) && !errors.Is(err, secret.ErrInvalid):
		return err // it may have been
	}
	if !first {
		b.withdraw(ctx, name, claimed)
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.conn.timeout)
	defer cancel()
	if left := b.delete(ctx, name, claimed.GetEtag()); left != nil {
		b.log.Warn("a secret was made for a version that could not be added, and could not be deleted: it is empty", "secret", name, "error", left)
	}
	return err
}

// withdraw ends the claim, so that nobody has to wait until it has ended by itself.
func (b *GCPBackend) withdraw(ctx context.Context, name string, claimed *secretmanagerpb.Secret) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.conn.timeout)
	defer cancel()
	m := marksOf(claimed)
	m.pending = nil
	_, err := b.update(ctx, claimed, annotate(claimed, m), claimed.GetLabels())
	if err != nil && !is(err, codes.FailedPrecondition) && !is(err, codes.NotFound) { // else somebody else has ended it
		b.log.Warn("the announcement of a version that was not added could not be withdrawn: it ends by itself", "secret", name, "error", err)
	}
}

package gcpsecretmanager

import (
	"context"
	"errors"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"

	"github.com/nexus-broker/nexus-broker/secret"
)

// delete deletes the secret with all its versions, if it has that etag, "" for any. The
// caller holds the lock.
func (b *GCPBackend) delete(ctx context.Context, name, etag string) error {
	_, err := call(ctx, b.conn, "secretmanager.secrets.delete", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, b.conn.client.DeleteSecret(ctx, &secretmanagerpb.DeleteSecretRequest{Name: name, Etag: etag})
	})
	if err == nil || is(err, codes.NotFound) {
		b.recent.removed(name)
	}
	if err == nil {
		b.awaitRemoval(ctx, name, 0)
	}
	return err
}

// removalLag is for how long a removal waits until it is seen. Who looks later sees it.
const removalLag = 3 * time.Second

// awaitRemoval returns when the newest version cannot be read any more, or is not the
// given one; number 0 is any. Others may have written meanwhile: so it gives up, and
// says nothing.
func (b *GCPBackend) awaitRemoval(ctx context.Context, name string, number int64) {
	start := time.Now()
	for time.Since(start) < removalLag {
		v, err := b.access(ctx, name, latest)
		if err != nil || number != 0 && v.number != number || pause(ctx, 25*time.Millisecond) != nil {
			return
		}
	}
	b.log.Warn("a removal is not to be seen everywhere yet: Secret Manager may take minutes", "secret", name)
}

// destroy destroys a version for good. One that is destroyed already is no error.
func (b *GCPBackend) destroy(ctx context.Context, name string, number int64) error {
	_, err := call(ctx, b.conn, "secretmanager.versions.destroy", func(ctx context.Context) (*secretmanagerpb.SecretVersion, error) {
		return b.conn.client.DestroySecretVersion(ctx, &secretmanagerpb.DestroySecretVersionRequest{Name: name + "/versions/" + format(number)})
	})
	if is(err, codes.FailedPrecondition) {
		return nil
	}
	return err
}

func (b *GCPBackend) disable(ctx context.Context, name string, number int64) error {
	_, err := call(ctx, b.conn, "secretmanager.versions.disable", func(ctx context.Context) (*secretmanagerpb.SecretVersion, error) {
		return b.conn.client.DisableSecretVersion(ctx, &secretmanagerpb.DisableSecretVersionRequest{Name: name + "/versions/" + format(number)})
	})
	if is(err, codes.FailedPrecondition) { // destroyed meanwhile
		return nil
	}
	return err
}

func (b *GCPBackend) removeVersion(ctx context.Context, name string, number int64) error {
	unlock, err := b.locks.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return again(ctx, func() error { return b.tryRemove(ctx, name, number) })
}

func (b *GCPBackend) tryRemove(ctx context.Context, name string, number int64) error {
	now, err := b.current(ctx, name, 0)
	if err != nil && !errors.Is(err, secret.ErrNotFound) {
		return err
	}
	if now.number <= number { // nothing newer can be read: nothing older shall be, not even for a moment
		gone, err := b.hideOlder(ctx, name, number)
		if err != nil || gone {
			return err
		}
	}
	if err := b.destroy(ctx, name, number); err != nil && !is(err, codes.NotFound) {
		return err
	}
	b.recent.removedVersion(name, number)
	b.awaitRemoval(ctx, name, number)
	return nil
}

// hideOlder disables what is older than a version. If there was never another one, the
// secret itself goes, if it is ours.
func (b *GCPBackend) hideOlder(ctx context.Context, name string, number int64) (gone bool, err error) {
	list, err := b.list(ctx, name)
	if is(err, codes.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if number == 1 && len(list) <= 1 {
		return b.deleteIfOurs(ctx, name)
	}
	var older []int64
	listed := int64(0)
	for _, l := range list {
		listed = max(listed, l.number)
		if l.enabled && l.number < number {
			older = append(older, l.number)
		}
	}
	for n := max(listed+1, number-maxUnlisted); n < number; n++ { // the list lags behind
		older = append(older, n)
	}
	for _, n := range older {
		if err := b.disable(ctx, name, n); err != nil && !is(err, codes.NotFound) {
			return false, err
		}
	}
	return false, nil
}

// maxUnlisted bounds how many versions are disabled that should be in a list, and are not.
const maxUnlisted = 100

// deleteIfOurs deletes a secret that the broker has made, unless somebody has announced
// another version.
func (b *GCPBackend) deleteIfOurs(ctx context.Context, name string) (deleted bool, err error) {
	s, err := b.get(ctx, name)
	if is(err, codes.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m := marksOf(s)
	if !ours(s) || m.newest() > 1 || m.pending != nil && m.pending.number > 1 {
		return false, nil
	}
	switch err := b.delete(ctx, name, s.GetEtag()); {
	case err == nil, is(err, codes.NotFound):
		return true, nil
	case is(err, codes.FailedPrecondition), is(err, codes.Aborted):
		return false, errAgain
	default:
		return false, err
	}
}

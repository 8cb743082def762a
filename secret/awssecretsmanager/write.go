package awssecretsmanager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/nexus-broker/nexus-broker/secret"
)

var (
	errExists   = fmt.Errorf("%w: choose another key, or delete it first", secret.ErrExists)
	errNoRandom = fail(secret.ErrUnavailable, "this machine gives no random numbers")
	errChanged  = fmt.Errorf("%w: read it again", secret.ErrChanged)
	// errConflict: another version has become the current one, or the secret has gone.
	errConflict = errors.New("the secret is not any more as it was described")
)

const (
	// settleLimit is how long an operation waits until its own reads see what it has
	// written. AWS promises no time; what is not seen by then was most likely overwritten.
	settleLimit = 3 * time.Second
	// forcedFor is how long a secret may be there that was deleted without recovery. One
	// that was scheduled for deletion longer ago is in its recovery window.
	forcedFor = time.Minute
)

// writing is one write.
type writing struct {
	key, value string
	owner      string // "" for none
	version    string // the id that the new version has
	// stored: that version has been stored beside the current one.
	stored bool
	// earlier are ids that the version has had before: see first.
	earlier map[string]bool
	// dead are versions that were found in a secret scheduled for deletion: once the
	// secret is restored they are current again, and not there for anybody.
	dead map[string]bool
}

// write runs a write and waits until it can be seen.
func (b *AWSBackend) write(ctx context.Context, op, key, value string, do func(context.Context, *writing) error) (string, error) {
	if err := cmp.Or(secret.CheckKey(key), secret.CheckValue(value)); err != nil {
		return "", b.invalid(op, key, err)
	}
	version, err := newVersion()
	if err != nil {
		return "", b.action(op, key).wrap(errNoRandom)
	}
	w := &writing{key: key, value: value, version: version, dead: map[string]bool{}, earlier: map[string]bool{}}
	err = b.change(ctx, op, key, func(ctx context.Context) error {
		if err := do(ctx, w); err != nil {
			return err
		}
		return b.settle(ctx, w)
	})
	if err != nil {
		return "", err
	}
	return w.version, nil
}

// repeat calls step until it returns something else than errConflict, with growing
// pauses, as long as ctx lasts.
func repeat(ctx context.Context, step func() error) error {
	for attempt := 0; ; attempt++ {
		if err := pause(ctx, attempt); err != nil {
			return err
		}
		if err := step(); !errors.Is(err, errConflict) {
			return err
		}
	}
}

// pause waits before another attempt, the longer the more there were, at random so that
// those who compete do not keep in step.
func pause(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return nil
	}
	longest := min(10*time.Millisecond<<min(attempt, 10), 500*time.Millisecond)
	timer := time.NewTimer(longest/2 + rand.N(longest/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return errEnded
	case <-timer.C:
		return nil
	}
}

// is reports whether the version is one of the write's: the answer to an attempt was lost.
func (w *writing) is(version string) bool {
	if w.earlier[version] {
		w.version = version
	}
	return version == w.version
}

// set makes the value the current one, whatever is there.
func (b *AWSBackend) set(ctx context.Context, w *writing) error {
	return repeat(ctx, func() error {
		_, err := b.put(ctx, w, currentLabel)
		switch {
		case deletionUnderWay(err):
			return b.revive(ctx, w)
		case !is(err, "ResourceNotFoundException"):
			return err
		}
		return b.first(ctx, w)
	})
}

// first creates the secret. It is errConflict if that has to be tried again.
//
// AWS takes a CreateSecret whose id is that of a version of the secret for a repetition,
// and answers that it has succeeded: a version that was stored but has not become the
// current one needs another id.
func (b *AWSBackend) first(ctx context.Context, w *writing) error {
	if w.stored {
		other, err := newVersion()
		if err != nil {
			return errNoRandom
		}
		w.earlier[w.version] = true
		w.version, w.stored = other, false
	}
	in := &secretsmanager.CreateSecretInput{
		Name: aws.String(b.name(w.key)), ClientRequestToken: aws.String(w.version), SecretString: aws.String(w.value),
		Tags: b.tagsFor(w.version, w.owner),
	}
	if b.kmsKey != "" {
		in.KmsKeyId = aws.String(b.kmsKey)
	}
	_, err := call(ctx, b, b.sdk.CreateSecret, in)
	switch {
	case deletionUnderWay(err):
		return b.revive(ctx, w)
	case is(err, "ResourceExistsException"):
		return errConflict
	}
	return err
}

// put stores the value as a version that carries label, and returns all its labels.
func (b *AWSBackend) put(ctx context.Context, w *writing, label string) ([]string, error) {
	out, err := call(ctx, b, b.sdk.PutSecretValue, &secretsmanager.PutSecretValueInput{
		SecretId: aws.String(b.name(w.key)), ClientRequestToken: aws.String(w.version), SecretString: aws.String(w.value),
		VersionStages: []string{label},
	})
	if err != nil {
		return nil, err
	}
	return out.VersionStages, nil
}

// create stores the value if there is none.
func (b *AWSBackend) create(ctx context.Context, w *writing) error {
	return repeat(ctx, func() error {
		err := b.first(ctx, w)
		if !errors.Is(err, errConflict) {
			return err
		}
		found, err := b.describe(ctx, w.key)
		switch {
		case errors.Is(err, secret.ErrNotFound), err == nil && !found.deleted.IsZero():
			return errConflict
		case err != nil:
			return err
		case w.is(found.current):
			return nil
		case found.holds() && !w.dead[found.current]:
			b.unmark(ctx, w.key, w.mark(found))
			return errExists
		}
		return b.promote(ctx, w, found)
	})
}

// replace makes the value the current one, if the current one is ifVersion or that is "".
func (b *AWSBackend) replace(ctx context.Context, w *writing, ifVersion string) error {
	return repeat(ctx, func() error {
		found, err := b.describe(ctx, w.key)
		switch {
		case errors.Is(err, secret.ErrNotFound) && ifVersion != "":
			return errChanged
		case errors.Is(err, secret.ErrNotFound):
			return b.first(ctx, w)
		case err != nil:
			return err
		case found.deleted.IsZero() && w.is(found.current):
			return nil
		case ifVersion != "" && (!found.holds() || found.current != ifVersion):
			b.unmark(ctx, w.key, w.mark(found))
			return errChanged
		case !found.deleted.IsZero():
			return b.revive(ctx, w)
		}
		return b.promote(ctx, w, found)
	})
}

// mark returns the key of the write's own mark, if the secret has it.
func (w *writing) mark(found *described) []string {
	if _, there := found.owners[w.version]; !there || !found.deleted.IsZero() {
		return nil
	}
	return []string{markPrefix + w.version}
}

// promote stores the value beside the current version, with its mark, and then makes it
// the current one, if that is still the one that was found; else it is errConflict.
func (b *AWSBackend) promote(ctx context.Context, w *writing, found *described) error {
	if w.owner != "" {
		if err := b.mark(ctx, w); err != nil {
			return conflict(err)
		}
	}
	labels, err := b.put(ctx, w, pendingLabel)
	if err != nil {
		return conflict(err)
	}
	w.stored = true
	if !slices.Contains(labels, currentLabel) { // the first version of a secret has it at once
		err := b.move(ctx, w.key, currentLabel, w.version, found.current)
		if is(err, "InvalidParameterException") {
			return errConflict // or an attempt whose answer was lost: it is described again
		}
		if err != nil {
			return conflict(err)
		}
	}
	b.unmark(ctx, w.key, stale(found, w.version, time.Now()))
	return nil
}

// conflict makes an errConflict of errors that say that the secret has gone meanwhile.
func conflict(err error) error {
	if errors.Is(err, secret.ErrNotFound) {
		return errConflict
	}
	return err
}

// move moves a label to one version from another; "" is none.
func (b *AWSBackend) move(ctx context.Context, key, label, to, from string) error {
	in := &secretsmanager.UpdateSecretVersionStageInput{SecretId: aws.String(b.name(key)), VersionStage: aws.String(label)}
	if to != "" {
		in.MoveToVersionId = aws.String(to)
	}
	if from != "" && from != to {
		in.RemoveFromVersionId = aws.String(from)
	}
	_, err := call(ctx, b, b.sdk.UpdateSecretVersionStage, in)
	return err
}

// revive restores a secret that is scheduled for deletion, or lets the time pass until
// one has gone. It is errConflict if what has met the secret can be tried again.
func (b *AWSBackend) revive(ctx context.Context, w *writing) error {
	found, err := b.describe(ctx, w.key)
	switch {
	case errors.Is(err, secret.ErrNotFound):
		return errConflict // it has gone
	case err != nil:
		return err
	case found.deleted.IsZero():
		return errConflict // somebody has restored it
	case b.recovery == 0 && !found.removed && time.Since(found.deleted) < forcedFor:
		// Most likely a Delete without recovery: it is about to go, and restored it might
		// go all the same. One that carries our label was deleted with recovery.
		return errConflict
	}
	w.dead[found.current] = true
	_, err = call(ctx, b, b.sdk.RestoreSecret, &secretsmanager.RestoreSecretInput{SecretId: aws.String(b.name(w.key))})
	if err != nil && !errors.Is(err, secret.ErrNotFound) {
		return err
	}
	return errConflict
}

// settle waits until the version that was written is seen to be the current one.
func (b *AWSBackend) settle(ctx context.Context, w *writing) error {
	return b.watch(ctx, w.key, "a write", func() (bool, error) {
		out, err := call(ctx, b, b.sdk.GetSecretValue, &secretsmanager.GetSecretValueInput{
			SecretId: aws.String(b.name(w.key)), VersionId: aws.String(w.version),
		})
		if err != nil {
			return !errors.Is(err, secret.ErrNotFound), err
		}
		// The previous one: somebody was faster than this look.
		return slices.Contains(out.VersionStages, currentLabel) || slices.Contains(out.VersionStages, previousLabel), nil
	})
}

// watch calls seen until that is true or settleLimit has passed. An error that tells
// neither is none of the operation's, which has taken place.
func (b *AWSBackend) watch(ctx context.Context, key, what string, seen func() (bool, error)) error {
	until := time.Now().Add(settleLimit)
	for attempt := 0; ; attempt++ {
		if err := pause(ctx, attempt); err != nil {
			return err
		}
		done, err := seen()
		switch {
		case errors.Is(err, errEnded):
			return err
		case done:
			return nil
		case time.Now().After(until):
			b.log.Debug(what+" is not seen yet", "name", b.name(key))
			return nil
		}
	}
}

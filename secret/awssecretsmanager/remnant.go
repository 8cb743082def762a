package awssecretsmanager

import (
	"context"
	"errors"
	"slices"

	"github.com/nexus-broker/nexus-broker/secret"
)

// RemoveRemnant implements [secret.RemnantRemover]. CreateSecret is atomic, so that there
// are remnants only where a Create has restored a secret from its recovery window, or
// writes into one that a person has made without a value: a secret that lies there
// restored, a mark, or a value that has not become the current one. The mark goes, and
// so does the value's label, after which AWS removes it some day. Then, if nobody else has
// begun something there, the secret is scheduled for deletion again, with a recovery window
// even if Config.RecoveryDays is 0.
//
// Only a secret whose current value the backend itself has deleted before is scheduled.
// AWS takes no mark before the restoration, so that of one without any mark nobody can
// tell who has restored it; it goes too. A Create of somebody else's that is just at
// that point restores it once more. AWS has no deletion that depends on a version: a
// Create that gets to its end between the last look and the deletion is undone with it,
// recoverably, as with Delete.
func (b *AWSBackend) RemoveRemnant(ctx context.Context, key string, mine func(owner string) bool) (removed bool, err error) {
	err = b.change(ctx, "remove remnant", key, func(ctx context.Context) error {
		return repeat(ctx, func() error {
			again, err := b.removeRemnant(ctx, key, mine)
			removed = removed || again
			return err
		})
	})
	return removed && err == nil, err
}

func (b *AWSBackend) removeRemnant(ctx context.Context, key string, mine func(owner string) bool) (removed bool, err error) {
	found, err := b.describe(ctx, key)
	switch {
	case errors.Is(err, secret.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	case !found.deleted.IsZero(), found.holds():
		return false, nil
	}
	var own []string
	others := false
	for _, version := range found.begun() {
		if mine(found.owners[version]) {
			own = append(own, version)
		} else {
			others = true
		}
	}
	for _, version := range own {
		if err := b.withdraw(ctx, key, version, found); err != nil {
			return false, err
		}
	}
	if others || !found.removed {
		return len(own) > 0, nil
	}
	scheduled, err := b.schedule(ctx, key, max(b.recovery, minRecovery))
	return scheduled || len(own) > 0, err
}

// begun returns the versions with an owner that have not become the current one, and may
// still do so: those that wait for it, and those that are only announced. Older versions
// than the current one, whose marks are kept for a while, do not belong to them.
func (d *described) begun() []string {
	var versions []string
	for version := range d.owners {
		announced := !d.labelled[version] && !madeAt(version).Before(madeAt(d.current))
		if version != d.current && (announced || d.labels[pendingLabel] == version) {
			versions = append(versions, version)
		}
	}
	slices.Sort(versions)
	return versions
}

// withdraw takes a version's label for what waits, and then its mark.
func (b *AWSBackend) withdraw(ctx context.Context, key, version string, found *described) error {
	if found.labels[pendingLabel] == version {
		err := b.move(ctx, key, pendingLabel, "", version)
		if is(err, "InvalidParameterException") {
			return errConflict
		}
		if err != nil {
			return conflict(err)
		}
	}
	return conflict(b.untag(ctx, key, []string{markPrefix + version}))
}

package awssecretsmanager

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/nexus-broker/nexus-broker/secret"
)

// minRecovery is the shortest recovery window of AWS, in days.
const minRecovery = 7

// remove deletes the secret of key.
func (b *AWSBackend) remove(ctx context.Context, key string) error {
	if b.recovery == 0 {
		return b.deleteSecret(ctx, key, 0)
	}
	err := repeat(ctx, func() error {
		found, err := b.describe(ctx, key)
		switch {
		case errors.Is(err, secret.ErrNotFound): // DeleteSecret knows better
			return nil
		case err != nil:
			return err
		case !found.holds():
			return nil
		}
		return b.label(ctx, key, found)
	})
	if err != nil {
		return err
	}
	return b.deleteSecret(ctx, key, b.recovery)
}

// label marks the current version as removed. It is errConflict if another one has
// become the current one, or the label was moved, meanwhile.
func (b *AWSBackend) label(ctx context.Context, key string, found *described) error {
	err := b.move(ctx, key, deletedLabel, found.current, found.labels[deletedLabel])
	switch {
	case is(err, "InvalidParameterException"):
		return errConflict
	case is(err, "LimitExceededException"):
		b.log.Warn("a secret has too many staging labels: what is deleted can be read for a moment if the key is written again in its recovery window", "name", b.name(key))
		return nil
	}
	return conflict(err)
}

// deleteSecret deletes the secret with all its versions, keeping it for days, and waits
// until it cannot be read any more. A secret that is not there, or is scheduled for
// deletion already, is none.
func (b *AWSBackend) deleteSecret(ctx context.Context, key string, days int) error {
	if _, err := b.schedule(ctx, key, days); err != nil {
		return err
	}
	return b.watch(ctx, key, "a deletion", func() (bool, error) {
		_, err := b.current(ctx, key)
		return err != nil && (errors.Is(err, secret.ErrNotFound) || !errors.Is(err, secret.ErrInvalid)), err
	})
}

// schedule asks for the deletion; scheduled is false if there was nothing to delete.
func (b *AWSBackend) schedule(ctx context.Context, key string, days int) (scheduled bool, err error) {
	in := &secretsmanager.DeleteSecretInput{SecretId: aws.String(b.name(key))}
	if days == 0 {
		in.ForceDeleteWithoutRecovery = aws.Bool(true)
	} else {
		in.RecoveryWindowInDays = aws.Int64(int64(days))
	}
	_, err = call(ctx, b, b.sdk.DeleteSecret, in)
	if errors.Is(err, secret.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// removeVersion takes a version back. It is marked as removed first, which cannot hit
// another version; then the secret goes, if that version is still the current one.
func (b *AWSBackend) removeVersion(ctx context.Context, key, version string) error {
	return repeat(ctx, func() error {
		found, err := b.describe(ctx, key)
		switch {
		case errors.Is(err, secret.ErrNotFound):
			return nil
		case err != nil:
			return err
		case !found.deleted.IsZero(), !found.labelled[version]:
			return nil
		case found.current != version:
			return b.retire(ctx, key, version, found)
		case !found.removed:
			if err := b.label(ctx, key, found); err != nil {
				return err
			}
			return errConflict // look again
		}
		days := b.recovery
		if days == 0 && len(found.labelled) > 1 {
			days = minRecovery // somebody may want the older versions
		}
		return b.deleteSecret(ctx, key, days)
	})
}

// retire takes the labels of a version away that is not the current one: AWS removes
// such versions some day.
func (b *AWSBackend) retire(ctx context.Context, key, version string, found *described) error {
	for label, on := range found.labels {
		if on != version {
			continue
		}
		err := b.move(ctx, key, label, "", version)
		if is(err, "InvalidParameterException") {
			return errConflict
		}
		if err != nil {
			return conflict(err)
		}
	}
	if _, marked := found.owners[version]; marked {
		b.unmark(ctx, key, []string{markPrefix + version})
	}
	return nil
}

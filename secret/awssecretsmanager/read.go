package awssecretsmanager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The staging labels: AWS's own, and ours.
const (
	currentLabel  = "AWSCURRENT"
	previousLabel = "AWSPREVIOUS"
	// pendingLabel is on the version that was stored last and may become the current one.
	pendingLabel = "nexus-broker-pending"
	// deletedLabel is on a version that was removed: it is not there for any reader.
	deletedLabel = "nexus-broker-deleted"
)

var errRemoved = fmt.Errorf("%w: the value was deleted by the broker: store a new one, or take the staging label %s away", secret.ErrNotFound, deletedLabel)

// current reads the current version of the secret of key.
func (b *AWSBackend) current(ctx context.Context, key string) (secret.Item, error) {
	return b.currentOf(ctx, b.name(key))
}

func (b *AWSBackend) currentOf(ctx context.Context, name string) (secret.Item, error) {
	out, err := call(ctx, b, b.sdk.GetSecretValue, &secretsmanager.GetSecretValueInput{SecretId: aws.String(name)})
	if err != nil {
		return secret.Item{}, err
	}
	return itemOf(out.SecretString, out.SecretBinary, out.VersionId, out.VersionStages)
}

// itemOf makes an item of what AWS has answered, without its owner.
func itemOf(text *string, binary []byte, version *string, labels []string) (secret.Item, error) {
	if slices.Contains(labels, deletedLabel) {
		return secret.Item{}, errRemoved
	}
	value, err := valueOf(text, binary)
	if err == nil {
		err = secret.CheckValue(value)
	}
	if err != nil {
		return secret.Item{}, fmt.Errorf("%w: store the credential itself as plain text", err)
	}
	return secret.Item{Value: secret.NewValue(value), Version: aws.ToString(version)}, nil
}

func valueOf(text *string, binary []byte) (string, error) {
	switch {
	case text != nil:
		return *text, nil
	case !utf8.Valid(binary):
		return "", fmt.Errorf("%w: the secret is binary and no UTF-8", secret.ErrInvalid)
	}
	return string(binary), nil
}

// owner returns the owner of a version of key's secret, "" if it has none.
func (b *AWSBackend) owner(ctx context.Context, key, version string) (string, error) {
	found, err := b.describe(ctx, key)
	switch {
	case errors.Is(err, secret.ErrDenied) && !errors.Is(err, secret.ErrLogin):
		b.log.Debug("the owner of a secret is not known: allow secretsmanager:DescribeSecret", "name", b.name(key))
		return "", nil
	case errors.Is(err, secret.ErrNotFound): // deleted since its value was read
		return "", nil
	case err != nil:
		return "", err
	}
	return found.owners[version], nil
}

// described is what the service tells of a secret, without its value.
type described struct {
	current string            // the version that AWSCURRENT is on, "" for none
	removed bool              // the current version was removed
	deleted time.Time         // when it was scheduled for deletion; zero: it is not
	labels  map[string]string // the version that each of the labels is on
	owners  map[string]string // of versions
	// labelled are the versions that have a label. The others AWS may remove.
	labelled map[string]bool
}

// holds reports whether the secret has a value to read.
func (d *described) holds() bool { return d.deleted.IsZero() && d.current != "" && !d.removed }

// describe asks for all but the value. A secret that is not there is a failure that
// wraps secret.ErrNotFound; one that is scheduled for deletion is not.
func (b *AWSBackend) describe(ctx context.Context, key string) (*described, error) {
	out, err := call(ctx, b, b.sdk.DescribeSecret, &secretsmanager.DescribeSecretInput{SecretId: aws.String(b.name(key))})
	if err != nil {
		return nil, err
	}
	d := &described{labels: map[string]string{}, owners: map[string]string{}, labelled: map[string]bool{}, deleted: aws.ToTime(out.DeletedDate)}
	for version, labels := range out.VersionIdsToStages {
		d.labelled[version] = true
		for _, l := range labels {
			d.labels[l] = version
		}
	}
	d.current = d.labels[currentLabel]
	d.removed = d.current != "" && d.labels[deletedLabel] == d.current
	for _, t := range out.Tags {
		if version, ok := markedVersion(aws.ToString(t.Key)); ok && secret.CheckOwner(aws.ToString(t.Value)) == nil {
			d.owners[version] = aws.ToString(t.Value)
		}
	}
	return d, nil
}

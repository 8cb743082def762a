package awssecretsmanager

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/google/uuid"
)

// The tags of the backend.
const (
	managedTag   = "managed-by"
	managedValue = "nexus-broker"
	// markPrefix and a version are the key of the tag whose value is the owner of that
	// version.
	markPrefix = "nexus-broker/owner/"
)

const (
	// maxMarks is how many marks a secret keeps, of the 50 tags that it can have.
	maxMarks = 8
	// markAge is how long a mark may be that of a write under way.
	markAge = 10 * time.Minute
	// maxVersionBytes is the longest that AWS allows a version's id to be.
	maxVersionBytes = 64
)

// newVersion returns the id for a new version. It begins with the time, so that it can be
// told how old a mark is.
func newVersion() (string, error) {
	id, err := uuid.NewV7()
	return id.String(), err
}

// madeAt returns when newVersion has returned version; zero if it never has.
func madeAt(version string) time.Time {
	id, err := uuid.Parse(version)
	if err != nil || id.Version() != 7 {
		return time.Time{}
	}
	return time.Unix(id.Time().UnixTime())
}

// markedVersion returns the version that the tag of this key marks.
func markedVersion(key string) (version string, ok bool) {
	return strings.CutPrefix(key, markPrefix)
}

// tagsFor returns the tags of a secret whose version has an owner, "" for none.
func (b *AWSBackend) tagsFor(version, owner string) []types.Tag {
	all := maps.Clone(b.tags)
	if all == nil {
		all = map[string]string{}
	}
	all[managedTag] = managedValue
	if owner != "" {
		all[markPrefix+version] = owner
	}
	var tags []types.Tag
	for _, k := range slices.Sorted(maps.Keys(all)) {
		tags = append(tags, types.Tag{Key: aws.String(k), Value: aws.String(all[k])})
	}
	return tags
}

// mark puts the owner of a version on the secret.
func (b *AWSBackend) mark(ctx context.Context, w *writing) error {
	_, err := call(ctx, b, b.sdk.TagResource, &secretsmanager.TagResourceInput{
		SecretId: aws.String(b.name(w.key)), Tags: b.tagsFor(w.version, w.owner),
	})
	return err
}

// stale returns the keys of marks that nobody needs any more: neither that of the new
// version nor of the one before it, which a person may bring back, nor one of a write
// that may be under way.
func stale(found *described, version string, now time.Time) []string {
	var old []string
	for v := range found.owners {
		if v != version && v != found.current {
			old = append(old, v)
		}
	}
	// The youngest first; those that are not ours to tell the time of last.
	slices.SortFunc(old, func(a, b string) int { return madeAt(b).Compare(madeAt(a)) })
	var keys []string
	for i, v := range old {
		if i >= maxMarks || now.Sub(madeAt(v)) > markAge {
			keys = append(keys, markPrefix+v)
		}
	}
	return keys
}

// unmark takes marks away. That it fails is no failure of the write: the next one tries
// again.
func (b *AWSBackend) unmark(ctx context.Context, key string, keys []string) {
	if len(keys) == 0 {
		return
	}
	if err := b.untag(ctx, key, keys); err != nil {
		b.log.Debug("old owner tags were left on a secret", "name", b.name(key), "tags", len(keys), "error", err.Error())
	}
}

func (b *AWSBackend) untag(ctx context.Context, key string, keys []string) error {
	_, err := call(ctx, b, b.sdk.UntagResource, &secretsmanager.UntagResourceInput{SecretId: aws.String(b.name(key)), TagKeys: keys})
	return err
}

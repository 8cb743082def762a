package internalbackend

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/nexus-broker/nexus-broker/secret"
)

// PlainRows is implemented by Rows some of whose values lie, unsealed, in other rows of
// the database: where the existing broker keeps them, until its upgrade is finished. They
// have keys that secret.CheckKey refuses, so that they are never taken for sealed ones,
// and nothing here writes or deletes them.
type PlainRows interface {
	// Plain reports whether the key is of that kind.
	Plain(key string) bool
	// PlainValues returns the values of such keys, "" for one that is not there. Those of
	// one provider are of one moment.
	PlainValues(ctx context.Context, keys []string) ([]string, error)
}

var _ secret.BatchReader = (*InternalBackend)(nil)

// ReadBatch implements secret.BatchReader: what lies in one row is read at one moment, so
// that two values fit together although another program may change them at any time.
func (b *InternalBackend) ReadBatch(ctx context.Context, keys []string) []secret.Outcome {
	outcomes := make([]secret.Outcome, len(keys))
	var plain []string
	var others sync.WaitGroup
	for i, key := range keys {
		if b.isPlain(key) {
			plain = append(plain, key)
			continue
		}
		others.Go(func() {
			item, err := b.read(ctx, "read", key)
			item.Owner = ""
			outcomes[i] = secret.Outcome{Item: item, Err: err}
		})
	}
	others.Wait()
	if len(plain) == 0 {
		return outcomes
	}
	found := b.readPlain(ctx, "read", plain)
	for i, key := range keys {
		if b.isPlain(key) {
			outcomes[i], found = found[0], found[1:]
		}
	}
	return outcomes
}

func (b *InternalBackend) isPlain(key string) bool { return b.plain != nil && b.plain.Plain(key) }

func (b *InternalBackend) readPlain(ctx context.Context, operation string, keys []string) []secret.Outcome {
	outcomes := make([]secret.Outcome, len(keys))
	values, err := b.plain.PlainValues(ctx, keys)
	for i, key := range keys {
		switch {
		case err != nil:
			outcomes[i].Err = unavailable(ctx, operation, key, err)
		case values[i] == "":
			outcomes[i].Err = failed(operation, key, fmt.Errorf("%w: update the provider with its credentials", secret.ErrNotFound))
		default:
			outcomes[i].Item.Value = secret.NewValue(values[i])
		}
	}
	return outcomes
}

// Locate implements secret.Locator.
func (b *InternalBackend) Locate(key string) string {
	if _, id, found := strings.Cut(key, ":"); found {
		return "provider_profiles/" + id
	}
	return "sealed_secrets/" + key
}

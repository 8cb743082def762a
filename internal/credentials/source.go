package credentials

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// source is a configured backend together with what its answers tell of its health.
type source struct {
	name     string
	external bool
	store    secret.OwnedBackend
	marks    bool                  // store keeps marks; else it is an unmarked
	remover  secret.VersionRemover // nil: store cannot take back a single write
	health   health
}

func newSource(b Backend, now time.Time) *source {
	src := &source{name: b.Name, external: b.External, health: health{shown: StatusOK, since: now}}
	if src.store, src.marks = b.Store.(secret.OwnedBackend); !src.marks {
		src.store = unmarked{b.Store}
	}
	src.remover, _ = b.Store.(secret.VersionRemover)
	src.health.prober, _ = b.Store.(secret.Prober)
	return src
}

func (src *source) locate(key string) string {
	store := secret.SecretBackend(src.store)
	if u, ok := store.(unmarked); ok {
		store = u.SecretBackend
	}
	if l, ok := store.(secret.Locator); ok {
		return l.Locate(key)
	}
	return key
}

func (src *source) locateAll(keys []string) []string {
	paths := make([]string, len(keys))
	for i, key := range keys {
		paths[i] = src.locate(key)
	}
	return paths
}

// unmarked lends a backend that cannot keep marks the methods of one that can. The
// marks are lost: what it holds is proved to be the broker's by nothing.
type unmarked struct{ secret.SecretBackend }

// Read implements secret.OwnedBackend.
func (u unmarked) Read(ctx context.Context, key string) (secret.Item, error) {
	value, err := u.Get(ctx, key)
	if err != nil {
		return secret.Item{}, err
	}
	return secret.Item{Value: secret.NewValue(value)}, nil
}

// Create implements secret.OwnedBackend by a read before the write: two concurrent
// Creates may both succeed. The broker runs one at a time for a provider.
func (u unmarked) Create(ctx context.Context, key, value, _ string) (string, error) {
	switch _, err := u.Get(ctx, key); {
	case err == nil:
		return "", fmt.Errorf("create %s: %w", key, secret.ErrExists)
	case !errors.Is(err, secret.ErrNotFound):
		return "", err
	}
	return "", u.Set(ctx, key, value)
}

// Replace implements secret.OwnedBackend. There are no versions: ifVersion is "".
func (u unmarked) Replace(ctx context.Context, key, value, _, _ string) (string, error) {
	return "", u.Set(ctx, key, value)
}

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
	can      secret.Capabilities
	store    secret.OwnedBackend // can.Owned, or an unmarked
	// referable are the places, in segments, below which references may lie.
	referable [][]string
	health    health
}

func newSource(b Backend, now time.Time) *source {
	src := &source{name: b.Name, external: b.External, can: secret.CapabilitiesOf(b.Store)}
	src.health = health{prober: src.can.Prober, shown: StatusOK, since: now}
	src.store = src.can.Owned
	if !src.keepsMarks() {
		src.store = unmarked{b.Store}
	}
	return src
}

// keepsMarks reports whether the store can tell who wrote a value.
func (src *source) keepsMarks() bool { return src.can.Owned != nil }

func (src *source) locate(key string) string {
	if src.can.Locator != nil {
		return src.can.Locator.Locate(key)
	}
	return key
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

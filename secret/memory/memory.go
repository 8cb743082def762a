// Package memory keeps secrets in a map. It is the reference implementation of
// [secret.OwnedBackend]: the simplest code that passes the conformance suite.
// [Faulty] wraps it, or any other backend, for the tests of code that has to
// survive an outage.
package memory

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Name is how the backend calls itself in errors and places.
const Name = "memory"

// Backend keeps secrets in this process. It forgets them when the process ends.
// Printed in any way it shows no value.
type Backend struct {
	mu      sync.Mutex
	items   map[string]secret.Item
	begun   map[string]string        // by Abandon, the owner by key
	placed  map[string][]secret.Item // by Place, the versions in their order
	version int                      // of the last write; never used twice
}

var (
	_ secret.OwnedBackend    = (*Backend)(nil)
	_ secret.VersionRemover  = (*Backend)(nil)
	_ secret.RemnantRemover  = (*Backend)(nil)
	_ secret.Locator         = (*Backend)(nil)
	_ secret.Prober          = (*Backend)(nil)
	_ secret.BatchReader     = (*Backend)(nil)
	_ secret.ReferenceReader = (*Backend)(nil)
)

// New returns an empty Backend.
func New() *Backend {
	return &Backend{items: make(map[string]secret.Item), begun: make(map[string]string), placed: make(map[string][]secret.Item)}
}

// Get implements [secret.SecretBackend].
func (b *Backend) Get(ctx context.Context, key string) (string, error) {
	item, err := b.read(ctx, "get", key)
	return item.Value.Reveal(), err
}

// Read implements [secret.OwnedBackend].
func (b *Backend) Read(ctx context.Context, key string) (secret.Item, error) {
	return b.read(ctx, "read", key)
}

// ReadBatch implements [secret.BatchReader].
func (b *Backend) ReadBatch(ctx context.Context, keys []string) []secret.Outcome {
	outcomes := make([]secret.Outcome, len(keys))
	for i, key := range keys {
		item, err := b.read(ctx, "read batch", key)
		item.Owner = ""
		outcomes[i] = secret.Outcome{Item: item, Err: err}
	}
	return outcomes
}

func (b *Backend) read(ctx context.Context, op, key string) (secret.Item, error) {
	if err := check(ctx, op, key, secret.CheckKey(key)); err != nil {
		return secret.Item{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	item, ok := b.items[key]
	if !ok {
		return secret.Item{}, fail(op, key, fmt.Errorf("%w: set it first", secret.ErrNotFound))
	}
	return item, nil
}

// Set implements [secret.SecretBackend].
func (b *Backend) Set(ctx context.Context, key, value string) error {
	if err := check(ctx, "set", key, secret.CheckKey(key), secret.CheckValue(value)); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(key, value, "")
	return nil
}

// Create implements [secret.OwnedBackend]. It is atomic.
func (b *Backend) Create(ctx context.Context, key, value, owner string) (string, error) {
	if err := check(ctx, "create", key, secret.CheckKey(key), secret.CheckValue(value), secret.CheckOwner(owner)); err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.items[key]; ok {
		return "", fail("create", key, fmt.Errorf("%w: delete it first", secret.ErrExists))
	}
	return b.put(key, value, owner), nil
}

// Replace implements [secret.OwnedBackend]. It is atomic.
func (b *Backend) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	if err := check(ctx, "replace", key, secret.CheckKey(key), secret.CheckValue(value), secret.CheckOwner(owner)); err != nil {
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if ifVersion != "" && b.items[key].Version != ifVersion {
		return "", fail("replace", key, fmt.Errorf("%w: read it again", secret.ErrChanged))
	}
	return b.put(key, value, owner), nil
}

// put stores the value and returns its version. b.mu is held.
func (b *Backend) put(key, value, owner string) string {
	b.version++
	item := secret.Item{Value: secret.NewValue(value), Version: strconv.Itoa(b.version), Owner: owner}
	b.items[key] = item
	delete(b.begun, key)
	return item.Version
}

// Delete implements [secret.SecretBackend].
func (b *Backend) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key, secret.CheckKey(key)); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.items, key)
	delete(b.begun, key)
	return nil
}

// RemoveVersion implements [secret.VersionRemover].
func (b *Backend) RemoveVersion(ctx context.Context, key, version string) error {
	if err := check(ctx, "remove version", key, secret.CheckKey(key), checkVersion(version)); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.items[key].Version == version {
		delete(b.items, key)
	}
	return nil
}

// checkVersion refuses what put cannot have returned.
func checkVersion(version string) error {
	if n, err := strconv.Atoi(version); err != nil || n < 1 {
		return fmt.Errorf("%w: it is no version of this store", secret.ErrInvalid)
	}
	return nil
}

// RemoveRemnant implements [secret.RemnantRemover]. A Create of this backend leaves no
// remnant; Abandon does.
func (b *Backend) RemoveRemnant(ctx context.Context, key string, mine func(owner string) bool) (removed bool, err error) {
	if err := check(ctx, "remove remnant", key, secret.CheckKey(key)); err != nil {
		return false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	owner, begun := b.begun[key]
	if !begun || !mine(owner) {
		return false, nil
	}
	delete(b.begun, key)
	return true, nil
}

// Abandon leaves at key, which holds no value, what a Create for owner would leave that
// was cut off in a store that takes more than one step for it. It does nothing to a key
// that holds a value.
func (b *Backend) Abandon(key, owner string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.items[key]; !there {
		b.begun[key] = owner
	}
}

// Abandoned reports whether what Abandon has left is still at key.
func (b *Backend) Abandoned(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, begun := b.begun[key]
	return begun
}

// Keys returns the keys that hold a value, in no order.
func (b *Backend) Keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys := make([]string, 0, len(b.items))
	for k := range b.items {
		keys = append(keys, k)
	}
	return keys
}

// Locate implements [secret.Locator].
func (b *Backend) Locate(key string) string { return Name + "/" + key }

// Probe implements [secret.Prober]. Nothing but ctx can make it fail.
func (b *Backend) Probe(ctx context.Context, _ secret.Access) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: probe: %w", Name, err)
	}
	return nil
}

// String names the backend.
func (b *Backend) String() string { return Name }

// GoString is String.
func (b *Backend) GoString() string { return Name }

// Format writes String for every verb.
func (b *Backend) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Name)) }

// LogValue implements slog.LogValuer.
func (b *Backend) LogValue() slog.Value { return slog.StringValue(Name) }

// check returns the first of the faults in the arguments, else the error of ctx.
func check(ctx context.Context, op, key string, faults ...error) error {
	for _, err := range faults {
		if err != nil {
			return fail(op, key, err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fail(op, key, err)
	}
	return nil
}

// fail says where err happened. An illegal key is quoted by err itself.
func fail(op, key string, err error) error {
	if secret.CheckKey(key) != nil {
		return fmt.Errorf("%s: %s: %w", Name, op, err)
	}
	return fmt.Errorf("%s: %s %s: %w", Name, op, key, err)
}

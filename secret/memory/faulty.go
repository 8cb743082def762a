package memory

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Op names a method of a backend.
type Op string

// The methods that a Faulty sees.
const (
	OpGet           Op = "get"
	OpSet           Op = "set"
	OpDelete        Op = "delete"
	OpRead          Op = "read"
	OpCreate        Op = "create"
	OpReplace       Op = "replace"
	OpRemoveVersion Op = "remove_version"
	OpRemoveRemnant Op = "remove_remnant"
	OpProbe         Op = "probe"
	OpReadReference Op = "read_reference"
	OpReadBatch     Op = "read_batch"
)

// Writes are the methods that change what is stored.
var Writes = []Op{OpSet, OpDelete, OpCreate, OpReplace, OpRemoveVersion, OpRemoveRemnant}

// Call is one call of a backend's method.
type Call struct {
	Op  Op
	Key string // "" for OpProbe, the written form for OpReadReference, all for OpReadBatch with a space between
}

// Hook is told of a call. The error that it returns, if any, is the call's.
type Hook func(ctx context.Context, c Call) error

// Faulty wraps a backend for tests: it counts the calls and lets hooks fail or
// delay them. It is safe for concurrent use, its hooks must be too.
type Faulty struct {
	inner secret.OwnedBackend

	mu     sync.Mutex
	before Hook
	after  Hook
	calls  []Call
}

var (
	_ secret.OwnedBackend    = (*Faulty)(nil)
	_ secret.VersionRemover  = (*Faulty)(nil)
	_ secret.RemnantRemover  = (*Faulty)(nil)
	_ secret.Locator         = (*Faulty)(nil)
	_ secret.Prober          = (*Faulty)(nil)
	_ secret.ReferenceReader = (*Faulty)(nil)
)

// NewFaulty wraps inner; without hooks it behaves like inner.
func NewFaulty(inner secret.OwnedBackend) *Faulty { return &Faulty{inner: inner} }

// Before sets the hook that is called before inner is; if it returns an error
// inner is not called. nil removes it.
func (f *Faulty) Before(h Hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = h
}

// After sets the hook that is called when inner has succeeded: an error from it is
// a write that took place and whose answer was lost. nil removes it.
func (f *Faulty) After(h Hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = h
}

// Fail makes the named methods return err from now on, all of them if none is
// named. Fail(nil) heals. It replaces the hook of Before.
func (f *Faulty) Fail(err error, ops ...Op) {
	if err == nil {
		f.Before(nil)
		return
	}
	f.Before(func(_ context.Context, c Call) error {
		if len(ops) == 0 || slices.Contains(ops, c.Op) {
			return err
		}
		return nil
	})
}

// Stall makes the named methods, all if none is named, wait until ctx ends or the
// returned function is called. It replaces the hook of Before.
func (f *Faulty) Stall(ops ...Op) (release func()) {
	released := make(chan struct{})
	f.Before(func(ctx context.Context, c Call) error {
		if len(ops) > 0 && !slices.Contains(ops, c.Op) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fail(string(c.Op), c.Key, ctx.Err())
		case <-released:
			return nil
		}
	})
	return sync.OnceFunc(func() { close(released) })
}

// Calls returns the calls so far, the failed ones included.
func (f *Faulty) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Count returns how many calls of the named methods, of all if none is named, were
// made so far.
func (f *Faulty) Count(ops ...Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if len(ops) == 0 || slices.Contains(ops, c.Op) {
			n++
		}
	}
	return n
}

// Reset forgets the calls so far.
func (f *Faulty) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = nil
}

// Get implements [secret.SecretBackend].
func (f *Faulty) Get(ctx context.Context, key string) (value string, err error) {
	err = f.around(ctx, Call{OpGet, key}, func() error {
		value, err = f.inner.Get(ctx, key)
		return err
	})
	if err != nil {
		return "", err
	}
	return value, nil
}

// Set implements [secret.SecretBackend].
func (f *Faulty) Set(ctx context.Context, key, value string) error {
	return f.around(ctx, Call{OpSet, key}, func() error { return f.inner.Set(ctx, key, value) })
}

// Delete implements [secret.SecretBackend].
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.around(ctx, Call{OpDelete, key}, func() error { return f.inner.Delete(ctx, key) })
}

// Read implements [secret.OwnedBackend].
func (f *Faulty) Read(ctx context.Context, key string) (item secret.Item, err error) {
	err = f.around(ctx, Call{OpRead, key}, func() error {
		item, err = f.inner.Read(ctx, key)
		return err
	})
	if err != nil {
		return secret.Item{}, err
	}
	return item, nil
}

// Create implements [secret.OwnedBackend].
func (f *Faulty) Create(ctx context.Context, key, value, owner string) (string, error) {
	return f.write(ctx, Call{OpCreate, key}, func() (string, error) { return f.inner.Create(ctx, key, value, owner) })
}

// Replace implements [secret.OwnedBackend].
func (f *Faulty) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	return f.write(ctx, Call{OpReplace, key}, func() (string, error) {
		return f.inner.Replace(ctx, key, value, owner, ifVersion)
	})
}

// RemoveVersion implements [secret.VersionRemover]. A wrapped backend without it
// deletes the key.
func (f *Faulty) RemoveVersion(ctx context.Context, key, version string) error {
	return f.around(ctx, Call{OpRemoveVersion, key}, func() error {
		if r, ok := f.inner.(secret.VersionRemover); ok {
			return r.RemoveVersion(ctx, key, version)
		}
		return f.inner.Delete(ctx, key)
	})
}

// RemoveRemnant implements [secret.RemnantRemover]. A wrapped backend without it leaves
// none.
func (f *Faulty) RemoveRemnant(ctx context.Context, key string, mine func(owner string) bool) (removed bool, err error) {
	err = f.around(ctx, Call{OpRemoveRemnant, key}, func() error {
		if r, ok := f.inner.(secret.RemnantRemover); ok {
			removed, err = r.RemoveRemnant(ctx, key, mine)
		}
		return err
	})
	return removed && err == nil, err
}

func (f *Faulty) write(ctx context.Context, c Call, do func() (string, error)) (version string, err error) {
	err = f.around(ctx, c, func() error {
		version, err = do()
		return err
	})
	if err != nil {
		return "", err
	}
	return version, nil
}

// Locate implements [secret.Locator]; the key itself if the wrapped backend has none.
func (f *Faulty) Locate(key string) string {
	if l, ok := f.inner.(secret.Locator); ok {
		return l.Locate(key)
	}
	return key
}

// Probe implements [secret.Prober]; a wrapped backend without it is healthy.
func (f *Faulty) Probe(ctx context.Context, need secret.Access) error {
	return f.around(ctx, Call{OpProbe, ""}, func() error {
		if p, ok := f.inner.(secret.Prober); ok {
			return p.Probe(ctx, need)
		}
		return ctx.Err()
	})
}

// ReadReference implements [secret.ReferenceReader].
func (f *Faulty) ReadReference(ctx context.Context, ref secret.Reference) (item secret.Item, err error) {
	err = f.around(ctx, Call{OpReadReference, ref.String()}, func() error {
		r, ok := f.inner.(secret.ReferenceReader)
		if !ok {
			return errNoReferences
		}
		item, err = r.ReadReference(ctx, ref)
		return err
	})
	if err != nil {
		return secret.Item{}, err
	}
	return item, nil
}

// errNoReferences: to a wrapped backend that reads no references every one is illegal.
var errNoReferences = fmt.Errorf("%w: the backend reads no references", secret.ErrInvalid)

// ReferenceSegments implements [secret.ReferenceReader].
func (f *Faulty) ReferenceSegments(path string) ([]string, error) {
	if r, ok := f.inner.(secret.ReferenceReader); ok {
		return r.ReferenceSegments(path)
	}
	return nil, errNoReferences
}

// ReferencePrefix implements [secret.ReferenceReader].
func (f *Faulty) ReferencePrefix() []string {
	if r, ok := f.inner.(secret.ReferenceReader); ok {
		return r.ReferencePrefix()
	}
	return nil
}

// LocateReference implements [secret.ReferenceReader].
func (f *Faulty) LocateReference(ref secret.Reference) string {
	if r, ok := f.inner.(secret.ReferenceReader); ok {
		return r.LocateReference(ref)
	}
	return ref.String()
}

// Batch returns a [secret.BatchReader] of the same store, whose every outcome is the
// error of a hook. Faulty itself is none, so that what is read through it is read key by
// key; set it in a [secret.Capabilities] where it shall not be. A wrapped backend that
// reads no batches is read key by key.
func (f *Faulty) Batch() secret.BatchReader { return faultyBatch{f} }

type faultyBatch struct{ f *Faulty }

// ReadBatch implements [secret.BatchReader].
func (b faultyBatch) ReadBatch(ctx context.Context, keys []string) []secret.Outcome {
	outcomes := make([]secret.Outcome, len(keys))
	err := b.f.around(ctx, Call{OpReadBatch, strings.Join(keys, " ")}, func() error {
		if r, ok := b.f.inner.(secret.BatchReader); ok {
			outcomes = r.ReadBatch(ctx, keys)
			return nil
		}
		for i, key := range keys {
			item, err := b.f.inner.Read(ctx, key)
			item.Owner = ""
			outcomes[i] = secret.Outcome{Item: item, Err: err}
		}
		return nil
	})
	if err == nil {
		return outcomes
	}
	for i := range outcomes {
		outcomes[i] = secret.Outcome{Err: err}
	}
	return outcomes
}

// around notes the call and makes it between the hooks.
func (f *Faulty) around(ctx context.Context, c Call, do func() error) error {
	f.mu.Lock()
	f.calls = append(f.calls, c)
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(ctx, c); err != nil {
			return err
		}
	}
	if err := do(); err != nil || after == nil {
		return err
	}
	return after(ctx, c)
}

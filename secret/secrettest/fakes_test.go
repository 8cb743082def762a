package secrettest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// fake is the reference backend with some methods replaced.
type fake struct {
	*memory.Backend
	get     func(ctx context.Context, key string) (string, error)
	set     func(ctx context.Context, key, value string) error
	del     func(ctx context.Context, key string) error
	read    func(ctx context.Context, key string) (secret.Item, error)
	create  func(ctx context.Context, key, value, owner string) (string, error)
	replace func(ctx context.Context, key, value, owner, ifVersion string) (string, error)
	remove  func(ctx context.Context, key, version string) error
	clear   func(ctx context.Context, key string, mine func(string) bool) (bool, error)
	probe   func(ctx context.Context, need secret.Access) error
	batch   func(ctx context.Context, keys []string) []secret.Outcome
	locate  func(key string) string
	print   func() string

	reference func(ctx context.Context, ref secret.Reference) (secret.Item, error)
	segments  func(path string) ([]string, error)
	prefix    func() []string
	place     func(ref secret.Reference) string
}

// honest returns a fake that behaves.
func honest() *fake {
	m := memory.New()
	return &fake{
		Backend: m, get: m.Get, set: m.Set, del: m.Delete, read: m.Read, create: m.Create, replace: m.Replace, remove: m.RemoveVersion,
		clear: m.RemoveRemnant,
		probe: m.Probe, batch: m.ReadBatch, locate: m.Locate, print: m.String,
		reference: m.ReadReference, segments: m.ReferenceSegments, prefix: m.ReferencePrefix, place: m.LocateReference,
	}
}

func (f *fake) Get(ctx context.Context, key string) (string, error)       { return f.get(ctx, key) }
func (f *fake) Set(ctx context.Context, key, value string) error          { return f.set(ctx, key, value) }
func (f *fake) Delete(ctx context.Context, key string) error              { return f.del(ctx, key) }
func (f *fake) Read(ctx context.Context, key string) (secret.Item, error) { return f.read(ctx, key) }
func (f *fake) Create(ctx context.Context, key, value, owner string) (string, error) {
	return f.create(ctx, key, value, owner)
}
func (f *fake) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	return f.replace(ctx, key, value, owner, ifVersion)
}
func (f *fake) RemoveVersion(ctx context.Context, key, version string) error {
	return f.remove(ctx, key, version)
}
func (f *fake) RemoveRemnant(ctx context.Context, key string, mine func(string) bool) (bool, error) {
	return f.clear(ctx, key, mine)
}
func (f *fake) ReadBatch(ctx context.Context, keys []string) []secret.Outcome {
	return f.batch(ctx, keys)
}
func (f *fake) Probe(ctx context.Context, need secret.Access) error { return f.probe(ctx, need) }
func (f *fake) Locate(key string) string                            { return f.locate(key) }
func (f *fake) ReadReference(ctx context.Context, ref secret.Reference) (secret.Item, error) {
	return f.reference(ctx, ref)
}
func (f *fake) ReferenceSegments(path string) ([]string, error) { return f.segments(path) }
func (f *fake) ReferencePrefix() []string                       { return f.prefix() }
func (f *fake) LocateReference(ref secret.Reference) string     { return f.place(ref) }
func (f *fake) Format(s fmt.State, _ rune)                      { _, _ = s.Write([]byte(f.print())) }

// rewrite makes the fake store each key and value as change makes them.
func (f *fake) rewrite(changeKey, changeValue func(string) string) *fake {
	m := f.Backend
	f.get = func(ctx context.Context, key string) (string, error) { return m.Get(ctx, changeKey(key)) }
	f.read = func(ctx context.Context, key string) (secret.Item, error) { return m.Read(ctx, changeKey(key)) }
	f.del = func(ctx context.Context, key string) error { return m.Delete(ctx, changeKey(key)) }
	f.remove = func(ctx context.Context, key, version string) error {
		return m.RemoveVersion(ctx, changeKey(key), version)
	}
	f.clear = func(ctx context.Context, key string, mine func(string) bool) (bool, error) {
		return m.RemoveRemnant(ctx, changeKey(key), mine)
	}
	f.set = func(ctx context.Context, key, value string) error {
		return m.Set(ctx, changeKey(key), changeValue(value))
	}
	f.create = func(ctx context.Context, key, value, owner string) (string, error) {
		return m.Create(ctx, changeKey(key), changeValue(value), owner)
	}
	f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
		return m.Replace(ctx, changeKey(key), changeValue(value), owner, ifVersion)
	}
	return f
}

// fail passes every error of the fake through change, which gets the value too.
func (f *fake) fail(change func(err error, key, value string) error) *fake {
	m := f.Backend
	f.get = func(ctx context.Context, key string) (string, error) {
		v, err := m.Get(ctx, key)
		return v, change(err, key, "")
	}
	f.read = func(ctx context.Context, key string) (secret.Item, error) {
		item, err := m.Read(ctx, key)
		return item, change(err, key, "")
	}
	f.del = func(ctx context.Context, key string) error { return change(m.Delete(ctx, key), key, "") }
	f.set = func(ctx context.Context, key, value string) error { return change(m.Set(ctx, key, value), key, value) }
	f.create = func(ctx context.Context, key, value, owner string) (string, error) {
		v, err := m.Create(ctx, key, value, owner)
		return v, change(err, key, value)
	}
	f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
		v, err := m.Replace(ctx, key, value, owner, ifVersion)
		return v, change(err, key, value)
	}
	f.remove = func(ctx context.Context, key, version string) error {
		return change(m.RemoveVersion(ctx, key, version), key, "")
	}
	f.clear = func(ctx context.Context, key string, mine func(string) bool) (bool, error) {
		removed, err := m.RemoveRemnant(ctx, key, mine)
		return removed, change(err, key, "")
	}
	f.batch = func(ctx context.Context, keys []string) []secret.Outcome {
		outcomes := m.ReadBatch(ctx, keys)
		for i, key := range keys {
			outcomes[i].Err = change(outcomes[i].Err, key, "")
		}
		return outcomes
	}
	return f.failReferences(func(err error, ref, _ string) error { return change(err, ref, "") })
}

// failReferences passes every error of ReadReference through change, which gets what is
// stored at the path too.
func (f *fake) failReferences(change func(err error, ref, stored string) error) *fake {
	m := f.Backend
	f.reference = func(ctx context.Context, ref secret.Reference) (secret.Item, error) {
		item, err := m.ReadReference(ctx, ref)
		whole, _ := m.ReadReference(context.Background(), secret.Reference{Path: ref.Path})
		if err = change(err, ref.String(), whole.Value.Reveal()); err != nil {
			return secret.Item{}, err
		}
		return item, nil
	}
	return f
}

// lenient makes Set accept what accept agrees to although it is over the limits.
func (f *fake) lenient(accept func(key, value string) bool) *fake {
	f.set = func(ctx context.Context, key, value string) error {
		if accept(key, value) && (secret.CheckKey(key) != nil || secret.CheckValue(value) != nil) {
			return nil
		}
		return f.Backend.Set(ctx, key, value)
	}
	return f
}

func same(s string) string { return s }

// renamed is an error with another text.
type renamed struct {
	err  error
	text string
}

func (e renamed) Error() string { return e.text }
func (e renamed) Unwrap() error { return e.err }

// withBody is an error like a client library's, with the request in a field.
type withBody struct {
	err  error
	Body string
}

func (e withBody) Error() string { return e.err.Error() }
func (e withBody) Unwrap() error { return e.err }

// ignoreContext goes on although ctx has ended with ended.
func ignoreContext(ended error) secret.SecretBackend {
	f := honest()
	m := f.Backend
	without := func(ctx context.Context) context.Context {
		if errors.Is(ctx.Err(), ended) {
			return context.WithoutCancel(ctx)
		}
		return ctx
	}
	f.get = func(ctx context.Context, key string) (string, error) { return m.Get(without(ctx), key) }
	f.set = func(ctx context.Context, key, value string) error { return m.Set(without(ctx), key, value) }
	f.del = func(ctx context.Context, key string) error { return m.Delete(without(ctx), key) }
	f.read = func(ctx context.Context, key string) (secret.Item, error) { return m.Read(without(ctx), key) }
	f.probe = func(ctx context.Context, need secret.Access) error { return m.Probe(without(ctx), need) }
	return f
}

// staleCache remembers what Get has seen and forgets it only now and then.
func staleCache() secret.SecretBackend {
	type seen struct {
		value string
		err   error
	}
	f := honest()
	var mu sync.Mutex
	cache := map[string]seen{}
	f.get = func(ctx context.Context, key string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if s, ok := cache[key]; ok && ctx.Err() == nil {
			return s.value, s.err
		}
		v, err := f.Backend.Get(ctx, key)
		if err == nil || errors.Is(err, secret.ErrNotFound) {
			cache[key] = seen{v, err}
		}
		return v, err
	}
	return f
}

// undo deletes the newest version only.
func undo() secret.SecretBackend {
	f := honest()
	var mu sync.Mutex
	versions := map[string][]string{}
	f.set = func(ctx context.Context, key, value string) error {
		mu.Lock()
		defer mu.Unlock()
		err := f.Backend.Set(ctx, key, value)
		if err == nil {
			versions[key] = append(versions[key], value)
		}
		return err
	}
	f.del = func(ctx context.Context, key string) error {
		mu.Lock()
		defer mu.Unlock()
		err := f.Backend.Delete(ctx, key)
		if n := len(versions[key]); err == nil && n > 1 {
			versions[key] = versions[key][:n-1]
			return f.Backend.Set(ctx, key, versions[key][n-2])
		}
		delete(versions, key)
		return err
	}
	return f
}

// lostUpdates keeps all keys in one document, which it reads, changes and writes
// back: free of data races, and of atomicity.
func lostUpdates() secret.SecretBackend {
	f := honest()
	var mu sync.Mutex
	document := map[string]string{}
	load := func() map[string]string {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(document)
	}
	save := func(d map[string]string) {
		mu.Lock()
		defer mu.Unlock()
		document = d
	}
	f.get = func(ctx context.Context, key string) (string, error) {
		if v, ok := load()[key]; ok && ctx.Err() == nil {
			return v, nil
		}
		return f.Backend.Get(ctx, key)
	}
	f.set = func(ctx context.Context, key, value string) error {
		if err := f.Backend.Set(ctx, key, value); err != nil {
			return err
		}
		defer func() { _ = f.Backend.Delete(ctx, key) }()
		d := load()
		runtime.Gosched()
		d[key] = value
		save(d)
		return nil
	}
	f.del = func(ctx context.Context, key string) error {
		d := load()
		runtime.Gosched()
		delete(d, key)
		save(d)
		return f.Backend.Delete(ctx, key)
	}
	return f
}

// ownersElsewhere keeps the owners apart from the values, and does not delete them.
func ownersElsewhere() secret.SecretBackend {
	f := honest()
	var owners sync.Map
	f.create = func(ctx context.Context, key, value, owner string) (string, error) {
		version, err := f.Backend.Create(ctx, key, value, owner)
		if err == nil {
			owners.Store(key, owner)
		}
		return version, err
	}
	f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
		version, err := f.Backend.Replace(ctx, key, value, owner, ifVersion)
		if err == nil {
			owners.Store(key, owner)
		}
		return version, err
	}
	f.read = func(ctx context.Context, key string) (secret.Item, error) {
		item, err := f.Backend.Read(ctx, key)
		if owner, ok := owners.Load(key); ok && err == nil {
			item.Owner = owner.(string)
		}
		return item, err
	}
	return f
}

// inTrouble returns an option's backend whose every call fails with what fail says.
func inTrouble(fail func(ctx context.Context, c memory.Call) error) func(t *testing.T) secret.SecretBackend {
	return func(*testing.T) secret.SecretBackend {
		f := memory.NewFaulty(memory.New())
		f.Before(fail)
		return f
	}
}

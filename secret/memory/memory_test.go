package memory_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
)

func TestConformance(t *testing.T) {
	secrettest.Run(t, func(*testing.T) secret.SecretBackend { return memory.New() },
		secrettest.WithName(memory.Name), secrettest.WithRemnants(secrettest.Remnants{
			Leave: func(_ *testing.T, b secret.SecretBackend, key, owner string) { b.(*memory.Backend).Abandon(key, owner) },
			Left: func(_ *testing.T, b secret.SecretBackend, key string) bool {
				return b.(*memory.Backend).Abandoned(key)
			},
		}), secrettest.WithReferences(secrettest.References{
			Store: func(t *testing.T, b secret.SecretBackend, name string, f secrettest.Foreign) (path, version string) {
				value := f.Text
				if f.Fields != nil {
					object, err := json.Marshal(f.Fields)
					if err != nil {
						t.Fatal(err)
					}
					value = string(object)
				}
				path = "team-a/" + name
				version, err := b.(*memory.Backend).Place(path, value)
				if err != nil {
					t.Fatal(err)
				}
				return path, version
			},
			Path: func(key string) string { return memory.Name + "/" + key },
		}))
}

func TestPlaceRefuses(t *testing.T) {
	b := memory.New()
	for path, value := range map[string]string{"memory/a": "x", "/memory/a": "x", "a/../b": "x", "": "x", "a": ""} {
		if _, err := b.Place(path, value); !errors.Is(err, secret.ErrInvalid) {
			t.Errorf("Place(%q, %q): %v", path, value, err)
		}
	}
	if len(b.Keys()) != 0 {
		t.Errorf("there are keys: %q", b.Keys())
	}
}

func TestFaultySeesReferences(t *testing.T) {
	b := memory.New()
	if _, err := b.Place("a/b", "x"); err != nil {
		t.Fatal(err)
	}
	f := memory.NewFaulty(b)
	outage := errors.New("outage")
	f.Fail(outage, memory.OpReadReference)
	ref := secret.Reference{Path: "a/b"}
	if _, err := f.ReadReference(t.Context(), ref); !errors.Is(err, outage) {
		t.Errorf("ReadReference returns %v", err)
	}
	f.Fail(nil)
	if item, err := f.ReadReference(t.Context(), ref); err != nil || item.Value.Reveal() != "x" {
		t.Errorf("healed, ReadReference returns %v", err)
	}
	if c := f.Calls(); len(c) != 2 || c[0] != (memory.Call{Op: memory.OpReadReference, Key: "a/b"}) {
		t.Errorf("the calls are %v", c)
	}
	// A backend that reads no references still reads none when it is wrapped.
	f = memory.NewFaulty(struct{ secret.OwnedBackend }{b})
	if _, err := f.ReadReference(t.Context(), ref); !errors.Is(err, secret.ErrInvalid) {
		t.Errorf("ReadReference returns %v", err)
	}
	if _, err := f.ReferenceSegments("a/b"); !errors.Is(err, secret.ErrInvalid) {
		t.Errorf("ReferenceSegments returns %v", err)
	}
}

func TestKeys(t *testing.T) {
	b := memory.New()
	for _, key := range []string{"b/client_id", "a"} {
		if err := b.Set(t.Context(), key, "x"); err != nil {
			t.Fatal(err)
		}
	}
	keys := b.Keys()
	slices.Sort(keys)
	if !slices.Equal(keys, []string{"a", "b/client_id"}) {
		t.Errorf("the keys are %q", keys)
	}
	if at := b.Locate("b"); at != "memory/b" {
		t.Errorf("b lies at %s", at)
	}
}

func TestFaultyFails(t *testing.T) {
	b := memory.New()
	f := memory.NewFaulty(b)
	outage := errors.New("outage")
	f.Fail(outage, memory.Writes...)
	_, createErr := f.Create(t.Context(), "a", "x", "me")
	_, replaceErr := f.Replace(t.Context(), "a", "x", "me", "")
	for _, err := range []error{f.Set(t.Context(), "a", "x"), f.Delete(t.Context(), "a"), createErr, replaceErr} {
		if !errors.Is(err, outage) {
			t.Errorf("a write returns %v", err)
		}
	}
	if _, err := f.Get(t.Context(), "a"); !errors.Is(err, secret.ErrNotFound) {
		t.Errorf("a read returns %v", err)
	}
	if len(b.Keys()) != 0 {
		t.Error("a failed write took place")
	}
	f.Fail(outage)
	if err := f.Probe(t.Context(), secret.ReadOnly); !errors.Is(err, outage) {
		t.Errorf("Probe returns %v", err)
	}
	f.Fail(nil)
	if err := f.Set(t.Context(), "a", "x"); err != nil {
		t.Errorf("healed, Set returns %v", err)
	}
	if n, writes, sets := f.Count(), f.Count(memory.Writes...), f.Count(memory.OpSet); n != 7 || writes != 5 || sets != 2 {
		t.Errorf("%d calls, %d writes, %d of them Set", n, writes, sets)
	}
	if c := f.Calls(); c[0] != (memory.Call{Op: memory.OpCreate, Key: "a"}) {
		t.Errorf("the first call is %v", c[0])
	}
	f.Reset()
	if f.Count() != 0 {
		t.Error("Reset has forgotten nothing")
	}
}

func TestFaultyLosesAnswers(t *testing.T) {
	b := memory.New()
	f := memory.NewFaulty(b)
	lost := errors.New("lost")
	f.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpCreate {
			return lost
		}
		return nil
	})
	if version, err := f.Create(t.Context(), "a", "x", "me"); !errors.Is(err, lost) || version != "" {
		t.Errorf("Create returns %q, %v", version, err)
	}
	if item, err := f.Read(t.Context(), "a"); err != nil || item.Owner != "me" {
		t.Errorf("the write did not take place: %v", err)
	}
}

func TestFaultyStalls(t *testing.T) {
	f := memory.NewFaulty(memory.New())
	release := f.Stall(memory.OpGet)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stalled Get returns %v", err)
	}
	if err := f.Set(t.Context(), "a", "x"); err != nil {
		t.Errorf("Set is stalled too: %v", err)
	}
	result := make(chan error)
	go func() {
		_, err := f.Get(context.Background(), "a")
		result <- err
	}()
	release()
	release()
	if err := <-result; err != nil {
		t.Errorf("released, Get returns %v", err)
	}
}

package secrettest

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The sentences of OwnedBackend about versions. A backend that keeps none is excused.
var versionTests = []subtest{
	{"ReplaceOfTheStoredVersionReplacesIt", owned((*suite).replaceVersion)},
	{"ReplaceOfAnotherVersionIsErrChangedAndChangesNothing", owned((*suite).replaceChanged)},
	{"OfConcurrentReplacesOfOneVersionExactlyOneSucceeds", owned((*suite).replaceRace)},
}

// The sentences that a VersionRemover keeps.
var removerTests = []subtest{
	{"RemoveVersionRemovesTheNewest", remover((*suite).removeNewest)},
	{"RemoveVersionLeavesANewerOne", remover((*suite).removeOlder)},
	{"RemoveVersionOfAMissingVersionIsNil", remover((*suite).removeMissing)},
}

func remover(run func(*suite, *testing.T, secret.OwnedBackend, secret.VersionRemover)) func(*suite, *testing.T, secret.SecretBackend) {
	return func(s *suite, t *testing.T, b secret.SecretBackend) {
		can := secret.CapabilitiesOf(b)
		if can.Owned == nil || can.Versions == nil {
			t.Fatal("the backend of this subtest is no OwnedBackend and VersionRemover; that of another was")
		}
		run(s, t, can.Owned, can.Versions)
	}
}

// keepsVersions reports whether the store that the suite runs on keeps versions: a backend
// may find that out of its store only.
func (s *suite) keepsVersions(t *testing.T, b secret.OwnedBackend) bool {
	t.Helper()
	if b == nil {
		return false
	}
	return mustCreate(t, b, s.key(t, b, "client_id"), "first", "owner-a") != ""
}

// first creates a key and returns its version.
func (s *suite) first(t *testing.T, b secret.OwnedBackend) (key, version string) {
	t.Helper()
	key = s.key(t, b, "client_secret")
	version = mustCreate(t, b, key, "first", "owner-a")
	if version == "" {
		t.Fatal("Create returns no version; it has done so before")
	}
	return key, version
}

func (s *suite) replaceVersion(t *testing.T, b secret.OwnedBackend) {
	key, version := s.first(t, b)
	for range 3 {
		value := s.value()
		next, err := b.Replace(bounded(t), key, value, "owner-b", version)
		if err != nil {
			t.Fatalf("Replace of the version %q, which is stored: %v", version, err)
		}
		wantItem(t, b, key, value, "owner-b", next)
		version = next
	}
	mustSet(t, b, key, "somebody's")
	next, err := b.Replace(bounded(t), key, "value", "owner-b", read(t, b, key).Version)
	if err != nil {
		t.Fatalf("Replace of the version that Set has stored: %v", err)
	}
	wantItem(t, b, key, "value", "owner-b", next)
}

func (s *suite) replaceChanged(t *testing.T, b secret.OwnedBackend) {
	key, version := s.first(t, b)
	refuse := func(why, ifVersion string) {
		t.Helper()
		_, err := b.Replace(bounded(t), key, "late", "owner-c", ifVersion)
		wantOnly(t, err, secret.ErrChanged, "Replace "+why)
		wantNoTrace(t, "Replace", err, "late")
	}
	second := mustReplace(t, b, key, "second", "owner-b")
	refuse("of an older version", version)
	refuse("of what was never a version", "0")
	wantItem(t, b, key, "second", "owner-b", second)
	mustSet(t, b, key, "third")
	refuse("of an older version than Set's", second)
	wantValue(t, b, key, "third")
	mustDelete(t, b, key)
	refuse("of a deleted version", second)
	wantMissing(t, b, key)
}

func (s *suite) replaceRace(t *testing.T, b secret.OwnedBackend) {
	key, version := s.first(t, b)
	for range rounds {
		var winners atomic.Int32
		var won atomic.Value
		inParallel(callers, func(int) {
			value := s.value()
			_, err := b.Replace(bounded(t), key, value, owner, version)
			switch {
			case err == nil:
				winners.Add(1)
				won.Store(value)
			case !errors.Is(err, secret.ErrChanged):
				t.Errorf("Replace: %v", err)
			}
		})
		if n := winners.Load(); n != 1 {
			t.Fatalf("%d of %d concurrent Replaces of one version succeeded", n, callers)
		}
		item := read(t, b, key)
		if item.Value.Reveal() != won.Load() {
			t.Error("what is stored is not what the one that succeeded has written")
		}
		version = item.Version
	}
}

func mustRemove(t *testing.T, b secret.VersionRemover, key, version string) {
	t.Helper()
	if err := b.RemoveVersion(bounded(t), key, version); err != nil {
		t.Fatalf("RemoveVersion(%s, %s): %v", key, version, err)
	}
}

func (s *suite) removeNewest(t *testing.T, b secret.OwnedBackend, r secret.VersionRemover) {
	key, version := s.first(t, b)
	for range 2 { // the only one, and one that followed another
		for range 2 {
			mustRemove(t, r, key, version)
			wantMissing(t, b, key)
		}
		version = mustCreate(t, b, key, "again", "owner-b")
		wantItem(t, b, key, "again", "owner-b", version)
		version = mustReplace(t, b, key, "and again", "owner-b")
	}
}

func (s *suite) removeOlder(t *testing.T, b secret.OwnedBackend, r secret.VersionRemover) {
	key, version := s.first(t, b)
	second := mustReplace(t, b, key, "second", "owner-b")
	mustRemove(t, r, key, version)
	wantItem(t, b, key, "second", "owner-b", second)
	mustSet(t, b, key, "third")
	mustRemove(t, r, key, second)
	wantValue(t, b, key, "third")
}

func (s *suite) removeMissing(t *testing.T, b secret.OwnedBackend, r secret.VersionRemover) {
	key, version := s.first(t, b)
	mustDelete(t, b, key)
	mustRemove(t, r, key, version)
	wantMissing(t, b, key)
}

package secrettest

import (
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Remnants provides what a [secret.RemnantRemover] removes.
type Remnants struct {
	// Leave leaves at key, where nothing is, what a Create for owner through b leaves
	// when it is cut off: no value.
	Leave func(t *testing.T, b secret.SecretBackend, key, owner string)
	// Left reports whether the store has anything at key.
	Left func(t *testing.T, b secret.SecretBackend, key string) bool
}

// The sentences that a RemnantRemover keeps.
var remnantTests = []subtest{
	{"RemoveRemnantRemovesWhatItsOwnerHasBegun", remnants((*suite).removeRemnant)},
	{"RemoveRemnantLeavesWhatAnotherOwnerHasBegun", remnants((*suite).removeOthersRemnant)},
	{"RemoveRemnantLeavesAValue", remnants((*suite).removeNoRemnant)},
	{"RemoveRemnantOfAMissingKeyIsNil", remnants((*suite).removeMissingRemnant)},
}

func remnants(run func(*suite, *testing.T, secret.OwnedBackend, secret.RemnantRemover)) func(*suite, *testing.T, secret.SecretBackend) {
	return func(s *suite, t *testing.T, b secret.SecretBackend) {
		can := secret.CapabilitiesOf(b)
		if can.Owned == nil || can.Remnants == nil {
			t.Fatal("the backend of this subtest is no OwnedBackend and RemnantRemover; that of another was")
		}
		run(s, t, can.Owned, can.Remnants)
	}
}

func anybody(string) bool { return true }

// wantRemoved calls RemoveRemnant for what one owner has begun.
func wantRemoved(t *testing.T, r secret.RemnantRemover, key string, mine func(string) bool, want bool) {
	t.Helper()
	removed, err := r.RemoveRemnant(bounded(t), key, mine)
	if err != nil {
		t.Fatalf("RemoveRemnant(%s): %v", key, err)
	}
	if removed != want {
		t.Errorf("RemoveRemnant(%s) = %t, want %t", key, removed, want)
	}
}

func (s *suite) removeRemnant(t *testing.T, b secret.OwnedBackend, r secret.RemnantRemover) {
	key := s.key(t, b, "client_secret")
	for range 2 { // also where there was one before
		s.remnants.Leave(t, b, key, "owner-a")
		if !s.remnants.Left(t, b, key) {
			t.Fatal("Leave has left nothing")
		}
		wantMissing(t, b, key)
		asked := ""
		wantRemoved(t, r, key, func(owner string) bool { asked = owner; return owner == "owner-a" }, true)
		if asked != "owner-a" {
			t.Errorf("RemoveRemnant asks whether %q is meant", asked)
		}
		if s.remnants.Left(t, b, key) {
			t.Error("after RemoveRemnant there is still something")
		}
		wantRemoved(t, r, key, anybody, false)
		version := mustCreate(t, b, key, "value", "owner-b")
		wantItem(t, b, key, "value", "owner-b", version)
		mustDelete(t, b, key)
	}
}

func (s *suite) removeOthersRemnant(t *testing.T, b secret.OwnedBackend, r secret.RemnantRemover) {
	key := s.key(t, b, "client_secret")
	s.remnants.Leave(t, b, key, "owner-a")
	wantRemoved(t, r, key, func(owner string) bool { return owner != "owner-a" }, false)
	if !s.remnants.Left(t, b, key) {
		t.Error("what another owner has begun is not there any more")
	}
	wantRemoved(t, r, key, anybody, true)
}

func (s *suite) removeNoRemnant(t *testing.T, b secret.OwnedBackend, r secret.RemnantRemover) {
	created, set := s.key(t, b, "created"), s.key(t, b, "set")
	version := mustCreate(t, b, created, "value", owner)
	wantRemoved(t, r, created, anybody, false)
	wantItem(t, b, created, "value", owner, version)
	mustSet(t, b, set, "value")
	wantRemoved(t, r, set, anybody, false)
	wantItem(t, b, set, "value", "", read(t, b, set).Version)
	version = mustReplace(t, b, created, "second", owner)
	wantRemoved(t, r, created, anybody, false)
	wantItem(t, b, created, "second", owner, version)
}

func (s *suite) removeMissingRemnant(t *testing.T, b secret.OwnedBackend, r secret.RemnantRemover) {
	key := s.key(t, b, "client_secret")
	for range 2 {
		wantRemoved(t, r, key, anybody, false)
		mustCreate(t, b, key, "value", owner)
		mustDelete(t, b, key)
	}
	wantMissing(t, b, key)
}

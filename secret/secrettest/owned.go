package secrettest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The sentences that an OwnedBackend keeps.
var ownedTests = []subtest{
	{"ReadReturnsWhatGetReturns", owned((*suite).readLikeGet)},
	{"ReadOfAMissingKeyIsErrNotFound", owned((*suite).readMissing)},
	{"CreateStoresTheValueWithItsOwner", owned((*suite).create)},
	{"CreateOfAnExistingKeyIsErrExistsAndChangesNothing", owned((*suite).createExisting)},
	{"CreateWorksAgainAtOnceAfterDelete", owned((*suite).createAfterDelete)},
	{"OfConcurrentCreatesExactlyOneSucceeds", owned((*suite).createRace)},
	{"ReplaceStoresTheValueWithItsOwner", owned((*suite).replaceOwned)},
	{"SetLeavesNoOwner", owned((*suite).setClearsOwner)},
	{"DeleteRemovesTheOwnerToo", owned((*suite).deleteClearsOwner)},
	{"EachWriteHasAVersionOfItsOwn", owned((*suite).versions)},
	{"EveryIllegalOwnerIsErrInvalid", owned((*suite).illegalOwners)},
	{"EveryLegalOwnerIsKept", owned((*suite).legalOwners)},
	{"CreateAndReplaceKeepTheValueByteForByte", owned((*suite).ownedRoundTrip)},
	{"ErrExistsShowsNoValue", owned((*suite).existsShowsNoValue)},
	{"AnItemShowsNoValueWhenPrinted", owned((*suite).itemPrinted)},
}

func owned(run func(*suite, *testing.T, secret.OwnedBackend)) func(*suite, *testing.T, secret.SecretBackend) {
	return func(s *suite, t *testing.T, b secret.SecretBackend) {
		o := secret.CapabilitiesOf(b).Owned
		if o == nil {
			t.Fatal("the backend of this subtest is no OwnedBackend; that of another was")
		}
		run(s, t, o)
	}
}

func read(t *testing.T, b secret.OwnedBackend, key string) secret.Item {
	t.Helper()
	item, err := b.Read(bounded(t), key)
	if err != nil {
		t.Fatalf("Read(%s): %v", key, err)
	}
	return item
}

// wantItem checks what Read returns.
func wantItem(t *testing.T, b secret.OwnedBackend, key, value, owner, version string) {
	t.Helper()
	item := read(t, b, key)
	if item.Value.Reveal() != value {
		t.Errorf("Read(%s): the value is %s, want %s", key, shorten(item.Value.Reveal()), shorten(value))
	}
	if item.Owner != owner {
		t.Errorf("Read(%s): the owner is %q, want %q", key, item.Owner, owner)
	}
	if item.Version != version {
		t.Errorf("Read(%s): the version is %q, want %q", key, item.Version, version)
	}
}

func mustCreate(t *testing.T, b secret.OwnedBackend, key, value, owner string) (version string) {
	t.Helper()
	version, err := b.Create(bounded(t), key, value, owner)
	if err != nil {
		t.Fatalf("Create(%s): %v", key, err)
	}
	return version
}

func mustReplace(t *testing.T, b secret.OwnedBackend, key, value, owner string) (version string) {
	t.Helper()
	version, err := b.Replace(bounded(t), key, value, owner, "")
	if err != nil {
		t.Fatalf("Replace(%s): %v", key, err)
	}
	return version
}

func (s *suite) readLikeGet(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	for name, value := range legalValues {
		mustSet(t, b, key, value)
		if got := read(t, b, key).Value.Reveal(); got != value {
			t.Errorf("%s: Read returns %s, want %s", name, shorten(got), shorten(value))
		}
	}
}

func (s *suite) readMissing(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	for range 2 {
		item, err := b.Read(bounded(t), key)
		wantOnly(t, err, secret.ErrNotFound, "Read of a missing key")
		if !item.Value.IsZero() {
			t.Error("Read of a missing key returns a value")
		}
		mustSet(t, b, key, "value")
		mustDelete(t, b, key)
	}
}

func (s *suite) create(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	version := mustCreate(t, b, key, "value", "owner-a")
	wantItem(t, b, key, "value", "owner-a", version)
	wantValue(t, b, key, "value")
}

func (s *suite) createExisting(t *testing.T, b secret.OwnedBackend) {
	ways := map[string]func(key string) (owner string){
		"Set": func(key string) string { mustSet(t, b, key, "before"); return "" },
		"Create": func(key string) string {
			mustCreate(t, b, key, "before", "owner-a")
			return "owner-a"
		},
		"Replace": func(key string) string {
			mustReplace(t, b, key, "before", "owner-b")
			return "owner-b"
		},
	}
	for name, write := range ways {
		key := s.key(t, b, "client_secret")
		owner := write(key)
		version := read(t, b, key).Version
		for _, other := range []string{"owner-a", "owner-b", "owner-c"} {
			_, err := b.Create(bounded(t), key, "after", other)
			wantOnly(t, err, secret.ErrExists, "Create after "+name)
			wantItem(t, b, key, "before", owner, version)
		}
	}
}

func (s *suite) createAfterDelete(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	for _, owner := range []string{"owner-a", "owner-a", "owner-b"} {
		version := mustCreate(t, b, key, "value of "+owner, owner)
		wantItem(t, b, key, "value of "+owner, owner, version)
		mustDelete(t, b, key)
		wantMissing(t, b, key)
	}
}

func (s *suite) createRace(t *testing.T, b secret.OwnedBackend) {
	for round := range rounds {
		key := s.key(t, b, "client_secret")
		if round%2 == 1 { // also where the key had a value once
			mustSet(t, b, key, "gone")
			mustDelete(t, b, key)
		}
		var mu sync.Mutex
		winners := map[string]string{} // value → owner
		inParallel(callers, func(i int) {
			value, owner := s.value(), "owner-"+string(rune('a'+i))
			_, err := b.Create(bounded(t), key, value, owner)
			switch {
			case err == nil:
				mu.Lock()
				winners[value] = owner
				mu.Unlock()
			case !errors.Is(err, secret.ErrExists):
				t.Errorf("Create: %v", err)
			}
		})
		item := read(t, b, key)
		if owner, won := winners[item.Value.Reveal()]; !won || item.Owner != owner {
			t.Error("what is stored was written by none of those who were told that they did")
		}
		if len(winners) != 1 && !s.noCAS {
			t.Fatalf("%d of %d concurrent Creates succeeded", len(winners), callers)
		}
	}
}

func (s *suite) replaceOwned(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	for _, owner := range []string{"owner-a", "owner-b", "owner-b"} {
		value := s.value()
		version := mustReplace(t, b, key, value, owner)
		wantItem(t, b, key, value, owner, version)
		wantValue(t, b, key, value)
	}
	mustSet(t, b, key, "somebody's")
	version := mustReplace(t, b, key, "value", "owner-a")
	wantItem(t, b, key, "value", "owner-a", version)
}

func (s *suite) setClearsOwner(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	mustSet(t, b, key, "value")
	if o := read(t, b, key).Owner; o != "" {
		t.Errorf("a value stored by Set has the owner %q", o)
	}
	mustReplace(t, b, key, "value", "owner-a")
	mustSet(t, b, key, "value")
	if o := read(t, b, key).Owner; o != "" {
		t.Errorf("after Set the owner is still %q", o)
	}
}

func (s *suite) deleteClearsOwner(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	mustCreate(t, b, key, "value", "owner-a")
	mustDelete(t, b, key)
	mustSet(t, b, key, "value")
	if o := read(t, b, key).Owner; o != "" {
		t.Errorf("after Delete and Set the owner is still %q", o)
	}
}

func (s *suite) versions(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	seen := map[string]bool{}
	note := func(how, version string) {
		t.Helper()
		if version != "" && seen[version] {
			t.Errorf("%s: the version %q was used before", how, version)
		}
		seen[version] = true
		if got := read(t, b, key).Version; got != version {
			t.Errorf("%s: it returns the version %q, Read says %q", how, version, got)
		}
		if first, second := read(t, b, key).Version, read(t, b, key).Version; first != second {
			t.Errorf("%s: the version changes from %q to %q without a write", how, first, second)
		}
	}
	note("Create", mustCreate(t, b, key, "first", "owner-a"))
	note("Replace", mustReplace(t, b, key, "second", "owner-a"))
	note("Replace by another", mustReplace(t, b, key, "third", "owner-b"))
	mustSet(t, b, key, "fourth")
	note("Set", read(t, b, key).Version)
	if len(seen) > 1 && seen[""] {
		t.Error("some writes have a version and some have none")
	}
}

var illegalOwners = []string{
	"", " ", "a b", "a\n", "ä", "a:b", "a\x00", "{}", "a\"b", "a%20", "a\\b", "a=b", strings.Repeat("o", secret.MaxOwnerBytes+1),
}

func (s *suite) illegalOwners(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	for _, c := range calls(b) {
		for _, o := range illegalOwners {
			if c.owner {
				wantOnly(t, c.do(bounded(t), key, "value", o), secret.ErrInvalid, c.name+" for the owner "+shorten(o))
			}
		}
	}
	wantMissing(t, b, key)
}

func (s *suite) legalOwners(t *testing.T, b secret.OwnedBackend) {
	key := s.key(t, b, "client_secret")
	for _, owner := range []string{
		"o", "-", ".", "..", "/", "//", "a/../b", "null", "0", "true", "_.-/", "ABCxyz019",
		"nexus-broker/0b6cf4a4-6a63-4b8e-9f0f-3f5f1c2d4e5f/12", strings.Repeat("o", secret.MaxOwnerBytes),
	} {
		version := mustReplace(t, b, key, "value", owner)
		wantItem(t, b, key, "value", owner, version)
		mustDelete(t, b, key)
		version = mustCreate(t, b, key, "value", owner)
		wantItem(t, b, key, "value", owner, version)
	}
}

func (s *suite) ownedRoundTrip(t *testing.T, b secret.OwnedBackend) {
	created, replaced := s.key(t, b, "created"), s.key(t, b, "replaced")
	for _, value := range legalValues {
		mustDelete(t, b, created)
		wantItem(t, b, created, value, owner, mustCreate(t, b, created, value, owner))
		wantItem(t, b, replaced, value, owner, mustReplace(t, b, replaced, value, owner))
	}
}

func (s *suite) existsShowsNoValue(t *testing.T, b secret.OwnedBackend) {
	key, before, after := s.key(t, b, "client_secret"), s.value(), s.value()
	mustCreate(t, b, key, before, owner)
	_, err := b.Create(bounded(t), key, after, owner)
	s.wantNamed(t, call{name: "Create", words: []string{"create"}}, key, err, "an existing key")
	wantNoTrace(t, "Create", err, before)
	wantNoTrace(t, "Create", err, after)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = b.Create(ctx, key, after, owner)
	wantNoTrace(t, "Create", err, before)
	wantNoTrace(t, "Create", err, after)
}

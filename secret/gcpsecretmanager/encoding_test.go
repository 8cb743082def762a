package gcpsecretmanager_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
)

func TestIDsAreReadable(t *testing.T) {
	t.Parallel()
	b := open(t, nil, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
	for key, want := range map[string]string{
		"google/client_id":       "nexus-providers__google__client_id",
		"my-idp_2/client_secret": "nexus-providers__my-idp_2__client_secret",
		"Acme/client_id":         "nexus-providers__Acme__client_id",
		"a.b/c":                  "nexus-providers__a_--b__c",
		"a_/_b":                  "nexus-providers__a_-____b",
		"a__b":                   "nexus-providers__a_-__b",
		"a_-b":                   "nexus-providers__a_-_-b",
		"a_.b":                   "nexus-providers__a_-__--b",
	} {
		if id, err := b.ID(key); err != nil || id != want {
			t.Errorf("ID(%q) = %q, %v; want %q", key, id, err, want)
		}
		if back, ok := b.Key(want); !ok || back != key {
			t.Errorf("Key(%q) = %q, %t; want %q", want, back, ok, key)
		}
	}
	for _, id := range []string{"", "nexus-providers", "nexus-providers__", "other__a", "nexus-providers__a_", "nexus-providers__a_-",
		"nexus-providers__a__", "nexus-providers____a", "nexus-providers__a_--", "nexus-providers__a_-_b"} {
		if key, ok := b.Key(id); ok && id != "nexus-providers__a_--" {
			t.Errorf("Key(%q) = %q, though no key has this id", id, key)
		}
	}
}

// keys generates legal keys, many of them with what has to be escaped.
func keys() *rapid.Generator[string] {
	segment := rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9_.-]{1,20}`), rapid.StringMatching(`[_.-]{1,12}a?[_.-]{0,3}`), rapid.StringMatching(`[A-Za-z0-9_.-]{1,128}`))
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(segment, 1, secret.MaxKeySegments).Draw(t, "segments"), "/")
	}).Filter(func(key string) bool { return secret.CheckKey(key) == nil })
}

var legal = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)

func TestEveryKeyHasALegalIDOfItsOwn(t *testing.T) {
	t.Parallel()
	b := open(t, nil, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
	rapid.Check(t, func(t *rapid.T) {
		key := keys().Draw(t, "key")
		id, err := b.ID(key)
		if err != nil {
			if !errors.Is(err, secret.ErrInvalid) || len(key)+2*strings.Count(key, ".") < 255-len("nexus-providers__")-2*strings.Count(key, "_")-strings.Count(key, "/") {
				t.Fatalf("ID(%q): %v", key, err)
			}
			return
		}
		if !legal.MatchString(id) {
			t.Fatalf("ID(%q) = %q", key, id)
		}
		if back, ok := b.Key(id); !ok || back != key {
			t.Fatalf("Key(ID(%q)) = %q, %t", key, back, ok)
		}
		other := keys().Draw(t, "other")
		if otherID, err := b.ID(other); err == nil && (otherID == id) != (other == key) {
			t.Fatalf("%q and %q have the id %q", key, other, id)
		}
	})
}

func TestNoIDStandsForTwoKeys(t *testing.T) {
	t.Parallel()
	b := open(t, nil, gcpsecretmanager.Config{Prefix: "p"}, gcpsecretmanager.Options{})
	rapid.Check(t, func(t *rapid.T) {
		id := "p__" + rapid.StringMatching(`[ab_-]{1,12}`).Draw(t, "id")
		if key, ok := b.Key(id); ok {
			if back, err := b.ID(key); err != nil || back != id {
				t.Fatalf("Key(%q) = %q, whose id is %q, %v", id, key, back, err)
			}
		}
	})
}

func TestAKeyWhoseIDIsTooLongIsInvalid(t *testing.T) {
	t.Parallel()
	b := open(t, nil, gcpsecretmanager.Config{EmulatorHost: "127.0.0.1:1"}, gcpsecretmanager.Options{})
	key := strings.Repeat(".", 100) + "a"
	_, get := b.Get(t.Context(), key)
	_, create := b.Create(t.Context(), key, "v", "o")
	for _, err := range []error{get, create, b.Set(t.Context(), key, "v"), b.Delete(t.Context(), key), b.RemoveVersion(t.Context(), key, "1")} {
		if !isOnly(t, err, secret.ErrInvalid) || !strings.Contains(err.Error(), "255") {
			t.Errorf("%v", err)
		}
	}
	longest := strings.Repeat("k", secret.MaxSegmentBytes) + "/" + strings.Repeat("k", secret.MaxKeyBytes-secret.MaxSegmentBytes-1)
	if _, err := b.ID(longest); err != nil {
		t.Errorf("the longest key of ordinary characters: %v", err)
	}
}

package secrettest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

// References is what the suite needs to prove the contract of [secret.ReferenceReader]:
// the store as somebody else uses it.
type References struct {
	// Store stores f outside of the backend's prefix, as a person would who does not know
	// the broker, and sees to its end with t.Cleanup. The name is of the characters
	// a-z, 0-9 and -; one that was used before gets another version. It returns the path
	// of a Reference to it, and the version written, "" if the store keeps none. b is the
	// backend of the subtest.
	Store func(t *testing.T, b secret.SecretBackend, name string, f Foreign) (path, version string)
	// Path returns the path of a Reference to what the backend keeps under a key.
	Path func(key string) string
}

// Foreign is a secret that somebody else has stored: a text, or fields.
type Foreign struct {
	// Text is the value itself: the field "value" of a KV secret, a secret string.
	Text string
	// Fields, with Text "", are the fields of a KV secret, or the members of the JSON
	// object that is the value. They can be marshalled to JSON.
	Fields map[string]any
}

// WithReferences makes the suite prove that the backend is a [secret.ReferenceReader].
func WithReferences(r References) Option { return func(s *suite) { s.references = &r } }

// The sentences that a ReferenceReader keeps.
var referenceTests = []subtest{
	{"AReferenceReturnsATextByteForByte", (*suite).referenceText},
	{"AReferenceReturnsAFieldByteForByte", (*suite).referenceField},
	{"AReferenceReturnsTheNewestVersion", (*suite).referenceNewest},
	{"AReferenceToAVersionReturnsThatOne", (*suite).referenceVersion},
	{"AReferenceToWhatIsNotThereIsErrNotFound", (*suite).referenceMissing},
	{"AMissingFieldIsErrInvalidAndNamesTheFields", (*suite).referenceNoField},
	{"AFieldThatIsNoTextIsErrInvalid", (*suite).referenceNoText},
	{"AReferenceHasTheLimitsOfEveryValue", (*suite).referenceLimits},
	{"AnIllegalPathIsErrInvalid", (*suite).referenceIllegal},
	{"ThePrefixHoldsTheKeysAndNothingElse", (*suite).referencePrefix},
	{"AReferenceEndsWithItsContext", (*suite).referenceEnded},
	{"ErrorsNameTheReferenceAndShowNoValue", (*suite).referenceMessages},
	{"LocateReferenceTellsWhereTheValueLies", (*suite).referencePlace},
}

// illegalPaths are refused by every store. Each may refuse more.
var illegalPaths = []string{
	"", "/", "//", ".", "..", "a//b", "a/./b", "a/../b", "../a", "a/..", "a\nb", "a\x00b", "a\x7fb", "\u202ea",
}

func references(b secret.SecretBackend) secret.ReferenceReader {
	return secret.CapabilitiesOf(b).References
}

// foreignName returns a name that nobody else uses. No store reads its end in a special way.
func (s *suite) foreignName() string {
	return fmt.Sprintf("secrettest-%s-%d-foreign", s.run, s.counter.Add(1))
}

// storeForeign stores f under a name of its own.
func (s *suite) storeForeign(t *testing.T, b secret.SecretBackend, f Foreign) (path, version string) {
	t.Helper()
	return s.references.Store(t, b, s.foreignName(), f)
}

func wantReference(t *testing.T, b secret.SecretBackend, ref secret.Reference, value, version string) {
	t.Helper()
	item, err := references(b).ReadReference(bounded(t), ref)
	if err != nil {
		t.Fatalf("ReadReference(%s): %v", ref, err)
	}
	if got := item.Value.Reveal(); got != value || item.Version != version {
		t.Fatalf("ReadReference(%s) = %s, version %q; want %s, version %q", ref, shorten(got), item.Version, shorten(value), version)
	}
	if form := trace(fmt.Sprintf("%v %+v %#v", item, item, item), value); len(value) > 20 && form != "" {
		t.Errorf("an Item shows its value when it is printed (%s)", form)
	}
}

// refuseReference checks that ref cannot be read, and returns the message.
func (s *suite) refuseReference(t *testing.T, b secret.SecretBackend, ref secret.Reference, want error, why string) string {
	t.Helper()
	item, err := references(b).ReadReference(bounded(t), ref)
	wantOnly(t, err, want, fmt.Sprintf("ReadReference(%s): %s", shorten(ref.String()), why))
	if !item.Value.IsZero() || item.Version != "" {
		t.Errorf("ReadReference(%s): %s: it returns an Item with the error", ref, why)
	}
	return fmt.Sprint(err)
}

func (s *suite) referenceText(t *testing.T, b secret.SecretBackend) {
	for name, value := range legalValues {
		t.Run(name, func(t *testing.T) {
			path, version := s.storeForeign(t, b, Foreign{Text: value})
			wantReference(t, b, secret.Reference{Path: path}, value, version)
		})
	}
}

func (s *suite) referenceField(t *testing.T, b secret.SecretBackend) {
	values := map[string]any{}
	for name, value := range legalValues {
		if len(value) < 1000 { // all of them have to fit into one secret
			values[name] = value
		}
	}
	for _, odd := range []string{"client secret", "a#b", "a@b", "a/b", "a.b", "Ä", "value", "VALUE", `"`, "$", "data"} {
		values[odd] = s.value()
	}
	path, version := s.storeForeign(t, b, Foreign{Fields: values})
	for field, value := range values {
		wantReference(t, b, secret.Reference{Path: path, Field: field}, value.(string), version)
	}
}

func (s *suite) referenceNewest(t *testing.T, b secret.SecretBackend) {
	name := s.foreignName()
	for range 3 {
		value := s.value()
		path, version := s.references.Store(t, b, name, Foreign{Text: value})
		wantReference(t, b, secret.Reference{Path: path}, value, version)
	}
}

func (s *suite) referenceVersion(t *testing.T, b secret.SecretBackend) {
	name, first, second := s.foreignName(), s.value(), s.value()
	path, older := s.references.Store(t, b, name, Foreign{Fields: map[string]any{"id": first}})
	_, newer := s.references.Store(t, b, name, Foreign{Fields: map[string]any{"id": second}})
	if older == "" {
		s.refuseReference(t, b, secret.Reference{Path: path, Version: "1", Field: "id"}, secret.ErrInvalid, "the store keeps no versions")
		return
	}
	wantReference(t, b, secret.Reference{Path: path, Version: older, Field: "id"}, first, older)
	wantReference(t, b, secret.Reference{Path: path, Version: newer, Field: "id"}, second, newer)
	wantReference(t, b, secret.Reference{Path: path, Field: "id"}, second, newer)
	s.refuseReference(t, b, secret.Reference{Path: path, Version: "999999"}, secret.ErrNotFound, "there is no such version")
}

func (s *suite) referenceMissing(t *testing.T, b secret.SecretBackend) {
	path, _ := s.storeForeign(t, b, Foreign{Text: s.value()})
	missing := s.references.Path(s.prefix() + "/client_secret")
	for _, ref := range []secret.Reference{{Path: path + "s"}, {Path: path + "s", Field: "id"}, {Path: missing}, {Path: missing, Field: "id"}} {
		s.refuseReference(t, b, ref, secret.ErrNotFound, "there is no such secret")
	}
}

func (s *suite) referenceNoField(t *testing.T, b secret.SecretBackend) {
	first, second := s.value(), s.value()
	path, _ := s.storeForeign(t, b, Foreign{Fields: map[string]any{"one-field": first, "the-other": second}})
	for _, field := range []string{"client_secret", "ONE-FIELD", "one-field ", "one-field.x", "/one-field"} {
		text := s.refuseReference(t, b, secret.Reference{Path: path, Field: field}, secret.ErrInvalid, "there is no such field")
		if !strings.Contains(text, "one-field") || !strings.Contains(text, "the-other") {
			t.Errorf("the message does not name the fields that are there: %s", text)
		}
		if trace(text, first) != "" || trace(text, second) != "" {
			t.Error("the message shows the value of a field")
		}
	}
	value := s.value()
	path, _ = s.storeForeign(t, b, Foreign{Text: value})
	text := s.refuseReference(t, b, secret.Reference{Path: path, Field: "client_secret"}, secret.ErrInvalid, "a text has no fields")
	if trace(text, value) != "" {
		t.Error("the message shows the value")
	}
}

func (s *suite) referenceNoText(t *testing.T, b secret.SecretBackend) {
	value := s.value()
	fields := map[string]any{
		"number": 17355608, "true": true, "null": nil, "object": map[string]any{"id": value}, "list": []string{value}, "empty": "",
	}
	path, _ := s.storeForeign(t, b, Foreign{Fields: fields})
	for field := range fields {
		text := s.refuseReference(t, b, secret.Reference{Path: path, Field: field}, secret.ErrInvalid, "the field is no text")
		if trace(text, value) != "" || strings.Contains(text, "17355608") {
			t.Errorf("the message shows the value of the field %q", field)
		}
	}
}

func (s *suite) referenceLimits(t *testing.T, b secret.SecretBackend) {
	long := strings.Repeat("canary-l", secret.MaxValueBytes/8) + "x"
	whole, _ := s.storeForeign(t, b, Foreign{Text: long})
	field, _ := s.storeForeign(t, b, Foreign{Fields: map[string]any{"id": long}})
	for _, ref := range []secret.Reference{{Path: whole}, {Path: field, Field: "id"}} {
		if text := s.refuseReference(t, b, ref, secret.ErrInvalid, "the value is too long"); strings.Contains(text, "canary-l") {
			t.Error("the message shows the value")
		}
	}
}

func (s *suite) referenceIllegal(t *testing.T, b secret.SecretBackend) {
	for _, path := range illegalPaths {
		segments, err := references(b).ReferenceSegments(path)
		wantOnly(t, err, secret.ErrInvalid, "ReferenceSegments("+shorten(path)+")")
		if reason, ok := secret.ReferenceReason(err); !ok || reason == "" {
			t.Errorf("ReferenceSegments(%q) does not say what is wrong by a secret.BadReference", path)
		}
		if len(segments) != 0 {
			t.Errorf("ReferenceSegments(%q) returns segments with the error", path)
		}
		for _, ref := range []secret.Reference{{Path: path}, {Path: path, Version: "1", Field: "id"}} {
			text := s.refuseReference(t, b, ref, secret.ErrInvalid, "the path is illegal")
			if strings.ContainsAny(text, "\n\x00\x7f\u202e") {
				t.Errorf("the message is not fit for a log: %q", text)
			}
		}
	}
}

func (s *suite) referencePrefix(t *testing.T, b secret.SecretBackend) {
	r, key, value := references(b), s.key(t, b, "client_secret"), s.value()
	mustSet(t, b, key, value)
	own := s.references.Path(key)
	item, err := r.ReadReference(bounded(t), secret.Reference{Path: own})
	if err != nil || item.Value.Reveal() != value {
		t.Errorf("a reference to a key does not read the key: %v", err)
	}
	foreign, _ := s.storeForeign(t, b, Foreign{Text: "x"})
	// Keys without a prefix lie among everything else.
	for path, below := range map[string]bool{own: true, foreign: own == key} {
		segments, err := r.ReferenceSegments(path)
		prefix := r.ReferencePrefix()
		if err != nil || len(segments) == 0 {
			t.Fatalf("ReferenceSegments(%s) = %q, %v", path, segments, err)
		}
		if got := len(segments) > len(prefix) && slices.Equal(segments[:len(prefix)], prefix); got != below {
			t.Errorf("%s, %q, lies below the prefix, %q: %t, want %t", path, segments, prefix, got, below)
		}
	}
}

func (s *suite) referenceEnded(t *testing.T, b secret.SecretBackend) {
	path, _ := s.storeForeign(t, b, Foreign{Text: "x"})
	for _, p := range []string{path, path + "s"} {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := references(b).ReadReference(ctx, secret.Reference{Path: p})
		wantOnly(t, err, context.Canceled, "ReadReference with a ctx that has ended")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	_, err := references(b).ReadReference(ctx, secret.Reference{Path: path})
	wantOnly(t, err, context.DeadlineExceeded, "ReadReference with a ctx whose deadline has passed")
}

// wantReferenceNamed checks that the message names the backend, the operation and ref.
func (s *suite) wantReferenceNamed(t *testing.T, ref secret.Reference, err error, why string) {
	t.Helper()
	text := fmt.Sprint(err)
	if !strings.Contains(text, ref.String()) || !strings.Contains(text, s.name) || !strings.Contains(text, "read") {
		t.Errorf("%s: the message does not name the backend, that it read, and the reference %s: %s", why, ref, text)
	}
}

func (s *suite) referenceMessages(t *testing.T, b secret.SecretBackend) {
	value := s.value()
	path, _ := s.storeForeign(t, b, Foreign{Fields: map[string]any{"id": value}})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for why, failure := range map[string]struct {
		ctx context.Context
		ref secret.Reference
	}{
		"a missing field":      {bounded(t), secret.Reference{Path: path, Field: "none"}},
		"a missing secret":     {bounded(t), secret.Reference{Path: path + "s", Field: "id"}},
		"a missing version":    {bounded(t), secret.Reference{Path: path, Version: "999999", Field: "id"}},
		"a ctx that has ended": {ended, secret.Reference{Path: path, Field: "id"}},
	} {
		_, err := references(b).ReadReference(failure.ctx, failure.ref)
		s.wantReferenceNamed(t, failure.ref, err, why)
		wantNoTrace(t, "ReadReference with "+why, err, value)
	}
}

func (s *suite) referencePlace(t *testing.T, b secret.SecretBackend) {
	name := s.foreignName()
	path, _ := s.references.Store(t, b, name, Foreign{Text: "x"})
	r := references(b)
	whole := r.LocateReference(secret.Reference{Path: path})
	full := r.LocateReference(secret.Reference{Path: path, Version: "17", Field: "the-field"})
	if !strings.Contains(whole, name) || !strings.Contains(full, name) {
		t.Errorf("LocateReference tells nothing of %s: %s and %s", name, whole, full)
	}
	if !strings.Contains(full, "17") || !strings.Contains(full, "the-field") {
		t.Errorf("LocateReference tells nothing of the version and the field: %s", full)
	}
}

// referenceTrouble is trouble for ReadReference.
func (s *suite) referenceTrouble(t *testing.T, b secret.SecretBackend, want error) {
	ref := secret.Reference{Path: s.references.Path(s.prefix() + "/client_secret"), Field: "id"}
	_, err := references(b).ReadReference(bounded(t), ref)
	wantOnly(t, err, want, "ReadReference")
	s.wantReferenceNamed(t, ref, err, "a store in trouble")
}

// referenceCall is ReadReference as a call.
func (s *suite) referenceCall(b secret.SecretBackend) call {
	return call{name: "ReadReference", do: func(ctx context.Context, key, _, _ string) error {
		_, err := references(b).ReadReference(ctx, secret.Reference{Path: s.references.Path(key)})
		return err
	}}
}

package secrettest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
)

// placing stores in the map of the reference backend, or of a fake around one.
var placing = secrettest.References{
	Store: func(t *testing.T, b secret.SecretBackend, name string, f secrettest.Foreign) (string, string) {
		value := f.Text
		if f.Fields != nil {
			object, err := json.Marshal(f.Fields)
			if err != nil {
				t.Fatal(err)
			}
			value = string(object)
		}
		at := "team-a/" + name
		version, err := b.(interface {
			Place(path, value string) (string, error)
		}).Place(at, value)
		if err != nil {
			t.Fatal(err)
		}
		return at, version
	},
	Path: func(key string) string { return memory.Name + "/" + key },
}

// rereference makes the fake read another reference, and return what change makes of the text.
func rereference(other func(secret.Reference) secret.Reference, change func(string) string) func() secret.SecretBackend {
	return func() secret.SecretBackend {
		f := honest()
		f.reference = func(ctx context.Context, ref secret.Reference) (secret.Item, error) {
			item, err := f.Backend.ReadReference(ctx, other(ref))
			if err != nil {
				return secret.Item{}, renamed{err, "memory: read reference " + ref.String() + ": " + err.Error()}
			}
			item.Value = secret.NewValue(change(item.Value.Reveal()))
			return item, nil
		}
		return f
	}
}

// rewrap replaces the errors of ReadReference that are target by what becomes returns.
func rewrap(target error, becomes func(err error, ref, stored string) error) func() secret.SecretBackend {
	return func() secret.SecretBackend {
		return honest().failReferences(func(err error, ref, stored string) error {
			if err == nil || !errors.Is(err, target) {
				return err
			}
			return becomes(err, ref, stored)
		})
	}
}

func sameReference(r secret.Reference) secret.Reference { return r }

// jsonText returns the member of an object also if it is no text.
func jsonText(value, member string) string {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(value), &object) != nil {
		return ""
	}
	return string(object[member])
}

// brokenReferences break a sentence of ReferenceReader.
var brokenReferences = []broken{
	{"TrimsReferences", rereference(sameReference, strings.TrimSpace),
		[]string{"AReferenceReturnsATextByteForByte", "AReferenceReturnsAFieldByteForByte"}},
	{"IgnoresTheField", rereference(func(r secret.Reference) secret.Reference {
		r.Field = ""
		return r
	}, same), []string{"AReferenceReturnsAFieldByteForByte", "AMissingFieldIsErrInvalidAndNamesTheFields"}},
	{"IgnoresTheVersion", rereference(func(r secret.Reference) secret.Reference {
		r.Version = ""
		return r
	}, same), []string{"AReferenceToAVersionReturnsThatOne"}},
	{"ReadsAVersionOnce", func() secret.SecretBackend {
		f, seen := honest(), map[string]secret.Item{}
		f.reference = func(ctx context.Context, ref secret.Reference) (secret.Item, error) {
			if item, ok := seen[ref.String()]; ok {
				return item, ctx.Err()
			}
			item, err := f.Backend.ReadReference(ctx, ref)
			if err == nil {
				seen[ref.String()] = item
			}
			return item, err
		}
		return f
	}, []string{"AReferenceReturnsTheNewestVersion"}},
	{"CallsAMissingSecretDenied", rewrap(secret.ErrNotFound, func(_ error, ref, _ string) error {
		return fmt.Errorf("memory: read %s: %w", ref, secret.ErrDenied)
	}), []string{"AReferenceToWhatIsNotThereIsErrNotFound", "AReferenceToAVersionReturnsThatOne"}},
	{"CallsAMissingFieldMissing", rewrap(secret.ErrInvalid, func(err error, ref, _ string) error {
		return fmt.Errorf("memory: read %s: %w", ref, secret.ErrNotFound)
	}), []string{"AMissingFieldIsErrInvalidAndNamesTheFields", "AnIllegalPathIsErrInvalid"}},
	{"QuotesTheObject", rewrap(secret.ErrInvalid, func(err error, ref, stored string) error {
		return fmt.Errorf("%w: it is %.200s", err, stored)
	}), []string{"AMissingFieldIsErrInvalidAndNamesTheFields", "AFieldThatIsNoTextIsErrInvalid", "ErrorsNameTheReferenceAndShowNoValue"}},
	{"TakesAnyJSONForText", func() secret.SecretBackend {
		f := honest()
		f.reference = func(ctx context.Context, ref secret.Reference) (secret.Item, error) {
			item, err := f.Backend.ReadReference(ctx, ref)
			if whole, again := f.Backend.ReadReference(ctx, secret.Reference{Path: ref.Path}); err != nil && again == nil {
				if text := jsonText(whole.Value.Reveal(), ref.Field); text != "" {
					return secret.Item{Value: secret.NewValue(text), Version: whole.Version}, nil
				}
			}
			return item, err
		}
		return f
	}, []string{"AFieldThatIsNoTextIsErrInvalid"}},
	{"KnowsNoLimits", func() secret.SecretBackend {
		f := honest()
		f.reference = func(ctx context.Context, ref secret.Reference) (secret.Item, error) {
			item, err := f.Backend.ReadReference(ctx, ref)
			if err != nil && strings.Contains(err.Error(), "longer") {
				return secret.Item{Value: secret.NewValue("a long one")}, nil
			}
			return item, err
		}
		return f
	}, []string{"AReferenceHasTheLimitsOfEveryValue"}},
	{"CleansPaths", func() secret.SecretBackend {
		f := honest()
		f.segments = func(p string) ([]string, error) { return f.Backend.ReferenceSegments(path.Clean("/" + p)) }
		f.reference = func(ctx context.Context, ref secret.Reference) (secret.Item, error) {
			ref.Path = strings.Trim(path.Clean("/"+ref.Path), "/")
			return f.Backend.ReadReference(ctx, ref)
		}
		return f
	}, []string{"AnIllegalPathIsErrInvalid"}},
	{"SaysNotWhatIsWrongWithAPath", func() secret.SecretBackend {
		f := honest()
		f.segments = func(p string) ([]string, error) {
			segments, err := f.Backend.ReferenceSegments(p)
			if err != nil {
				err = fmt.Errorf("memory: %w", secret.ErrInvalid)
			}
			return segments, err
		}
		return f
	}, []string{"AnIllegalPathIsErrInvalid"}},
	{"HasEverythingBelowItsPrefix", func() secret.SecretBackend {
		f := honest()
		f.prefix = func() []string { return nil }
		return f
	}, []string{"ThePrefixHoldsTheKeysAndNothingElse"}},
	{"HasAPrefixOfAnotherForm", func() secret.SecretBackend {
		f := honest()
		f.prefix = func() []string { return []string{memory.Name + "/"} }
		return f
	}, []string{"ThePrefixHoldsTheKeysAndNothingElse"}},
	{"ReadsReferencesForEver", func() secret.SecretBackend {
		f := honest()
		f.reference = func(_ context.Context, ref secret.Reference) (secret.Item, error) {
			return f.Backend.ReadReference(context.Background(), ref)
		}
		return f
	}, []string{"AReferenceEndsWithItsContext"}},
	{"NamesNoReference", func() secret.SecretBackend {
		return honest().failReferences(func(err error, ref, _ string) error {
			if err == nil {
				return nil
			}
			return renamed{err, strings.ReplaceAll(err.Error(), ref, "?")}
		})
	}, []string{"ErrorsNameTheReferenceAndShowNoValue"}},
	{"LocatesNoVersion", func() secret.SecretBackend {
		f := honest()
		f.place = func(ref secret.Reference) string { return ref.Path }
		return f
	}, []string{"LocateReferenceTellsWhereTheValueLies"}},
}

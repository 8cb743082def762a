package gcpsecretmanager_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

func TestReadReference(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	p.create()
	p.add(`{"id":"the id","secret":"s3cr3t","n":7,"empty":""}`)
	p.add("plain")
	p.add("third")
	p.disable(3)
	_, err := s.UpdateSecret(context.Background(), &secretmanagerpb.UpdateSecretRequest{
		Secret: &secretmanagerpb.Secret{Name: name, VersionAliases: map[string]int64{"prod": 1}}, UpdateMask: mask("version_aliases"),
	})
	p.must(err)
	const id = "nexus-providers__acme__client_secret"
	for ref, want := range map[string]struct {
		value, version string
		err            error
	}{
		id:                                 {"plain", "2", nil}, // the newest that is enabled
		name:                               {"plain", "2", nil},
		"/" + name + "/":                   {"plain", "2", nil},
		id + "@2":                          {"plain", "2", nil},
		id + "@1#id":                       {"the id", "1", nil},
		name + "@prod#secret":              {"s3cr3t", "1", nil},
		id + "@latest":                     {"", "", secret.ErrNotFound}, // it is disabled
		id + "@3":                          {"", "", secret.ErrNotFound},
		id + "@9":                          {"", "", secret.ErrNotFound},
		id + "@nope":                       {"", "", secret.ErrNotFound},
		"other":                            {"", "", secret.ErrNotFound},
		id + "@1#nope":                     {"", "", secret.ErrInvalid},
		id + "@1#n":                        {"", "", secret.ErrInvalid},
		id + "@1#empty":                    {"", "", secret.ErrInvalid},
		id + "@2#id":                       {"", "", secret.ErrInvalid},
		id + "@a b":                        {"", "", secret.ErrInvalid},
		id + "@../1":                       {"", "", secret.ErrInvalid},
		"a/b":                              {"", "", secret.ErrInvalid},
		name + "/versions/1":               {"", "", secret.ErrInvalid},
		"projects/other-project/secrets/x": {"", "", secret.ErrDenied},
	} {
		r, err := secret.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		item, err := b.ReadReference(t.Context(), r)
		if !isOnly(t, err, want.err) || item.Value.Reveal() != want.value || item.Version != want.version {
			t.Errorf("%s: %q, version %q, %v; want %+v", ref, item.Value.Reveal(), item.Version, err, want)
		}
		if err != nil && (!strings.Contains(err.Error(), ref) || strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "plain")) {
			t.Errorf("%s: the message is %v", ref, err)
		}
	}
}

func TestReferenceSegments(t *testing.T) {
	t.Parallel()
	global := open(t, nil, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
	regional := open(t, nil, gcpsecretmanager.Config{Location: "europe-west3", Prefix: "a__b"}, gcpsecretmanager.Options{})
	for path, want := range map[string]string{
		"team-a":              "projects test-project secrets team-a",
		"team-a__sales_force": "projects test-project secrets team-a sales_force",
		"/team-a/":            "projects test-project secrets team-a",
		"projects/test-project/secrets/team-a__x":  "projects test-project secrets team-a x",
		"projects/other-project/secrets/team-a__x": "projects other-project secrets team-a x",
		"projects/123/secrets/x":                   "projects 123 secrets x",
	} {
		if got, err := global.ReferenceSegments(path); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{
		"", "/", "a/b", "a b", "a.b", "..", "a%2f", "__a", "a__", "a____b", "a#b", "projects/test-project", "projects//secrets/x", "projects/../secrets/x",
		"projects/test-project/secrets/", "projects/test-project/secrets/../x", "projects/test-project/secrets/x/versions/1",
		"projects/test-project/locations/europe-west3/secrets/x", "//secretmanager.googleapis.com/projects/test-project/secrets/x", strings.Repeat("a", 256),
	} {
		if got, err := global.ReferenceSegments(path); !isOnly(t, err, secret.ErrInvalid) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if got, err := regional.ReferenceSegments("x"); err != nil || strings.Join(got, "/") != "projects/test-project/locations/europe-west3/secrets/x" {
		t.Errorf("%q, %v", got, err)
	}
	for _, path := range []string{"projects/test-project/secrets/x", "projects/test-project/locations/europe-west4/secrets/x"} {
		if _, err := regional.ReferenceSegments(path); !isOnly(t, err, secret.ErrInvalid) {
			t.Errorf("another location: %v", err)
		}
	}
	for _, b := range []*gcpsecretmanager.GCPBackend{global, regional} { // every key lies below the prefix
		id, err := b.ID("acme/client_id")
		if err != nil {
			t.Fatal(err)
		}
		segments, err := b.ReferenceSegments(id)
		prefix := b.ReferencePrefix()
		if err != nil || len(segments) <= len(prefix) || !slices.Equal(segments[:len(prefix)], prefix) {
			t.Errorf("%q is not below %q, %v", segments, prefix, err)
		}
	}
	if got := global.LocateReference(secret.Reference{Path: "x", Version: "2", Field: "id"}); got != "projects/test-project/secrets/x/versions/2 (member id of the JSON object)" {
		t.Error(got)
	}
}

func TestAReferenceIsNeverWritten(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	_, _ = b.ReadReference(t.Context(), secret.Reference{Path: "x"})
	if got := methods(s); !slices.Equal(got, []string{"AccessSecretVersion"}) {
		t.Errorf("the calls are %v", got)
	}
	s.Intercept(gcpserver.Throttle(0))
	if _, err := b.ReadReference(t.Context(), secret.Reference{Path: "x"}); !isOnly(t, err, secret.ErrThrottled) {
		t.Errorf("%v", err)
	}
}

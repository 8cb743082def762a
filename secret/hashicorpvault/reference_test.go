package hashicorpvault_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestReferencesOnARealServer(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	v.MountKV("kv1", 1)
	at := "secret/data/team-a/salesforce"
	for _, id := range []string{"canary-1", "canary-2", "canary-3", "canary-4"} {
		v.Write(at, map[string]any{"data": map[string]any{"id": id, "salesforce": id + "-s", "port": 17355608}})
	}
	v.Write("secret/delete/team-a/salesforce", map[string]any{"versions": []int{2}})
	v.Write("secret/destroy/team-a/salesforce", map[string]any{"versions": []int{3}})
	v.Write("secret/data/gone/soft", map[string]any{"data": map[string]any{"value": "canary-soft"}})
	v.Remove("secret/data/gone/soft")
	v.Write("kv1/team-a/salesforce", map[string]any{"id": "canary-v1", "value": "canary-v1-value"})
	v.Write("kv1/data/x", map[string]any{"value": "canary-v1-folder"})
	for _, test := range []struct {
		mount, ref, want string
		err              error
		says             string
	}{
		{"secret", "team-a/salesforce#id", "canary-4", nil, ""},
		{"secret", "/team-a/salesforce/#id", "canary-4", nil, ""},
		{"secret", "team-a/salesforce", "canary-4-s", nil, ""},
		{"secret", "team-a/salesforce@1#id", "canary-1", nil, ""},
		{"secret", "team-a/salesforce@4", "canary-4-s", nil, ""},
		{"secret", "team-a/salesforce@2#id", "", secret.ErrNotFound, "deleted or destroyed"},
		{"secret", "team-a/salesforce@3#id", "", secret.ErrNotFound, "deleted or destroyed"},
		{"secret", "team-a/salesforce@5#id", "", secret.ErrNotFound, "no such version"},
		{"secret", "gone/soft", "", secret.ErrNotFound, "nothing at this path"},
		{"secret", "team-a/none#id", "", secret.ErrNotFound, "nothing at this path"},
		{"secret", "team-a", "", secret.ErrNotFound, "nothing at this path"},
		{"secret", "team-a/salesforce#secret", "", secret.ErrInvalid, `"id", "port", "salesforce"`},
		{"secret", "team-a/salesforce#port", "", secret.ErrInvalid, "not a string"},
		{"secret", "team-a/salesforce@0#id", "", secret.ErrInvalid, "number from 1"},
		{"secret", "team-a/salesforce@01#id", "", secret.ErrInvalid, "number from 1"},
		{"secret", "team-a/salesforce@latest#id", "", secret.ErrInvalid, "number from 1"},
		{"secret", "team-a/salesforce@1&x=1#id", "", secret.ErrInvalid, "number from 1"},
		{"secret", "data/team-a/salesforce#id", "", secret.ErrInvalid, "HTTP API"},
		{"kv1", "team-a/salesforce#id", "canary-v1", nil, ""},
		{"kv1", "team-a/salesforce", "canary-v1-value", nil, ""},
		{"kv1", "team-a/salesforce@1", "", secret.ErrInvalid, "keeps no versions"},
		{"kv1", "data/x", "", secret.ErrInvalid, "VAULT_KV_VERSION is 1"},
	} {
		cfg := below(p, rootLogin(v))
		cfg.Mount = test.mount
		b := open(t, cfg, hashicorpvault.Options{})
		ref, err := secret.ParseReference(test.ref)
		if err != nil {
			t.Fatal(err)
		}
		item, err := b.ReadReference(t.Context(), ref)
		if item.Value.Reveal() != test.want || !isOnly(t, err, test.err) {
			t.Errorf("%s/%s: %q, %v", test.mount, test.ref, item.Value.Reveal(), err)
		}
		if err != nil && (strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "17355608") || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s/%s: the message is %v", test.mount, test.ref, err)
		}
	}
	cfg := below(p, rootLogin(v))
	cfg.Mount, cfg.KVVersion = "kv1", 1
	item, err := open(t, cfg, hashicorpvault.Options{}).ReadReference(t.Context(), secret.Reference{Path: "data/x"})
	if err != nil || item.Value.Reveal() != "canary-v1-folder" {
		t.Errorf("a folder named data in version 1: %v", err)
	}
}

// A reference is read with the rights of the token, and a denial outside of the prefix is
// no reason to log in.
func TestAReferenceThatNoPolicyAllows(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	v.Write("secret/data/team-a/x", map[string]any{"data": map[string]any{"value": "canary"}})
	role, id := v.AppRole("r", []string{"rw"}, nil)
	b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)}), hashicorpvault.Options{})
	for range 5 {
		_, err := b.ReadReference(t.Context(), secret.Reference{Path: "team-a/x", Field: "value"})
		if !isOnly(t, err, secret.ErrDenied) || errors.Is(err, secret.ErrLogin) || !strings.Contains(err.Error(), "secret/data/team-a/x") {
			t.Errorf("the error is %v", err)
		}
	}
	if n := len(p.Requests(servers.PathIs(loginPath))); n != 1 {
		t.Errorf("%d logins", n)
	}
	if item, err := b.ReadReference(t.Context(), secret.Reference{Path: "nexus/providers/a/b"}); err != nil || item.Value.Reveal() != "v" {
		t.Errorf("below the prefix: %v", err)
	}
	p.Down()
	if _, err := b.ReadReference(t.Context(), secret.Reference{Path: "nexus/providers/a/b"}); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("down: %v", err)
	}
}

func TestReferenceSegments(t *testing.T) {
	t.Parallel()
	v := newFakeVault(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 500, `{"errors":["x"]}`) })
	b := open(t, hashicorpvault.Config{Address: v.URL, PathPrefix: "/v1/secret/data/nexus//providers/", Login: staticToken}, hashicorpvault.Options{})
	if got := b.ReferencePrefix(); !slices.Equal(got, []string{"nexus", "providers"}) {
		t.Errorf("the prefix is %q", got)
	}
	for path, want := range map[string][]string{
		"team-a/salesforce": {"team-a", "salesforce"}, "/a/b/": {"a", "b"}, "a b/ü/x@y": {"a b", "ü", "x@y"},
		"nexus/data/x": {"nexus", "data", "x"}, "a.b/...c": nil, "v1": {"v1"}, "secret/x": {"secret", "x"},
	} {
		got, err := b.ReferenceSegments(path)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{
		"a%2fb", "a?b", "a#b", "a*", "+/b", `a\b`, "a/../b", "a..b", "a//b", " a/b", "a /b", "a\u00a0", "a\tb",
		"data/a", "metadata/a", "data", "v1/secret/data/a", "secret/data/a", "secret/metadata/a",
	} {
		if segments, err := b.ReferenceSegments(path); !errors.Is(err, secret.ErrInvalid) || segments != nil {
			t.Errorf("%q: %q, %v", path, segments, err)
		}
		if _, err := b.ReadReference(t.Context(), secret.Reference{Path: path}); !isOnly(t, err, secret.ErrInvalid) {
			t.Errorf("%q: %v", path, err)
		}
	}
	if n := len(v.seen("")); n != 0 {
		t.Errorf("%d requests", n)
	}
	if at := b.LocateReference(secret.Reference{Path: "team-a/x", Version: "3", Field: "id"}); at != "secret/team-a/x@3#id" {
		t.Errorf("it lies at %s", at)
	}
}

package hashicorpvault_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestRemoveVersion takes back a Create over two versions that a person has deleted,
// and looks, as root, at what can be undeleted then.
func TestRemoveVersion(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	const data = `path "secret/data/nexus/*" { capabilities = ["create", "read", "update"] } `
	const metadata = `path "secret/metadata/nexus/*" { capabilities = ["delete"] } `
	for _, test := range []struct {
		name, policy string
		want         error
		left         bool // in the log
		recoverable  []string
	}{
		{"destroy", data + metadata + `path "secret/destroy/nexus/*" { capabilities = ["update"] }`, nil, false, []string{"1", "2"}},
		{"delete-versions", data + metadata + `path "secret/delete/nexus/*" { capabilities = ["update"] }`, nil, true, []string{"1", "2", "3"}},
		{"delete-the-newest", `path "secret/data/nexus/*" { capabilities = ["create", "read", "update", "delete"] }`, nil, true, []string{"1", "2", "3"}},
		{"nothing", data + metadata, secret.ErrDenied, false, []string{"1", "2", "3"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v.Policy("p", test.policy)
			var out servers.Log
			b := open(t, hashicorpvault.Config{
				Address: v.Addr, PathPrefix: "nexus", Login: hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{"p"}, nil))},
			}, hashicorpvault.Options{Logger: newLogger(&out)})
			key := test.name + "/client_secret"
			for _, value := range []string{"one", "two"} {
				v.Write("secret/data/nexus/"+key, map[string]any{"data": map[string]any{"value": value}})
			}
			v.Write("secret/delete/nexus/"+key, map[string]any{"versions": []int{1, 2}})
			version, err := b.Create(t.Context(), key, "ours", somebody)
			if err != nil {
				t.Fatal(err)
			}
			err = b.RemoveVersion(t.Context(), key, version)
			if test.want == nil && err != nil || !isOnly(t, err, test.want) {
				t.Fatalf("RemoveVersion: %v", err)
			}
			if said := strings.Contains(out.String(), "has left something"); said != test.left {
				t.Errorf("the log is\n%s", out.String())
			}
			if test.want != nil {
				if !strings.Contains(err.Error(), "secret/destroy/nexus/"+key) {
					t.Errorf("the message does not say what to allow: %v", err)
				}
			} else if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrNotFound) {
				t.Errorf("Get: %v", err)
			}
			v.Do("PUT", "secret/undelete/nexus/"+key, map[string]any{"versions": []int{1, 2, 3}})
			var recoverable []string
			for _, n := range []string{"1", "2", "3"} {
				if v.Read("secret/data/nexus/"+key+"?version="+n) != nil {
					recoverable = append(recoverable, n)
				}
			}
			if !slices.Equal(recoverable, test.recoverable) {
				t.Errorf("the versions %v can be had back, want %v", recoverable, test.recoverable)
			}
		})
	}
}

func TestRemoveVersionOfTheOnlyOneLeavesNothing(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	b := open(t, hashicorpvault.Config{Address: v.Addr, Login: rootLogin(v)}, hashicorpvault.Options{})
	version, err := b.Create(t.Context(), "a/client_id", "ours", somebody)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.RemoveVersion(t.Context(), "a/client_id", version); err != nil {
			t.Errorf("RemoveVersion: %v", err)
		}
		if metadata := v.Read("secret/metadata/a/client_id"); metadata != nil {
			t.Errorf("there is still %v", metadata)
		}
	}
	for _, illegal := range []string{"", "0", "-1", "x", "1 "} {
		if err := b.RemoveVersion(t.Context(), "a/client_id", illegal); !isOnly(t, err, secret.ErrInvalid) {
			t.Errorf("of the version %q: %v", illegal, err)
		}
	}
}

// KV version 1 gives no versions, and finds none.
func TestVersionsOnKV1(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	b := open(t, hashicorpvault.Config{Address: v.Addr, Mount: "kv1", Login: rootLogin(v)}, hashicorpvault.Options{})
	if version, err := b.Create(t.Context(), "a/client_id", "ours", somebody); err != nil || version != "" {
		t.Fatalf("Create: %q, %v", version, err)
	}
	if _, err := b.Replace(t.Context(), "a/client_id", "late", somebody, "1"); !isOnly(t, err, secret.ErrChanged) {
		t.Errorf("Replace: %v", err)
	}
	if err := b.RemoveVersion(t.Context(), "a/client_id", "1"); err != nil {
		t.Errorf("RemoveVersion: %v", err)
	}
	if value, err := b.Get(t.Context(), "a/client_id"); err != nil || value != "ours" {
		t.Errorf("Get: %q, %v", value, err)
	}
}

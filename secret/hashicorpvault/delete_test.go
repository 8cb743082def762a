package hashicorpvault_test

import (
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestDelete looks, as root, at what a Delete has left of three versions.
func TestDelete(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	const data = `path "secret/data/nexus/*" { capabilities = ["create", "read", "update"] } `
	for _, test := range []struct {
		name, policy string
		want         error
		left         string // in the log, "" for nothing
		metadata     bool   // is left
		recoverable  int    // versions that can be brought back
	}{
		{"metadata", data + `path "secret/metadata/nexus/*" { capabilities = ["delete"] }`, nil, "", false, 0},
		{"destroy, metadata readable", data + `path "secret/metadata/nexus/*" { capabilities = ["read", "list"] } path "secret/destroy/nexus/*" { capabilities = ["update"] }`,
			nil, "metadata of the destroyed versions", true, 0},
		{"destroy", data + `path "secret/destroy/nexus/*" { capabilities = ["update"] }`, nil, "metadata of the destroyed versions", true, 0},
		{"delete versions", data + `path "secret/delete/nexus/*" { capabilities = ["update"] }`, nil, "can be undeleted", true, 3},
		{"delete the newest", `path "secret/data/nexus/*" { capabilities = ["create", "read", "update", "delete"] }`, nil, "older versions", true, 3},
		{"nothing", data, secret.ErrDenied, "", true, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			v.Policy("p", test.policy)
			var out servers.Log
			b := open(t, hashicorpvault.Config{
				Address: v.Addr, PathPrefix: "nexus", Login: hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{"p"}, nil))},
			}, hashicorpvault.Options{Logger: newLogger(&out)})
			key := strings.ReplaceAll(strings.ReplaceAll(test.name, " ", "-"), ",", "") + "/client_secret"
			ctx := t.Context()
			if err := b.Delete(ctx, key); test.want == nil && err != nil {
				t.Errorf("of a key that was never there: %v", err)
			}
			for _, value := range []string{"one", "two", "three"} {
				if err := b.Set(ctx, key, value); err != nil {
					t.Fatal(err)
				}
			}
			err := b.Delete(ctx, key)
			if !isOnly(t, err, test.want) {
				t.Fatalf("Delete: %v", err)
			}
			metadata := v.Read("secret/metadata/nexus/" + key)
			if (metadata != nil) != test.metadata {
				t.Errorf("the metadata is %v", metadata)
			}
			if n := recoverable(v, key); n != test.recoverable {
				t.Errorf("%d versions can be brought back, want %d", n, test.recoverable)
			}
			if said := strings.Contains(out.String(), "has left something"); said != (test.left != "") || !strings.Contains(out.String(), test.left) {
				t.Errorf("the log is\n%s", out.String())
			}
			if test.want != nil {
				if !strings.Contains(err.Error(), "secret/metadata/nexus/"+key) {
					t.Errorf("the message does not say what to allow: %v", err)
				}
				return
			}
			if _, err := b.Get(ctx, key); !isOnly(t, err, secret.ErrNotFound) {
				t.Errorf("Get: %v", err)
			}
			if err := b.Delete(ctx, key); err != nil {
				t.Errorf("Delete again: %v", err)
			}
			if _, err := b.Create(ctx, key, "four", somebody); err != nil {
				t.Errorf("Create: %v", err)
			}
			if item, err := b.Read(ctx, key); err != nil || item.Value.Reveal() != "four" || item.Owner != somebody {
				t.Errorf("Read: %v, %v", item, err)
			}
		})
	}
}

// recoverable counts the versions whose data root can still get at.
func recoverable(v *servers.VaultServer, key string) int {
	v.Do("PUT", "secret/undelete/nexus/"+key, map[string]any{"versions": []int{1, 2, 3}})
	n := 0
	for _, version := range []string{"1", "2", "3"} {
		if v.Read("secret/data/nexus/"+key+"?version="+version) != nil {
			n++
		}
	}
	v.Do("PUT", "secret/delete/nexus/"+key, map[string]any{"versions": []int{1, 2, 3}})
	return n
}

func TestCreateAfterANewestVersionThatIsGone(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	b := open(t, hashicorpvault.Config{Address: v.Addr, Login: rootLogin(v)}, hashicorpvault.Options{})
	for name, remove := range map[string]func(key string){
		"deleted":   func(key string) { v.Remove("secret/data/" + key) },
		"destroyed": func(key string) { v.Write("secret/destroy/"+key, map[string]any{"versions": []int{1, 2}}) },
		"metadata only": func(key string) {
			v.Remove("secret/metadata/" + key)
			v.Write("secret/metadata/"+key, map[string]any{"max_versions": 3})
		},
	} {
		key := strings.Fields(name)[0] + "/client_id"
		for _, value := range []string{"one", "two"} {
			if err := b.Set(t.Context(), key, value); err != nil {
				t.Fatal(err)
			}
		}
		remove(key)
		if _, err := b.Get(t.Context(), key); !isOnly(t, err, secret.ErrNotFound) {
			t.Errorf("%s: Get: %v", name, err)
		}
		version, err := b.Create(t.Context(), key, "three", somebody)
		if err != nil {
			t.Errorf("%s: Create: %v", name, err)
			continue
		}
		if item, err := b.Read(t.Context(), key); err != nil || item.Version != version || item.Owner != somebody {
			t.Errorf("%s: Read: %v, %v, want version %s", name, item, err, version)
		}
	}
}

func TestTheOwnerIsAFieldBesideTheValue(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	for mount, path := range map[string]string{"secret": "secret/data/a/b", "kv1": "kv1/a/b"} {
		b := open(t, hashicorpvault.Config{Address: v.Addr, Mount: mount, Login: rootLogin(v)}, hashicorpvault.Options{})
		if _, err := b.Create(t.Context(), "a/b", "x", "nexus-broker/1"); err != nil {
			t.Fatal(err)
		}
		fields, _ := v.Read(path)["data"].(map[string]any)
		if inner, ok := fields["data"].(map[string]any); ok {
			fields = inner
		}
		if len(fields) != 2 || fields["value"] != "x" || fields["managed_by"] != "nexus-broker/1" {
			t.Errorf("%s holds %v", path, fields)
		}
		// Somebody rotates the value by hand, without the mark.
		body := map[string]any{"value": "y"}
		if mount == "secret" {
			body = map[string]any{"data": body}
		}
		v.Write(path, body)
		if item, err := b.Read(t.Context(), "a/b"); err != nil || item.Value.Reveal() != "y" || item.Owner != "" {
			t.Errorf("rotated: %v, owner %q, %v", item, item.Owner, err)
		}
	}
}

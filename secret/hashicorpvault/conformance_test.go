package hashicorpvault_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestMain(m *testing.M) {
	setAWS(func(name, value string) {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	})
	os.Exit(servers.Main(m))
}

// open returns a backend that is closed when the test ends.
func open(t *testing.T, cfg hashicorpvault.Config, opts hashicorpvault.Options) *hashicorpvault.VaultBackend {
	t.Helper()
	b, err := hashicorpvault.New(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func rootLogin(v *servers.VaultServer) hashicorpvault.Login {
	return hashicorpvault.TokenLogin{Token: secret.NewValue(v.RootToken)}
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	replaceFile(t, path, content)
	return path
}

// replaceFile replaces a file as a mounted secret is replaced: by another one.
func replaceFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// The least that a policy has to allow below a prefix.
const (
	readWriteV2 = `
path "secret/data/nexus/providers/*"     { capabilities = ["create", "read", "update"] }
path "secret/metadata/nexus/providers/*" { capabilities = ["delete"] }
path "secret/destroy/nexus/providers/*"  { capabilities = ["update"] }`
	readOnlyV2 = `
path "secret/data/nexus/providers/*" { capabilities = ["read"] }`
	readWriteV1 = `
path "kv1/nexus/providers/*" { capabilities = ["create", "read", "update", "delete"] }`
	readOnlyV1 = `
path "kv1/nexus/providers/*" { capabilities = ["read"] }`
)

func TestConformance(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	v.MountKV("team/kv", 2)
	v.Policy("rw-v2", readWriteV2)
	v.Policy("rw-v1", readWriteV1)
	v.Policy("references", `
path "secret/data/team-a/*" { capabilities = ["read"] }
path "kv1/team-a/*"         { capabilities = ["read"] }`)
	v.Policy("nothing", `path "none/*" { capabilities = ["read"] }`)
	v.MountKV("strict", 2)
	v.Write("strict/config", map[string]any{"cas_required": true})

	role, secretID := v.AppRole("broker", []string{"rw-v2", "rw-v1", "references"}, map[string]any{"token_ttl": "1h"})
	appRole := hashicorpvault.AppRoleLogin{RoleID: role, SecretIDFile: writeFile(t, "secret-id", secretID+"\n")}
	token := hashicorpvault.TokenLogin{File: writeFile(t, "token", v.Token([]string{"rw-v2", "references"}, nil)+"\n")}

	stalled := servers.NewFaultProxy(t, v.Addr)
	stalled.Inject(stalled.Hang())
	closed := servers.NewFaultProxy(t, v.Addr)
	closed.Down()

	for name, cfg := range map[string]hashicorpvault.Config{
		"V2TokenFile":          {PathPrefix: "nexus/providers", Login: token},
		"V2AppRole":            {PathPrefix: "/v1/secret/data/nexus/providers/", Login: appRole},
		"V2FixedVersion":       {PathPrefix: "data/nexus//providers", KVVersion: 2, Login: appRole},
		"V2MountOfTwoSegments": {Mount: "/team/kv/", Login: rootLogin(v)},
		"V2CASRequired":        {Mount: "strict", PathPrefix: "a", Login: rootLogin(v)},
		"V1AppRole":            {Mount: "kv1", PathPrefix: "nexus/providers", Login: appRole},
		"V1FixedVersion":       {Mount: "kv1", PathPrefix: "data", KVVersion: 1, Login: rootLogin(v)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := func(address string, login hashicorpvault.Login) secrettest.New {
				return func(t *testing.T) secret.SecretBackend {
					c := withAddress(cfg, address)
					if login != nil {
						c.Login = login
					}
					return open(t, c, hashicorpvault.Options{})
				}
			}
			powerless := hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{"nothing"}, nil))}
			opts := []secrettest.Option{
				secrettest.WithName(hashicorpvault.Name),
				secrettest.WithUnreachable(at(closed.URL, nil)),
				secrettest.WithStalled(at(stalled.URL, nil)),
				secrettest.WithDenied(at(v.Addr, powerless)),
				secrettest.WithReferences(foreigners(v, open(t, withAddress(cfg, v.Addr), hashicorpvault.Options{}))),
			}
			if cfg.Mount == "kv1" {
				opts = append(opts, secrettest.WithoutCompareAndSet())
			}
			secrettest.Run(t, at(v.Addr, nil), opts...)
		})
	}
}

func withAddress(cfg hashicorpvault.Config, address string) hashicorpvault.Config {
	cfg.Address = address
	return cfg
}

// foreigners stores below the mount of b, as root and in the folder team-a.
func foreigners(v *servers.VaultServer, b *hashicorpvault.VaultBackend) secrettest.References {
	mount := strings.TrimSuffix(b.LocateReference(secret.Reference{Path: "x"}), "/x")
	return secrettest.References{
		Store: func(t *testing.T, _ secret.SecretBackend, name string, f secrettest.Foreign) (string, string) {
			fields := f.Fields
			if fields == nil {
				fields = map[string]any{"value": f.Text}
			}
			path := "team-a/" + name
			if mount == "kv1" {
				v.Write(mount+"/"+path, fields)
				t.Cleanup(func() { v.Remove(mount + "/" + path) })
				return path, ""
			}
			newest, _ := v.Read(mount + "/metadata/" + path)["data"].(map[string]any)
			cas, _ := newest["current_version"].(float64)
			written, _ := v.Write(mount+"/data/"+path, map[string]any{"data": fields, "options": map[string]any{"cas": cas}})["data"].(map[string]any)
			t.Cleanup(func() { v.Remove(mount + "/metadata/" + path) })
			return path, fmt.Sprint(written["version"])
		},
		Path: func(key string) string { return strings.Join(append(b.ReferencePrefix(), key), "/") },
	}
}

func newLogger(out *servers.Log) *slog.Logger {
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

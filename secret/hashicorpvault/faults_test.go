package hashicorpvault_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// wantTrouble checks that every method meets want, then heals and checks that
// everything works at once.
func wantTrouble(t *testing.T, b *hashicorpvault.VaultBackend, want error, heal func()) {
	t.Helper()
	ctx := t.Context()
	_, get := b.Get(ctx, "a/b")
	_, read := b.Read(ctx, "a/b")
	_, create := b.Create(ctx, "a/new", "x", somebody)
	_, replace := b.Replace(ctx, "a/new", "x", somebody, "")
	for op, err := range map[string]error{
		"Get": get, "Read": read, "Create": create, "Replace": replace,
		"Set": b.Set(ctx, "a/new", "x"), "Delete": b.Delete(ctx, "a/new"), "Probe": b.Probe(ctx, secret.ReadWrite),
	} {
		if !isOnly(t, err, want) {
			t.Errorf("%s: %v, want %v", op, err, want)
		}
	}
	heal()
	wantV(t, b, "healed")
	if err := b.Probe(ctx, secret.ReadWrite); err != nil {
		t.Errorf("healed: %v", err)
	}
}

func TestFaultsAndRecovery(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1h"})
	for _, used := range []bool{true, false} { // the token is there already, or the login meets the fault
		for name, fault := range map[string]struct {
			begin, end func()
			want       error
		}{
			"sealed":    {v.Seal, v.Unseal, secret.ErrUnavailable},
			"down":      {p.Down, p.Up, secret.ErrUnavailable},
			"cut":       {func() { p.Inject(servers.Drop()) }, p.Heal, secret.ErrUnavailable},
			"HTML 200":  {func() { p.Inject(servers.HTML(200)) }, p.Heal, secret.ErrUnavailable},
			"HTML 403":  {func() { p.Inject(servers.HTML(403)) }, p.Heal, secret.ErrUnavailable},
			"HTML 404":  {func() { p.Inject(servers.HTML(404)) }, p.Heal, secret.ErrUnavailable},
			"HTML 502":  {func() { p.Inject(servers.HTML(502)) }, p.Heal, secret.ErrUnavailable},
			"throttled": {func() { p.Inject(servers.Throttle(0)) }, p.Heal, secret.ErrThrottled},
		} {
			t.Run(fmt.Sprintf("%s, used before: %t", name, used), func(t *testing.T) {
				b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)}), hashicorpvault.Options{})
				if used {
					wantV(t, b, "before")
				}
				fault.begin()
				wantTrouble(t, b, fault.want, fault.end)
			})
		}
	}
}

func TestThrottlingSaysForHowLong(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	b := open(t, below(p, rootLogin(v)), hashicorpvault.Options{})
	wantV(t, b, "before")
	p.Inject(servers.Throttle(7 * time.Second))
	err := b.Set(t.Context(), "a/b", "x")
	if wait, ok := secret.RetryAfter(err); !ok || wait != 7*time.Second {
		t.Errorf("%v: %s, %t", err, wait, ok)
	}
}

func TestARealRateLimitQuota(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	b := open(t, below(p, rootLogin(v)), hashicorpvault.Options{})
	wantV(t, b, "before")
	v.Write("sys/quotas/rate-limit/kv", map[string]any{"path": "secret/", "rate": 1, "interval": "1s", "block_interval": "2s"})
	eventually(t, "the quota is used up", func() bool {
		_, err := b.Get(t.Context(), "a/b")
		return isOnly(t, err, secret.ErrThrottled)
	})
	v.Remove("sys/quotas/rate-limit/kv")
	wantV(t, b, "after the quota")
}

func TestAStoppedServerEndsWithTheDeadline(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	direct := open(t, hashicorpvault.Config{Address: v.Addr, PathPrefix: "nexus/providers", Login: rootLogin(v)}, hashicorpvault.Options{})
	bounded := open(t, below(p, rootLogin(v)), hashicorpvault.Options{Timeout: time.Second})
	wantV(t, direct, "before")
	wantV(t, bounded, "before")
	v.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := direct.Get(ctx, "a/b"); !errors.Is(err, context.DeadlineExceeded) || !isOnly(t, err, nil) {
		t.Errorf("a deadline: %v", err)
	}
	// The limit is what ends it: without one, a caller who waits for longer would meet his own deadline.
	patient, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := bounded.Get(patient, "a/b"); !isOnly(t, err, secret.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("our own limit: %v", err)
	}
	v.Resume()
	wantV(t, direct, "resumed")
	wantV(t, bounded, "resumed")
}

func TestAServerThatLostEverything(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	b := open(t, below(p, rootLogin(v)), hashicorpvault.Options{})
	wantV(t, b, "before")
	v.Stop()
	if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("stopped: %v", err)
	}
	v.Start()
	if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrNotFound) {
		t.Errorf("started empty: %v", err)
	}
}

func TestAWriteWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	b := open(t, below(p, rootLogin(v)), hashicorpvault.Options{})
	wantV(t, b, "before")
	p.Inject(servers.DropAnswer(), servers.MethodIs("PUT"))
	if _, err := b.Create(t.Context(), "a/new", "x", somebody); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("Create: %v", err)
	}
	p.Heal()
	// It has been written once, and the owner proves whose it is.
	item, err := b.Read(t.Context(), "a/new")
	if err != nil || item.Owner != somebody || item.Version != "1" {
		t.Errorf("Read: %q, version %q, %v", item.Owner, item.Version, err)
	}
}

func TestRealTLS(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t, servers.VaultTLS())
	cfg := hashicorpvault.Config{Address: v.Addr, Login: rootLogin(v), TLS: hashicorpvault.TLS{CACertFile: v.CAFile}}
	b := open(t, cfg, hashicorpvault.Options{})
	if err := b.Set(t.Context(), "a/b", "v"); err != nil {
		t.Fatal(err)
	}
	wantV(t, b, "with the CA")
	cfg.TLS = hashicorpvault.TLS{}
	if _, err := open(t, cfg, hashicorpvault.Options{}).Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("without the CA: %v", err)
	}
}

func TestMountsThatAreNotWhatTheConfigurationSays(t *testing.T) {
	t.Parallel()
	v := servers.Vault(t)
	v.MountKV("kv1", 1)
	v.MountKV("team/kv", 2)
	v.Write("sys/mounts/transit", map[string]any{"type": "transit"})
	v.Write("kv1/a/b", map[string]any{"value": "v"})
	v.Write("secret/data/a/b", map[string]any{"data": map[string]any{"value": "v"}})
	for _, test := range []struct {
		mount   string
		version int
		want    error
		says    string
	}{
		{"kv1", 0, nil, ""},
		{"secret", 0, nil, ""},
		{"secret", 1, secret.ErrUnavailable, "VAULT_KV_VERSION"},
		{"nowhere", 2, secret.ErrUnavailable, "check the mount"},
		{"nowhere", 1, secret.ErrUnavailable, "check the mount"},
		{"nowhere", 0, secret.ErrDenied, "nothing is mounted"},
		{"transit", 0, secret.ErrUnavailable, "no KV engine"},
		{"transit", 1, secret.ErrUnavailable, "check the mount"},
		{"secret/data", 0, secret.ErrUnavailable, "into the prefix"},
		{"team", 0, secret.ErrDenied, "nothing is mounted"},
		{"team/kv", 0, secret.ErrNotFound, ""},
	} {
		t.Run(fmt.Sprintf("%s %d", test.mount, test.version), func(t *testing.T) {
			b := open(t, hashicorpvault.Config{Address: v.Addr, Mount: test.mount, KVVersion: test.version, Login: rootLogin(v)}, hashicorpvault.Options{})
			_, err := b.Get(t.Context(), "a/b")
			if !isOnly(t, err, test.want) || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
		})
	}
	wrong := open(t, hashicorpvault.Config{Address: v.Addr, Mount: "kv1", KVVersion: 2, Login: rootLogin(v)}, hashicorpvault.Options{})
	if err := wrong.Set(t.Context(), "a/b", "x"); !isOnly(t, err, secret.ErrUnavailable) || !strings.Contains(err.Error(), "VAULT_KV_VERSION") {
		t.Errorf("a write to version 1 as if it were version 2: %v", err)
	}
	if err := open(t, hashicorpvault.Config{Address: v.Addr, KVVersion: 1, Login: rootLogin(v)}, hashicorpvault.Options{}).
		Set(t.Context(), "a/b", "x"); !isOnly(t, err, secret.ErrUnavailable) || !strings.Contains(err.Error(), "VAULT_KV_VERSION") {
		t.Errorf("a write to version 2 as if it were version 1: %v", err)
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	v.MountKV("kv1", 1)
	for name, policy := range map[string]string{"rw2": readWriteV2, "ro2": readOnlyV2, "rw1": readWriteV1, "ro1": readOnlyV1} {
		v.Policy(name, policy)
	}
	v.Policy("no-delete", `path "secret/data/nexus/providers/*" { capabilities = ["create", "read", "update"] }`)
	v.Policy("destroy", `path "secret/data/nexus/providers/*"    { capabilities = ["create", "read", "update"] }
	                     path "secret/destroy/nexus/providers/*" { capabilities = ["update"] }`)
	v.Policy("each", `path "secret/data/nexus/providers/+/client_id" { capabilities = ["read"] }`)
	v.Policy("nothing", `path "none/*" { capabilities = ["read"] }`)
	for _, test := range []struct {
		policy, mount     string
		readOnly, readAll error
	}{
		{"rw2", "secret", nil, nil},
		{"ro2", "secret", nil, secret.ErrDenied},
		{"rw1", "kv1", nil, nil},
		{"ro1", "kv1", nil, secret.ErrDenied},
		{"no-delete", "secret", nil, secret.ErrDenied},
		{"destroy", "secret", nil, nil},
		{"each", "secret", nil, secret.ErrDenied},
		{"nothing", "secret", secret.ErrDenied, secret.ErrDenied},
		{"rw2", "kv1", secret.ErrDenied, secret.ErrDenied},
	} {
		for _, mayAsk := range []bool{true, false} {
			p.Forget()
			login := hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{test.policy}, map[string]any{"no_default_policy": !mayAsk}))}
			cfg := below(p, login)
			cfg.Mount = test.mount
			b := open(t, cfg, hashicorpvault.Options{})
			if err := b.Probe(t.Context(), secret.ReadOnly); !isOnly(t, err, test.readOnly) || errors.Is(err, secret.ErrLogin) {
				t.Errorf("%s, read only: %v", test.policy, err)
			}
			want := test.readAll
			if !mayAsk {
				want = test.readOnly // more cannot be seen without writing
			}
			if err := b.Probe(t.Context(), secret.ReadWrite); !isOnly(t, err, want) || errors.Is(err, secret.ErrLogin) {
				t.Errorf("%s, read and write: %v", test.policy, err)
			}
			for _, r := range p.Requests() {
				if r.Method != "GET" && !slices.Contains([]string{"/v1/sys/capabilities-self", "/v1/auth/token/renew-self"}, r.Path) {
					t.Errorf("Probe sends %s %s", r.Method, r.Path)
				}
			}
		}
	}
}

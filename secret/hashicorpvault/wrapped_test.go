package hashicorpvault_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

const unwrapPath = "/v1/sys/wrapping/unwrap"

func TestAWrappedSecretIDIsUnwrappedOnce(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, _ := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1h"})
	file := writeFile(t, "wrapped", v.WrappedSecretID("r", time.Hour)+"\n")
	login := hashicorpvault.AppRoleLogin{RoleID: role, WrappedSecretIDFile: file}
	b := open(t, below(p, login), hashicorpvault.Options{})
	revoke := func() { v.Write("sys/leases/revoke-prefix/auth/approle/login", nil) }
	wantV(t, b, "the first login")
	for range 2 {
		revoke()
		wantV(t, b, "with the secret id in memory")
	}
	if n := len(p.Requests(servers.PathIs(unwrapPath))); n != 1 {
		t.Errorf("%d unwrappings", n)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	revoke()
	wantV(t, b, "the file being gone")

	// Another process starts with the same token: it was used.
	replaceFile(t, file, p.Requests(servers.PathIs(unwrapPath))[0].Header.Get("X-Vault-Token"))
	late := open(t, below(p, login), hashicorpvault.Options{})
	for range 3 {
		_, get := late.Get(t.Context(), "a/b")
		for _, err := range []error{get, late.Probe(t.Context(), secret.ReadOnly)} {
			if !isOnly(t, err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) || !strings.Contains(err.Error(), "somebody else may have unwrapped it") {
				t.Errorf("a token that was used: %v", err)
			}
		}
	}
	revoke()
	wantV(t, b, "the file holding the token that was unwrapped")

	// A new token in the file is unwrapped at the next login.
	replaceFile(t, file, v.WrappedSecretID("r", time.Hour))
	wantV(t, late, "with a new token, at once")
	replaceFile(t, file, v.WrappedSecretID("r", time.Hour))
	p.Forget()
	wantV(t, b, "with a new token, the old login being valid")
	if n := len(p.Requests(servers.PathIs(unwrapPath))); n != 0 {
		t.Errorf("%d unwrappings although the token is valid", n)
	}
	revoke()
	wantV(t, b, "with a new token")
	if n := len(p.Requests(servers.PathIs(unwrapPath))); n != 1 {
		t.Errorf("%d unwrappings of the new token", n)
	}
}

func TestWhatIsWrongWithAWrappingToken(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, _ := v.AppRole("r", []string{"rw"}, nil)
	expired := v.WrappedSecretID("r", time.Second)
	eventually(t, "the wrapping token expires", func() bool {
		status, _ := v.Do("POST", "sys/wrapping/lookup", map[string]any{"token": expired})
		return status != 200
	})
	for name, test := range map[string]struct{ token, says string }{
		"expired":        {expired, "has expired"},
		"unknown":        {"hvs.canary-unknown", "somebody else may have unwrapped it"},
		"something else": {v.Wrap(map[string]any{"password": "canary"}, time.Hour), "no secret id"},
		"no token":       {"canary\x00", "characters that no token has"},
	} {
		b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, WrappedSecretIDFile: writeFile(t, "w", test.token)}), hashicorpvault.Options{})
		_, err := b.Get(t.Context(), "a/b")
		if !isOnly(t, err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnUnwrappingThatMeetsTrouble(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, _ := v.AppRole("r", []string{"rw"}, nil)
	start := func() *hashicorpvault.VaultBackend {
		return open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, WrappedSecretID: secret.NewValue(v.WrappedSecretID("r", time.Hour))}), hashicorpvault.Options{})
	}
	for name, fault := range map[string]servers.Fault{
		"cut": servers.Drop(), "HTML": servers.HTML(403), "sealed": servers.Answer(503, "application/json", `{"errors":["Vault is sealed"]}`),
		"standby": servers.Answer(400, "application/json", `{"errors":["Vault is in standby mode"]}`),
	} {
		b := start()
		p.Inject(fault, servers.PathIs(unwrapPath))
		if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) || errors.Is(err, secret.ErrLogin) {
			t.Errorf("%s: %v", name, err)
		}
		p.Heal()
		wantV(t, b, name+", healed")
	}

	// Unwrapped, and the login does not come through: the secret id is not lost.
	b := start()
	p.Inject(servers.Drop(), servers.PathIs(loginPath))
	if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("a login that is cut: %v", err)
	}
	p.Heal()
	wantV(t, b, "the login healed")

	// Unwrapped, and the answer is lost: that is said, and nobody else is blamed.
	b = start()
	p.Inject(servers.DropAnswer(), servers.PathIs(unwrapPath))
	if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("an answer that is lost: %v", err)
	}
	p.Heal()
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrLogin) || !strings.Contains(err.Error(), "an earlier request of ours") {
		t.Errorf("after an answer that was lost: %v", err)
	}
}

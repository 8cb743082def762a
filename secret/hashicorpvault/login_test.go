package hashicorpvault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

const (
	loginPath  = "/v1/auth/approle/login"
	lookupPath = "/v1/auth/token/lookup-self"
)

// vaultWithSecret starts a server that holds "v" at nexus/providers/a/b, and a proxy
// in front of it.
func vaultWithSecret(t *testing.T) (*servers.VaultServer, *servers.FaultProxy) {
	t.Helper()
	v := servers.Vault(t)
	v.Policy("rw", readWriteV2)
	v.Write("secret/data/nexus/providers/a/b", map[string]any{"data": map[string]any{"value": "v"}})
	return v, servers.NewFaultProxy(t, v.Addr)
}

func below(p *servers.FaultProxy, login hashicorpvault.Login) hashicorpvault.Config {
	return hashicorpvault.Config{Address: p.URL, PathPrefix: "nexus/providers", Login: login}
}

func wantV(t *testing.T, b secret.SecretBackend, when string) {
	t.Helper()
	if v, err := b.Get(t.Context(), "a/b"); err != nil || v != "v" {
		t.Fatalf("%s: %q, %v", when, v, err)
	}
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not happen: %s", what)
		}
	}
}

func TestOneLoginForManyReads(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1h"})
	p.Inject(servers.Latency(100*time.Millisecond), servers.PathIs(loginPath)) // time enough for everybody to want one
	// Who asks which version is mounted does so alone: with a version that is configured
	// nothing but the login keeps the readers waiting.
	for name, version := range map[string]int{"the version of KV is asked for": 0, "the version of KV is configured": 2} {
		t.Run(name, func(t *testing.T) {
			p.Forget()
			var logins atomic.Int32
			cfg := below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)})
			cfg.KVVersion = version
			b := open(t, cfg, hashicorpvault.Options{OnLogin: func(err error) {
				if err == nil {
					logins.Add(1)
				}
			}})
			if n := len(p.Requests()); n != 0 {
				t.Errorf("%d requests before the first use", n)
			}
			if _, ok := b.TokenTTL(); ok {
				t.Error("a TTL before the first login")
			}
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					if _, err := b.Get(context.Background(), "a/b"); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for range 20 {
				wantV(t, b, "with a token")
			}
			if n := len(p.Requests(servers.PathIs(loginPath))); n != 1 || logins.Load() != 1 {
				t.Errorf("%d logins, %d reported", n, logins.Load())
			}
			asked := 0
			if version == 0 {
				asked = 1
			}
			if n := len(p.Requests(servers.PathIs("/v1/sys/internal/ui/mounts/secret"))); n != asked {
				t.Errorf("the KV version was asked for %d times", n)
			}
			if ttl, ok := b.TokenTTL(); !ok || ttl > time.Hour || ttl < 59*time.Minute {
				t.Errorf("the TTL is %s, %t", ttl, ok)
			}
		})
	}
}

func TestARevokedTokenIsReplacedByOneLogin(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1h"})
	b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)}), hashicorpvault.Options{})
	for range 3 {
		wantV(t, b, "before")
		p.Forget()
		v.Write("sys/leases/revoke-prefix/auth/approle/login", nil)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got, err := b.Get(context.Background(), "a/b"); err != nil || got != "v" {
					t.Errorf("with a revoked token: %q, %v", got, err)
				}
			})
		}
		wg.Wait()
		if n := len(p.Requests(servers.PathIs(loginPath))); n != 1 {
			t.Errorf("%d logins", n)
		}
	}
}

// A request that was under way with a token that has been replaced meanwhile is made again
// with the new one, also while somebody else is finding out why that one was denied.
func TestADenialOfTheOldTokenIsNoneOfTheNewOne(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	v.Write("secret/data/nexus/providers/a/slow", map[string]any{"data": map[string]any{"value": "v"}})
	role, id := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1h"})
	b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)}), hashicorpvault.Options{Timeout: 20 * time.Second})
	wantV(t, b, "before")

	held := func(path string) (arrived <-chan struct{}, release func()) {
		came, released := make(chan struct{}), make(chan struct{})
		var once sync.Once
		p.Inject(func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			once.Do(func() { close(came); <-released })
			pass(w, r)
		}, servers.PathIs(path))
		release = sync.OnceFunc(func() { close(released) })
		t.Cleanup(release)
		return came, release
	}
	get := func(key string) <-chan error {
		done := make(chan error, 1)
		go func() { _, err := b.Get(context.Background(), key); done <- err }()
		return done
	}
	underWay, goOn := held("/v1/secret/data/nexus/providers/a/slow")
	slow := get("a/slow")
	<-underWay
	v.Write("sys/leases/revoke-prefix/auth/approle/login", nil)
	wantV(t, b, "with the token of a new login")

	p.Inject(servers.Answer(http.StatusForbidden, "application/json", denied), servers.PathIs("/v1/secret/data/nexus/providers/a/denied"))
	lookedUp, answer := held(lookupPath)
	other := get("a/denied")
	<-lookedUp
	goOn()
	select {
	case err := <-slow:
		if err != nil {
			t.Errorf("the request with the old token: %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Error("it waits for the verdict on the new token")
	}
	answer()
	if err := <-other; !errors.Is(err, secret.ErrDenied) {
		t.Errorf("denied by a policy: %v", err)
	}
}

func TestAPolicyDenialIsNoReasonToLogIn(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1h"})
	noDefault, noDefaultID := v.AppRole("n", []string{"rw"}, map[string]any{"token_ttl": "1h", "token_no_default_policy": true})
	for name, login := range map[string]hashicorpvault.Login{
		"AppRole":                                hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)},
		"AppRole that may not look its token up": hashicorpvault.AppRoleLogin{RoleID: noDefault, SecretID: secret.NewValue(noDefaultID)},
		"token":                                  hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{"rw"}, nil))},
		"token that may not look itself up":      hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{"rw"}, map[string]any{"no_default_policy": true}))},
	} {
		p.Forget()
		b := open(t, below(p, login), hashicorpvault.Options{})
		wantV(t, b, name)
		v.Policy("rw", `path "secret/data/other/*" { capabilities = ["read"] }`)
		for range 10 {
			_, err := b.Get(t.Context(), "a/b")
			if !errors.Is(err, secret.ErrDenied) || errors.Is(err, secret.ErrLogin) {
				t.Errorf("%s, denied: %v", name, err)
			}
		}
		v.Policy("rw", readWriteV2)
		wantV(t, b, name+", allowed again")
		if n := len(p.Requests(servers.PathIs(loginPath))); n > 1 {
			t.Errorf("%s: %d logins", name, n)
		}
	}
}

func TestAnOldTokenIsReplacedOnlyIfItMayBeInvalid(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	v.Policy("rw", `path "secret/data/other/*" { capabilities = ["read"] }`)
	for name, test := range map[string]struct {
		settings map[string]any
		logins   int
	}{
		"the lookup says that it is valid": {map[string]any{"token_no_default_policy": false}, 1},
		"the lookup is denied":             {map[string]any{"token_no_default_policy": true}, 2},
	} {
		role, id := v.AppRole("r", []string{"rw"}, test.settings)
		p.Forget()
		b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)}), hashicorpvault.Options{})
		hashicorpvault.TrustNoToken(b)
		if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrDenied) || errors.Is(err, secret.ErrLogin) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(p.Requests(servers.PathIs(loginPath))); n != test.logins {
			t.Errorf("%s: %d logins, want %d", name, n, test.logins)
		}
	}
}

func TestAServerThatRefusesEveryTokenIsNotFloodedWithLogins(t *testing.T) {
	t.Parallel()
	n := 0
	v := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == loginPath {
			n++
			answer(w, 200, fmt.Sprintf(`{"request_id":"1","auth":{"client_token":"t%d","lease_duration":3600,"renewable":true}}`, n))
			return
		}
		answer(w, 403, `{"errors":["permission denied"]}`)
	})
	b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: hashicorpvault.AppRoleLogin{RoleID: "r"}}, hashicorpvault.Options{})
	for range 20 {
		if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) {
			t.Errorf("the error is %v", err)
		}
	}
	if logins := len(v.seen(loginPath)); logins > 2 {
		t.Errorf("%d logins", logins)
	}
}

func TestATokenThatIsRevokedBeforeItsFirstUseIsReplaced(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, nil)
	cfg := below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)})
	cfg.KVVersion = 2
	b := open(t, cfg, hashicorpvault.Options{})
	p.Inject(servers.HTML(502), servers.PathIs("/v1/secret/data/nexus/providers/a/b"))
	if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) {
		t.Fatalf("a proxy in front of Vault answers: %v", err)
	}
	v.Write("sys/leases/revoke-prefix/auth/approle/login", nil)
	p.Heal()
	wantV(t, b, "the token having been revoked unused")
}

func TestARefusedLoginIsNotRepeatedForEachRead(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, nil)
	file := writeFile(t, "secret-id", "wrong")
	var failures atomic.Int32
	b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretIDFile: file}), hashicorpvault.Options{OnLogin: func(err error) {
		if err != nil {
			failures.Add(1)
		}
	}})
	for range 50 {
		_, err := b.Get(t.Context(), "a/b")
		if !errors.Is(err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) || !strings.Contains(err.Error(), "nexus/providers/a/b") {
			t.Fatalf("the error is %v", err)
		}
	}
	if n := len(p.Requests(servers.PathIs(loginPath))); n > 3 || int(failures.Load()) != n {
		t.Errorf("%d logins, %d reported", n, failures.Load())
	}
	replaceFile(t, file, "\n  "+id+"\r\n")
	wantV(t, b, "at once after the secret id has been corrected")
}

func TestATokenThatIsNotValidIsALoginError(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	token := v.Token([]string{"rw"}, nil)
	b := open(t, below(p, hashicorpvault.TokenLogin{Token: secret.NewValue(token)}), hashicorpvault.Options{})
	wantV(t, b, "before")
	v.Revoke(token)
	for range 3 {
		_, err := b.Get(t.Context(), "a/b")
		if !errors.Is(err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) || !isOnly(t, err, secret.ErrDenied) {
			t.Errorf("revoked: %v", err)
		}
		if err := b.Set(t.Context(), "a/b", "x"); !errors.Is(err, secret.ErrLogin) {
			t.Errorf("revoked: %v", err)
		}
		if err := b.Delete(t.Context(), "a/b"); !errors.Is(err, secret.ErrLogin) {
			t.Errorf("revoked: %v", err)
		}
		if err := b.Probe(t.Context(), secret.ReadOnly); !errors.Is(err, secret.ErrLogin) {
			t.Errorf("revoked: %v", err)
		}
	}
}

func TestATokenFileIsReadAgain(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	first, second := v.Token([]string{"rw"}, nil), v.Token([]string{"rw"}, nil)
	file := writeFile(t, "token", first)
	b := open(t, below(p, hashicorpvault.TokenLogin{File: file}), hashicorpvault.Options{})
	wantV(t, b, "with the first token")
	v.Revoke(first)
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrLogin) || !strings.Contains(err.Error(), file) {
		t.Errorf("with the first token revoked: %v", err)
	}
	replaceFile(t, file, second+"\n")
	wantV(t, b, "with the second token")

	third := v.Token([]string{"rw"}, nil)
	replaceFile(t, file, third)
	p.Forget()
	wantV(t, b, "with the third token, the second being valid")
	if r := p.Requests(servers.PathIs("/v1/secret/data/nexus/providers/a/b")); r[0].Header.Get("X-Vault-Token") != third {
		t.Error("the token is not the newest")
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantV(t, b, "the file being gone")
	replaceFile(t, file, "")
	wantV(t, b, "the file being empty")
	replaceFile(t, file, third+"\n")
	wantV(t, b, "the file being back")
}

func TestATokenFileMayComeLater(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	file := writeFile(t, "token", "")
	b := open(t, below(p, hashicorpvault.TokenLogin{File: file}), hashicorpvault.Options{})
	if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) || !strings.Contains(err.Error(), file) {
		t.Errorf("an empty file: %v", err)
	}
	replaceFile(t, file, "a\x00b")
	if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) {
		t.Errorf("a file with something else: %v", err)
	}
	replaceFile(t, file, v.Token([]string{"rw"}, nil))
	wantV(t, b, "after the file has come")
}

func TestARotatedSecretIDIsUsedAtTheNextLogin(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1h"})
	file := writeFile(t, "secret-id", id)
	b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretIDFile: file}), hashicorpvault.Options{})
	wantV(t, b, "before")
	replaceFile(t, file, v.SecretID("r"))
	v.DestroySecretID("r", id)
	p.Forget()
	wantV(t, b, "the secret id rotated, the token valid")
	if n := len(p.Requests(servers.PathIs(loginPath))); n != 0 {
		t.Errorf("%d logins although the token is valid", n)
	}
	v.Write("sys/leases/revoke-prefix/auth/approle/login", nil)
	wantV(t, b, "the secret id rotated, the token revoked")
}

func TestALoginDoesNotEndWithWhoAskedFirst(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, nil)
	b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)}), hashicorpvault.Options{})
	p.Inject(servers.Latency(300*time.Millisecond), servers.PathIs(loginPath))
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := b.Get(ctx, "a/b")
		first <- err
	}()
	eventually(t, "the login begins", func() bool { return len(p.Requests(servers.PathIs(loginPath))) == 1 })
	cancel()
	wantV(t, b, "the second caller")
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first caller: %v", err)
	}
	if n := len(p.Requests(servers.PathIs(loginPath))); n != 1 {
		t.Errorf("%d logins", n)
	}
}

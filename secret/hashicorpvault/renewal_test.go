package hashicorpvault_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// TestTokensThatDoNotLast reads all the time while tokens of two seconds come and go.
func TestTokensThatDoNotLast(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role := func(name string, settings map[string]any) func() hashicorpvault.Login {
		id, secretID := v.AppRole(name, []string{"rw"}, settings)
		return func() hashicorpvault.Login {
			return hashicorpvault.AppRoleLogin{RoleID: id, SecretID: secret.NewValue(secretID)}
		}
	}
	token := func() hashicorpvault.Login {
		// Nothing can help if it is not renewed in time: a machine under load gets longer.
		return hashicorpvault.TokenLogin{Token: secret.NewValue(v.Token([]string{"rw"}, map[string]any{"period": "4s"}))}
	}
	for name, test := range map[string]struct {
		login  func() hashicorpvault.Login
		logins int // at least
	}{
		"token-periodic": {token, 0},
		"periodic":       {role("periodic", map[string]any{"token_period": "2s"}), 1},
		"batch":          {role("batch", map[string]any{"token_type": "batch", "token_ttl": "2s"}), 3},
		"longest-life":   {role("longest-life", map[string]any{"token_ttl": "2s", "token_max_ttl": "3s"}), 2},
		"explicit-life":  {role("explicit-life", map[string]any{"token_ttl": "2s", "token_explicit_max_ttl": "3s"}), 2},
		"no-self-rights": {role("no-self-rights", map[string]any{"token_ttl": "2s", "token_no_default_policy": true}), 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := servers.NewFaultProxy(t, p.URL)
			b := open(t, below(own, test.login()), hashicorpvault.Options{})
			for deadline := time.Now().Add(6 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				wantV(t, b, "while tokens come and go")
			}
			if n := len(own.Requests(servers.PathIs(loginPath))); n < test.logins || n > 10 {
				t.Errorf("%d logins, want at least %d", n, test.logins)
			}
			for _, r := range own.Requests(servers.PathIs(lookupPath)) {
				if r.Method != http.MethodGet {
					t.Errorf("%s %s", r.Method, r.Path)
				}
			}
			if ttl, ok := b.TokenTTL(); !ok || ttl > 4*time.Second {
				t.Errorf("the TTL is %s, %t", ttl, ok)
			}
		})
	}
}

func TestATokenThatCannotBeRenewedIsUsedToItsEnd(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	file := writeFile(t, "token", v.Token([]string{"rw"}, map[string]any{"ttl": "2s", "renewable": false}))
	var out servers.Log
	b := open(t, below(p, hashicorpvault.TokenLogin{File: file}), hashicorpvault.Options{Logger: newLogger(&out)})
	wantV(t, b, "before")
	eventually(t, "the token ends", func() bool {
		_, err := b.Get(t.Context(), "a/b")
		return errors.Is(err, secret.ErrLogin)
	})
	if !strings.Contains(out.String(), "can't be renewed") {
		t.Errorf("the log does not say so:\n%s", out.String())
	}
	replaceFile(t, file, v.Token([]string{"rw"}, nil))
	wantV(t, b, "with another token")
}

func TestATokenFileIsPickedUpBeforeTheOldTokenEnds(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	file := writeFile(t, "token", v.Token([]string{"rw"}, map[string]any{"ttl": "2s", "renewable": false}))
	b := open(t, below(p, hashicorpvault.TokenLogin{File: file}), hashicorpvault.Options{})
	wantV(t, b, "before")
	eventually(t, "the TTL is known", func() bool { _, ok := b.TokenTTL(); return ok })
	replaceFile(t, file, v.Token([]string{"rw"}, map[string]any{"ttl": "1h"}))
	// Nobody reads, and the new token is in use all the same.
	eventually(t, "the new token is in use", func() bool { ttl, _ := b.TokenTTL(); return ttl > time.Minute })
}

func TestANewLoginNeedsAServerThatIsThere(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1s", "token_max_ttl": "1s"})
	b := open(t, below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)}), hashicorpvault.Options{})
	wantV(t, b, "before")
	p.Down()
	eventually(t, "the token expires", func() bool { ttl, ok := b.TokenTTL(); return ok && ttl == 0 })
	for range 3 {
		if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) {
			t.Errorf("down, with the token expired: %v", err)
		}
	}
	p.Up()
	wantV(t, b, "at once after the server has come back")
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	t.Parallel()
	v, p := vaultWithSecret(t)
	role, id := v.AppRole("r", []string{"rw"}, map[string]any{"token_ttl": "1s"})
	before := runtime.NumGoroutine()
	for range 10 {
		used, err := hashicorpvault.New(below(p, hashicorpvault.AppRoleLogin{RoleID: role, SecretID: secret.NewValue(id)}), hashicorpvault.Options{})
		if err != nil {
			t.Fatal(err)
		}
		wantV(t, used, "before Close")
		unused, err := hashicorpvault.New(below(p, rootLogin(v)), hashicorpvault.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []*hashicorpvault.VaultBackend{used, unused} {
			if err := errors.Join(b.Close(), b.Close()); err != nil {
				t.Error(err)
			}
		}
		if _, err := unused.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) {
			t.Errorf("after Close: %v", err)
		}
	}
	// The proxy's connections to the server stay.
	eventually(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before+6 })
}

func TestCloseEndsALoginThatHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	v := newFakeVault(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	b, err := hashicorpvault.New(hashicorpvault.Config{Address: v.URL, Login: hashicorpvault.AppRoleLogin{RoleID: "r"}}, hashicorpvault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := b.Get(context.Background(), "a/b")
		result <- err
	}()
	eventually(t, "the login begins", func() bool { return len(v.seen(loginPath)) == 1 })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !isOnly(t, err, secret.ErrUnavailable) || errors.Is(err, context.Canceled) {
		t.Errorf("the call that waited: %v", err)
	}
}

package hashicorpvault_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

func TestEveryLoginIsMadeOnceAndAgainWhenItsTokenIsRevoked(t *testing.T) {
	t.Parallel()
	w := newLoginWorld(t)
	for _, l := range everyLogin {
		t.Run(l.name, func(t *testing.T) {
			p := w.proxy(t)
			var logins atomic.Int32
			var out servers.Log
			b := open(t, w.through(p, l.valid(t, w, "once", []string{"rw"}, map[string]any{"token_ttl": "1h"})), hashicorpvault.Options{
				Logger: newLogger(&out),
				OnLogin: func(err error) {
					if err == nil {
						logins.Add(1)
					}
				}})
			for round := range 3 {
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						if got, err := b.Get(context.Background(), "a/b"); err != nil || got != "v" {
							t.Errorf("round %d: %q, %v", round, got, err)
						}
					})
				}
				wg.Wait()
				if n := len(p.Requests(isLogin(l.mount))); n != round+1 || int(logins.Load()) != n {
					t.Errorf("round %d: %d logins, %d reported", round, n, logins.Load())
				}
				if err := b.Probe(t.Context(), secret.ReadWrite); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				w.v.Write("sys/leases/revoke-prefix/auth/"+l.mount+"/login", nil)
			}
			if !strings.Contains(out.String(), "logged in to Vault") || strings.Contains(out.String(), "canary") {
				t.Errorf("the log is\n%s", out.String())
			}
		})
	}
}

func TestEveryRefusedLogin(t *testing.T) {
	t.Parallel()
	w := newLoginWorld(t)
	for _, l := range everyLogin {
		t.Run(l.name, func(t *testing.T) {
			p := w.proxy(t)
			login, mend := l.refused(t, w)
			p.Reconnect()
			b := open(t, w.through(p, login), hashicorpvault.Options{})
			for range 20 {
				_, get := b.Get(t.Context(), "a/b")
				probe := b.Probe(t.Context(), secret.ReadOnly)
				for _, err := range []error{get, probe} {
					if !isOnly(t, err, secret.ErrDenied) || !errors.Is(err, secret.ErrLogin) || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "check") && l.name != "wrapped" {
						t.Fatalf("refused: %v", err)
					}
				}
			}
			if n := len(p.Requests(isLogin(l.mount))); n > 4 || n == 0 && l.name != "wrapped" {
				t.Errorf("%d logins", n)
			}
			mend()
			p.Reconnect()
			eventually(t, "it works again", func() bool { _, err := b.Get(t.Context(), "a/b"); return err == nil })
		})
	}
}

// TestTokensOfTwoSecondsForAMinute reads all the time while tokens come and go: those that
// are renewed until their longest life ends, and those that no policy allows to be renewed.
// No read may fail. All logins share the minute.
func TestTokensOfTwoSecondsForAMinute(t *testing.T) {
	t.Parallel()
	const duration, readers, pause = time.Minute, 2, 200 * time.Millisecond
	w := newLoginWorld(t)
	var all sync.WaitGroup
	for _, l := range everyLogin {
		for kind, settings := range map[string]map[string]any{
			"renewed": {"token_ttl": "2s", "token_max_ttl": "5s"},
			"denied":  {"token_ttl": "2s", "token_no_default_policy": true},
		} {
			name := l.name + "-" + kind
			p := w.proxy(t)
			b := open(t, w.through(p, l.valid(t, w, name, []string{"rw"}, settings)), hashicorpvault.Options{})
			var reads, failed atomic.Int32
			for range readers {
				all.Go(func() {
					for end := time.Now().Add(duration); time.Now().Before(end); time.Sleep(pause) {
						if got, err := b.Get(context.Background(), "a/b"); err != nil || got != "v" {
							failed.Add(1)
							t.Errorf("%s, after %d reads: %q, %v", name, reads.Load(), got, err)
						}
						reads.Add(1)
					}
				})
			}
			t.Cleanup(func() {
				logins, renewals := len(p.Requests(isLogin(l.mount))), len(p.Requests(servers.PathIs("/v1/auth/token/renew-self")))
				t.Logf("%s: %d reads, %d failed, %d logins, %d renewals", name, reads.Load(), failed.Load(), logins, renewals)
				// A token that lives for five seconds is followed by another; none is made for a read.
				if logins < 5 || logins > 80 || renewals == 0 {
					t.Errorf("%s: %d logins, %d renewals", name, logins, renewals)
				}
			})
		}
	}
	all.Wait()
}

func TestEveryLoginSurvivesAVaultThatWasAwayForLongerThanTheTTL(t *testing.T) {
	t.Parallel()
	w := newLoginWorld(t)
	for _, l := range everyLogin {
		login := l.valid(t, w, "away", []string{"rw"}, map[string]any{"token_ttl": "1s", "token_max_ttl": "1s"})
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			p := w.proxy(t)
			b := open(t, w.through(p, login), hashicorpvault.Options{})
			wantV(t, b, "before")
			p.Down()
			eventually(t, "the token expires", func() bool { ttl, ok := b.TokenTTL(); return ok && ttl == 0 })
			for range 3 {
				if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) || errors.Is(err, secret.ErrLogin) {
					t.Errorf("away: %v", err)
				}
			}
			p.Up()
			wantV(t, b, "back")
		})
	}
}

// What Vault needs to judge a login can be away too: that is no refusal, where Vault tells.
func TestTroubleBehindVault(t *testing.T) {
	t.Parallel()
	w := newLoginWorld(t)
	for name, trouble := range map[string]func(bool){
		"jwt": w.issuer.Silence,
		"aws": func(on bool) { w.sts.Outage(map[bool]int{true: 503, false: 0}[on]) },
	} {
		for _, l := range everyLogin {
			if l.name != name {
				continue
			}
			login := l.valid(t, w, "behind", []string{"rw"}, nil)
			trouble(true)
			b := open(t, w.through(w.proxy(t), login), hashicorpvault.Options{})
			for range 3 {
				if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) || !strings.Contains(err.Error(), "needs to check the login") {
					t.Errorf("%s: %v", name, err)
				}
			}
			if err := b.Probe(t.Context(), secret.ReadOnly); !isOnly(t, err, secret.ErrUnavailable) || errors.Is(err, secret.ErrLogin) {
				t.Errorf("%s: %v", name, err)
			}
			trouble(false)
			wantV(t, b, name+", healed")
		}
	}
}

func TestAReplacedProofIsUsedAtTheNextLogin(t *testing.T) {
	t.Parallel()
	w := newLoginWorld(t)
	token, jwt := w.cluster.Token("broker"), w.issuer.Token("broker", time.Hour)
	k8sFile, jwtFile := writeFile(t, "sa", token), writeFile(t, "jwt", jwt)
	w.v.Kubernetes("team/k8s", w.cluster, "r", []string{"rw"}, nil)
	w.v.JWT("team/jwt", w.issuer, "r", []string{"rw"}, nil)
	w.v.Cert("team/cert", w.ca, "r", []string{"rw"}, nil)
	for mount, test := range map[string]struct {
		login   hashicorpvault.Login
		replace func()
	}{
		"team/k8s": {hashicorpvault.KubernetesLogin{Mount: "team/k8s", Role: "r", TokenFile: k8sFile}, func() {
			w.cluster.Withdraw(token)
			replaceFile(t, k8sFile, w.cluster.Token("broker"))
		}},
		"team/jwt": {hashicorpvault.JWTLogin{Mount: "team/jwt", Role: "r", File: jwtFile}, func() {
			replaceFile(t, jwtFile, w.issuer.Token("broker", time.Hour))
			w.v.JWT("team/jwt", w.issuer, "r", []string{"rw"}, map[string]any{"bound_claims": map[string]any{"sub": "broker"}})
		}},
	} {
		p := w.proxy(t)
		b := open(t, w.through(p, test.login), hashicorpvault.Options{})
		wantV(t, b, mount)
		test.replace()
		wantV(t, b, mount+", the token of the first login being valid")
		if n := len(p.Requests(isLogin(mount))); n != 1 {
			t.Errorf("%s: %d logins although the token is valid", mount, n)
		}
		w.v.Write("sys/leases/revoke-prefix/auth/"+mount+"/login", nil)
		wantV(t, b, mount+", after the revocation")
	}

	// The server is asked without a proxy: it is our own connections that matter.
	cfg := hashicorpvault.Config{Address: w.v.Addr, PathPrefix: "nexus/providers", Login: hashicorpvault.CertLogin{Mount: "team/cert", Role: "r"}}
	cert, key := w.ca.Client("rotated", "broker")
	cfg.TLS = hashicorpvault.TLS{CACertFile: w.v.CAFile, ClientCertFile: cert, ClientKeyFile: key}
	b := open(t, cfg, hashicorpvault.Options{})
	wantV(t, b, "cert")
	w.ca.Client("rotated", "intruder")
	wantV(t, b, "cert, the token of the first login being valid")
	w.v.Write("sys/leases/revoke-prefix/auth/team/cert/login", nil)
	if _, err := b.Get(t.Context(), "a/b"); !errors.Is(err, secret.ErrLogin) {
		t.Errorf("a login over the connection of the old certificate: %v", err)
	}
	w.ca.Client("rotated", "broker")
	wantV(t, b, "cert, replaced once more")
}

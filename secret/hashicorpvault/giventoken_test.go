package hashicorpvault_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// A token that was given to us is no login before the server has accepted it.
func TestAGivenTokenIsALoginOnceItIsAccepted(t *testing.T) {
	t.Parallel()
	var accepts atomic.Bool
	v := newFakeVault(t, func(w http.ResponseWriter, _ *http.Request) {
		if !accepts.Load() {
			answer(w, 503, `{"errors":["Vault is sealed"]}`)
			return
		}
		answer(w, 200, `{"request_id":"1","data":{"ttl":0,"data":{"value":"v"},"metadata":{"version":1}}}`)
	})
	var out servers.Log
	var logins, failures atomic.Int32
	b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: hashicorpvault.TokenLogin{Token: secret.NewValue("t")}},
		hashicorpvault.Options{Logger: newLogger(&out), OnLogin: func(err error) {
			if err != nil {
				failures.Add(1)
				return
			}
			logins.Add(1)
		}})
	if _, err := b.Get(t.Context(), "a/b"); !isOnly(t, err, secret.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	if n := logins.Load(); n != 0 {
		t.Errorf("%d logins at a server that is sealed", n)
	}
	if text := out.String(); strings.Contains(text, "logged in") || !strings.Contains(text, "using the configured Vault token") {
		t.Errorf("the log is\n%s", text)
	}
	accepts.Store(true)
	for range 3 {
		if _, err := b.Get(t.Context(), "a/b"); err != nil {
			t.Errorf("Get: %v", err)
		}
	}
	if logins.Load() != 1 || failures.Load() != 0 {
		t.Errorf("%d logins, %d failures", logins.Load(), failures.Load())
	}
}

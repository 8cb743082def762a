package docs_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// trouble is something that befalls Vault.
type trouble struct {
	begin, end func()
	last       bool // it has no end
}

// troubled is a broker with a connection whose provider is "acme", and nothing in
// memory, behind a proxy that can do what Vault cannot be made to do.
type troubled struct {
	*engine
	proxy      *servers.FaultProxy
	provider   string
	connection string
	troubles   map[string]trouble // by the first cell of the table in docs/vault.md
	serial     int
}

const outageTable = "| Vault |"

func newTroubled(t *testing.T) *troubled {
	t.Helper()
	v := servers.Vault(t)
	proxy := servers.NewFaultProxy(t, v.Addr)
	hcl := policy(t, "rw-v2")
	v.Policy("broker", hcl)
	token := v.Token([]string{"broker"}, map[string]any{"period": "1h"})
	e := newEngine(t, "secret", hcl, nil, env{"VAULT_ADDR": proxy.URL, "VAULT_TOKEN": token, "SECRET_TIMEOUT": "1s"})
	e.v = v // the one behind the proxy
	id := e.register("acme").text("id")
	w := &troubled{engine: e, proxy: proxy, provider: id, connection: e.connect(id)}
	right := map[string]any{"value": client().Secret}
	inject := func(f servers.Fault) trouble {
		return trouble{begin: func() { proxy.Inject(f) }, end: proxy.Heal}
	}
	store := func(fields map[string]any) trouble {
		return trouble{begin: func() { e.put("acme/client_secret", fields) }, end: func() { e.put("acme/client_secret", right) }}
	}
	w.troubles = map[string]trouble{
		"is down":   {begin: proxy.Down, end: proxy.Up},
		"is sealed": {begin: v.Seal, end: v.Unseal},
		"does not answer within `SECRET_TIMEOUT`": {begin: v.Pause, end: v.Resume},
		"throttles (429, `Retry-After: 7`)":       inject(servers.Throttle(7 * time.Second)),
		"is hidden by a proxy's HTML page":        inject(servers.HTML(http.StatusOK)),
		"denies: the policy was changed": {
			begin: func() { v.Policy("broker", `path "other/*" { capabilities = ["read"] }`) },
			end:   func() { v.Policy("broker", hcl) },
		},
		"does not know the token any more (`VAULT_TOKEN`)": {begin: func() { v.Revoke(token) }, last: true},
		"has no such secret": {
			begin: func() { v.Remove("secret/metadata/nexus/providers/acme/client_secret") },
			end:   func() { e.put("acme/client_secret", right) },
		},
		"has something else in its place":        store(map[string]any{"password": "x", "user": "y"}),
		"has a secret that the provider refuses": store(map[string]any{"value": "another"}),
	}
	return w
}

// names returns the troubles' names, that which does not end last.
func (w *troubled) names() []string {
	return slices.SortedFunc(maps.Keys(w.troubles), func(a, b string) int {
		switch {
		case w.troubles[a].last == w.troubles[b].last:
			return 0
		case w.troubles[a].last:
			return 1
		}
		return -1
	})
}

func (w *troubled) token() answer {
	w.t.Helper()
	return w.b.call("GET", "/connections/"+w.connection+"/token", nil)
}

// registerAnother registers a provider of a new name.
func (w *troubled) registerAnother() answer {
	w.t.Helper()
	w.serial++
	return w.register(fmt.Sprintf("another-%d", w.serial))
}

// What a row of the table says is what is answered, and it ends.
func TestWhenVaultFails(t *testing.T) {
	t.Parallel()
	w := newTroubled(t)
	rows := table(t, "docs/vault.md", outageTable)
	require.ElementsMatch(t, w.names(), slices.Collect(maps.Keys(rows)))
	for _, name := range w.names() {
		t.Run(name, func(t *testing.T) {
			w.t, w.b.t = t, t
			documented := rows[name]
			for i := 2; i < 4; i++ {
				if documented[i] == "the same" {
					documented[i] = documented[1]
				}
			}
			pending := w.callback(w.consent(w.provider).text("authUrl"))
			trouble := w.troubles[name]
			trouble.begin()
			require.Equal(t, documented[0], cell(w.token()), "token")
			require.Equal(t, documented[1], cell(w.consent(w.provider)), "consent")
			require.Equal(t, documented[2], cell(w.refresh(w.connection)), "refresh")
			registered := w.registerAnother()
			require.Equal(t, documented[3], cell(registered), "register")
			if registered.Status != http.StatusCreated {
				name := fmt.Sprintf("another-%d", w.serial)
				require.Equal(t, http.StatusNotFound, w.b.call("GET", "/providers/by-name/"+name, nil).Status)
			}
			q := w.finish(pending)
			require.Equal(t, "error", q.Get("status"))
			require.Contains(t, documented[2], "`"+q.Get("error")+"`", "the callback")
			if trouble.last {
				return
			}
			trouble.end()
			require.Equal(t, "success", w.finish(pending).Get("status"), "the same consent, afterwards")
			require.Equal(t, "200", cell(w.refresh(w.connection)))
			require.Equal(t, "201", cell(w.registerAnother()))
		})
	}
}

// cell writes an answer as the table does.
func cell(a answer) string {
	s := fmt.Sprint(a.Status)
	if a.Code != "" {
		s += " `" + a.Code + "`"
	}
	if a.RetryAfter != "" {
		s += ", `Retry-After: " + a.RetryAfter + "`"
	}
	return s
}

// In an outage what is in memory is used for SECRET_CACHE_MAX_STALE longer than it is
// while Vault answers; a denial is never bridged.
func TestOutagesAreBridged(t *testing.T) {
	t.Parallel()
	for name, maxStale := range map[string]string{"bridged": "1h", "not bridged": "0"} {
		t.Run(name, func(t *testing.T) {
			v := servers.Vault(t)
			proxy := servers.NewFaultProxy(t, v.Addr)
			v.Policy("broker", policy(t, "rw-v2"))
			e := newEngine(t, "secret", policy(t, "rw-v2"), nil, env{
				"VAULT_ADDR": proxy.URL, "VAULT_TOKEN": v.Token([]string{"broker"}, nil),
				"SECRET_CACHE_TTL": "1s", "SECRET_CACHE_MAX_STALE": maxStale,
			})
			id := e.register("acme").text("id")
			connection := e.connect(id)
			proxy.Down()
			time.Sleep(1100 * time.Millisecond) // what is in memory expires
			if maxStale == "0" {
				require.Equal(t, http.StatusServiceUnavailable, e.refresh(connection).Status)
				return
			}
			require.Equal(t, http.StatusOK, e.refresh(connection).Status)
			v.Policy("broker", `path "other/*" { capabilities = ["read"] }`)
			proxy.Up()
			require.Eventually(t, func() bool { return e.refresh(connection).Code == "secret_backend_denied" },
				20*time.Second, 200*time.Millisecond)
			e.b.stop()
			require.Contains(t, e.b.log.String(), "serving expired client credentials while the secret backend is out")
		})
	}
}

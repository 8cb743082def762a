package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// writes selects the writes of one of the two values.
func writes(value string) servers.Match {
	return func(r *http.Request) bool {
		return (r.Method == http.MethodPut || r.Method == http.MethodPost) &&
			strings.HasPrefix(r.URL.Path, "/v1/secret/data/") && strings.HasSuffix(r.URL.Path, "/"+value)
	}
}

// TestVaultRegistrationCutOff breaks single writes of a registration, while reads go
// on working: it fails, and leaves nothing behind.
func TestVaultRegistrationCutOff(t *testing.T) {
	t.Parallel()
	c := newCanary()
	v := newProxiedVault(t, nil)
	b := startDetecting(t, v.world.env)
	profile := func(name string) map[string]any {
		return map[string]any{"profile": map[string]any{"name": name, "auth_url": "https://op.test/a", "token_url": "https://op.test/t",
			"client_id": "CANARY-client-id", "client_secret": "CANARY-client-secret"}}
	}
	c.protect("client secret", "CANARY-client-secret")
	faults := map[string]servers.Fault{
		"request lost": servers.Drop(), "answer lost": servers.DropAnswer(), "page": servers.HTML(502),
		"throttled": servers.Throttle(time.Second), "slow": servers.Latency(2 * vaultTime),
	}
	for name, f := range faults {
		for _, value := range []string{"client_id", "client_secret"} {
			t.Run(name+" at "+value, func(t *testing.T) {
				b := b.in(t)
				provider := strings.ReplaceAll(name+"-"+strings.TrimPrefix(value, "client_"), " ", "-")
				v.proxy.Inject(f, writes(value))
				defer v.proxy.Heal()
				b.call("POST", "/providers", profile(provider)).want(503, "secret_backend_unavailable")
				v.world.gone(t, provider+"/client_id")
				v.world.gone(t, provider+"/client_secret")
				b.call("GET", "/providers/by-name/"+provider, nil).want(404)
				v.proxy.Heal()
				b.call("POST", "/providers", profile(provider)).want(201)
				require.Equal(t, "CANARY-client-secret", v.world.look(t, provider+"/client_secret"))
			})
		}
	}
	// An update that was cut off leaves the pair as it was.
	for name, f := range faults {
		t.Run(name+" at an update", func(t *testing.T) {
			b := b.in(t)
			provider := "update-" + strings.ReplaceAll(name, " ", "-")
			id := b.call("POST", "/providers", profile(provider)).want(201).text("id")
			once := oneFault(f)
			v.proxy.Inject(once, writes("client_secret"))
			defer v.proxy.Heal()
			b.call("PATCH", "/providers/"+id, map[string]any{"client_id": "CANARY-other-id", "client_secret": "CANARY-other"}).
				want(503, "secret_backend_unavailable")
			require.Equal(t, "CANARY-client-id", v.world.look(t, provider+"/client_id"))
			require.Equal(t, "CANARY-client-secret", v.world.look(t, provider+"/client_secret"))
			state := b.call("GET", "/providers/"+id, nil).object()["credentials"].(map[string]any)["state"]
			require.Equal(t, "ready", state)
		})
	}
	c.checkBroker(t, b)
}

// oneFault is f for the first request, and passes all others on.
func oneFault(f servers.Fault) servers.Fault {
	first := make(chan struct{}, 1)
	first <- struct{}{}
	return func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		select {
		case <-first:
			f(w, r, pass)
		default:
			pass(w, r)
		}
	}
}

// TestVaultWriteArrivesLate: a write that the broker has given up on, and has looked
// for in vain, takes place after all.
func TestVaultWriteArrivesLate(t *testing.T) {
	t.Parallel()
	v := newProxiedVault(t, nil)
	b := startDetecting(t, v.world.env)
	profile := map[string]any{"profile": map[string]any{"name": "late", "auth_url": "https://op.test/a", "token_url": "https://op.test/t",
		"client_id": "id", "client_secret": "secret"}}
	arrive := make(chan struct{})
	arrived := make(chan struct{})
	v.proxy.Inject(oneFault(func(_ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		late := v.replay(t, r)
		go func() { defer close(arrived); <-arrive; late() }()
		panic(http.ErrAbortHandler)
	}), writes("client_secret"))
	b.call("POST", "/providers", profile).want(503, "secret_backend_unavailable")
	close(arrive)
	<-arrived
	require.NotEmpty(t, v.world.look(t, "late/client_secret"), "the write has arrived")
	// It is found again where it is noted: by the sweep, or by who wants the place.
	b.call("POST", "/providers", profile).want(201)
}

// replay returns a function that sends the request to Vault.
func (v proxiedVault) replay(t *testing.T, r *http.Request) func() {
	t.Helper()
	var body strings.Builder
	buffer := make([]byte, 4096)
	for {
		n, err := r.Body.Read(buffer)
		body.Write(buffer[:n])
		if err != nil {
			break
		}
	}
	again, err := http.NewRequest(r.Method, v.Addr+r.URL.Path, strings.NewReader(body.String()))
	require.NoError(t, err)
	again.Header = r.Header.Clone()
	return func() {
		resp, err := http.DefaultClient.Do(again)
		if err == nil {
			_ = resp.Body.Close()
		}
	}
}

// TestVaultDeletionGoesDeep deletes a provider whose newest version in the vault is
// gone or unreadable: the older versions hold the broker's secret.
func TestVaultDeletionGoesDeep(t *testing.T) {
	t.Parallel()
	v := newProxiedVault(t, nil)
	b := startDetecting(t, v.world.env)
	for name, spoil := range map[string]func(path string){
		"deleted":    func(path string) { v.Remove("secret/data/" + v.prefix() + "/" + path) },
		"unreadable": func(path string) { v.put(path, map[string]any{"foo": "bar"}) },
	} {
		id := b.call("POST", "/providers", map[string]any{"profile": profilePair("deep-"+name, "old")}).want(201).text("id")
		spoil("deep-" + name + "/client_secret")
		b.call("DELETE", "/providers/"+id, nil).want(200)
		v.world.gone(t, "deep-"+name+"/client_id")
		v.world.gone(t, "deep-"+name+"/client_secret")
	}
}

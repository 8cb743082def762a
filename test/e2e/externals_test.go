package e2e_test

import (
	"net/http"
	"strings"
	"testing"
)

// external is an external secret backend of a test's own, which the test can break,
// and the world of a broker that keeps its credentials there. What holds for all of
// them is tested once, over the table of externals.
type external struct {
	world
	faults   []fault
	down, up func() // not to be reached, and back
	// What a person does with the backend's own tools. Each of ways stores a value in
	// one form in which a person may; odd stores what is no credential.
	ways   map[string]func(t *testing.T, key, value string)
	odd    func(t *testing.T, key string)
	remove func(t *testing.T, key string)
	// history is all that the backend keeps of a key.
	history func(t *testing.T, key string) any
	// reader returns the login of somebody who may only read.
	reader func() env
	// wrote returns the writes that were asked of the backend since forget.
	forget func()
	wrote  func() []string
}

// put stores a value as a person does.
func (x external) put(t *testing.T, key, value string) { x.ways["as the broker writes"](t, key, value) }

// forExternals runs a test for every external backend, all at the same time.
func forExternals(t *testing.T, test func(t *testing.T, x external)) {
	for name, open := range map[string]func(*testing.T) external{
		"Vault": func(t *testing.T) external { return newProxiedVault(t, nil).external(t) },
		"AWS":   func(t *testing.T) external { return newAWS(t, sqliteWorld(t), "7").external() },
		"GCP":   func(t *testing.T) external { return newGCP(t, sqliteWorld(t)).external(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// external is v for the tests that are about every external backend.
func (v proxiedVault) external(t *testing.T) external {
	v.Policy("reader", printedPolicy(t, v.world.env.with(env{"SECRET_READ_ONLY": "true", "VAULT_KV_VERSION": "2"})))
	put := func(field func(key string) string) func(*testing.T, string, string) {
		return func(_ *testing.T, key, value string) {
			v.put(key, map[string]any{field(key): value, "note": "not ours"})
		}
	}
	return external{
		world: v.world, faults: v.faults(), down: v.proxy.Down, up: v.proxy.Up,
		ways: map[string]func(*testing.T, string, string){
			"as the broker writes": put(func(string) string { return "value" }),
			"as a person writes":   put(func(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }),
		},
		odd:    func(_ *testing.T, key string) { v.put(key, map[string]any{"password": "CANARY-odd"}) },
		remove: func(_ *testing.T, key string) { v.Remove("secret/data/" + v.prefix() + "/" + key) },
		history: func(_ *testing.T, key string) any {
			return v.Read("secret/metadata/" + v.prefix() + "/" + key)["data"]
		},
		reader: func() env { return env{"VAULT_TOKEN": v.Token([]string{"reader"}, nil)} },
		forget: v.proxy.Forget,
		wrote: func() (calls []string) {
			for _, r := range v.proxy.Requests(isWrite) {
				calls = append(calls, r.Method+" "+r.Path)
			}
			return calls
		},
	}
}

// isWrite selects the requests that change something in a Vault. A question about
// capabilities is put with PUT.
func isWrite(r *http.Request) bool {
	return r.Method != http.MethodGet && r.URL.Path != "/v1/sys/capabilities-self"
}

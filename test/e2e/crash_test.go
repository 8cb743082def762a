package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// crash kills a broker in the middle of an operation, at one request to the vault.
type crash struct {
	operation string
	method    string // of the request
	at        string // how its path ends, %s standing for the provider's name
	after     bool   // the vault has done what was asked; else it never hears of it
	// left is the pair that the provider is to have in the end, "" if there is none,
	// "torn" if the two values do not fit together.
	left string
}

func (c crash) String() string {
	when := "before"
	if c.after {
		when = "after"
	}
	place := strings.NewReplacer("%s-renamed/", "new ", "%s/", "", "/", " ").Replace(c.at)
	return fmt.Sprintf("%s killed %s %s %s", c.operation, when, c.method, place)
}

// crashes are all points at which an operation is between two requests to the vault.
func crashes() (all []crash) {
	both := func(operation, method, at, before, after string) {
		all = append(all, crash{operation, method, at, false, before}, crash{operation, method, at, true, after})
	}
	both("register", "PUT", "data/%s/client_id", "", "")
	both("register", "PUT", "data/%s/client_secret", "", "")
	both("update", "PUT", "data/%s/client_id", "old", "torn")
	both("update", "PUT", "data/%s/client_secret", "torn", "new")
	both("delete", "DELETE", "metadata/%s/client_id", "", "")
	both("delete", "DELETE", "metadata/%s/client_secret", "", "")
	both("rename", "PUT", "data/%s-renamed/client_id", "old", "old")
	both("rename", "PUT", "data/%s-renamed/client_secret", "old", "old")
	both("rename", "DELETE", "metadata/%s/client_id", "old", "old")
	both("rename", "DELETE", "metadata/%s/client_secret", "old", "old")
	return all
}

// crashed is a broker that was killed, and what it was at.
type crashed struct {
	crash
	proxiedVault
	env      env
	name, id string // of the provider; no id if it was being registered
	secrets  *canary
}

// TestCrash kills the broker at every step of every operation that needs two systems,
// and starts it again: at once it tells the truth, and in time nothing is left that
// should not be.
func TestCrash(t *testing.T) {
	t.Parallel()
	v := newProxiedVault(t, nil)
	const timeout = time.Second
	v.world.env["SECRET_TIMEOUT"] = timeout.String()
	c := newCanary()
	for _, pair := range []string{"old", "new", "successor", "repaired"} {
		c.protect(pair, pair+"-secret")
	}
	var all []crashed
	for i, point := range crashes() {
		x := crashed{crash: point, proxiedVault: v, name: fmt.Sprintf("crash-%d", i), secrets: c}
		x.env = v.world.env.with(env{"DATABASE_URL": "sqlite:" + t.TempDir() + "/broker.db"})
		if !t.Run(point.String(), func(t *testing.T) { x.killMidway(t); x.atOnce(t) }) {
			return
		}
		all = append(all, x)
	}
	time.Sleep(8*timeout + 6*time.Second) // the longest that an operation may take: its claim runs out
	for _, x := range all {
		t.Run(x.String()+", in time", x.inTime)
	}
}

func profilePair(name, pair string) map[string]any {
	return map[string]any{"name": name, "auth_url": "https://op.test/authorize", "token_url": "https://op.test/token",
		"client_id": pair + "-id", "client_secret": pair + "-secret"}
}

// killMidway begins the operation and kills the broker on the way.
func (x *crashed) killMidway(t *testing.T) {
	b := start(t, x.env)
	// Killed in the middle of its first sweep, it would keep others from theirs for two
	// minutes.
	eventually(t, "the first sweep ends", func() bool { return strings.Contains(b.log.String(), `"swept"`) })
	if x.operation != "register" {
		x.id = b.call("POST", "/providers", map[string]any{"profile": profilePair(x.name, "old")}).want(201).text("id")
	}
	path := fmt.Sprintf("/v1/secret/"+strings.Replace(x.at, "/", "/"+x.prefix()+"/", 1), x.name)
	x.proxy.Inject(func(_ http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
		if x.after {
			pass(httptest.NewRecorder(), r)
		}
		b.kill()
		panic(http.ErrAbortHandler)
	}, servers.MethodIs(x.method), servers.PathIs(path))
	defer x.proxy.Heal()
	switch x.operation {
	case "register":
		b.try("POST", "/providers", map[string]any{"profile": profilePair(x.name, "old")})
	case "update":
		b.try("PATCH", "/providers/"+x.id, map[string]any{"client_id": "new-id", "client_secret": "new-secret"})
	case "delete":
		b.try("DELETE", "/providers/"+x.id, nil)
	case "rename":
		b.try("PATCH", "/providers/"+x.id, map[string]any{"name": x.name + "-renamed"})
	}
	<-b.done
	require.Equal(t, "signal: killed", b.err.Error(), "%s", b.log)
	x.secrets.checkBroker(t, b)
}

// try sends a request that may get no answer.
func (p *process) try(method, path string, body any) {
	p.t.Helper()
	req := p.request(method, path, body, http.Header{"X-Api-Key": {apiKey}})
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
	}
}

// atOnce looks at a broker that was started right after the crash.
func (x *crashed) atOnce(t *testing.T) {
	b := start(t, x.env)
	defer b.stop()
	switch x.operation {
	case "register", "delete":
		b.call("GET", "/providers/by-name/"+x.name, nil).want(404, "provider_not_found")
		require.Equal(t, "[]\n", string(b.call("GET", "/providers", nil).want(200).Body))
	case "update":
		require.Equal(t, "incomplete", b.credentialsState(x.id))
	case "rename":
		require.Equal(t, "old-id", b.clientID(x.id))
	}
}

func (p *process) credentialsState(id string) any {
	p.t.Helper()
	return p.call("GET", "/providers/"+id, nil).want(200).object()["credentials"].(map[string]any)["state"]
}

// clientID returns the client id that a flow of the provider begins with.
func (p *process) clientID(id string) string {
	p.t.Helper()
	a := p.call("POST", "/auth/consent-spec", map[string]any{"workspace_id": "ws", "provider_id": id, "return_url": returnURL}).want(200)
	return mustURL(p.t, a.text("authUrl")).Query().Get("client_id")
}

// inTime looks at a broker that was started after the crash could be known as such.
func (x *crashed) inTime(t *testing.T) {
	b := start(t, x.env)
	gone := func(name string) func() bool {
		return func() bool {
			return x.world.look(t, name+"/client_id") == "" && x.world.look(t, name+"/client_secret") == ""
		}
	}
	switch {
	case x.operation == "rename":
		name := b.call("GET", "/providers/"+x.id, nil).want(200).text("name")
		other := map[string]string{x.name: x.name + "-renamed", x.name + "-renamed": x.name}[name]
		require.Equal(t, x.method == "DELETE", name == x.name+"-renamed", "the name is %s", name)
		eventually(t, "the place that is not needed is empty", gone(other))
		require.Equal(t, "old-id", b.clientID(x.id))
		require.Equal(t, "old-secret", x.world.look(t, name+"/client_secret"))
	case x.left == "":
		eventually(t, "nothing is left", gone(x.name))
		x.world.gone(t, x.name+"/client_id")
		x.world.gone(t, x.name+"/client_secret")
		// While the sweep is at it the name is taken.
		eventually(t, "the name is free", func() bool {
			a := b.call("POST", "/providers", map[string]any{"profile": profilePair(x.name, "successor")})
			x.id = a.text("id")
			return a.Status == 201
		})
		require.Equal(t, "successor-id", b.clientID(x.id))
	case x.left == "torn":
		// The sweep cannot know which pair is right: it stays incomplete, until somebody
		// says.
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, "incomplete", b.credentialsState(x.id))
	default:
		eventually(t, "the provider is ready", func() bool { return b.credentialsState(x.id) == "ready" })
		require.Equal(t, x.left+"-id", b.clientID(x.id))
		require.Equal(t, x.left+"-secret", x.world.look(t, x.name+"/client_secret"))
	}
	if x.operation == "update" {
		b.call("PATCH", "/providers/"+x.id, map[string]any{"client_id": "repaired-id", "client_secret": "repaired-secret"}).want(200)
		require.Equal(t, "ready", b.credentialsState(x.id))
		require.Equal(t, "repaired-id", b.clientID(x.id))
	}
	x.secrets.checkBroker(t, b)
}

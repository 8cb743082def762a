package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// replicas are brokers on one PostgreSQL, and a provider that is strict, rotates
// refresh tokens and ends a grant whose token comes a second time. What they ask of its
// token endpoint goes through a proxy.
type replicas struct {
	t        *testing.T
	all      []*process
	op       *servers.OIDCServer
	proxy    *servers.FaultProxy
	provider string
}

func newReplicas(t *testing.T, n int) replicas {
	t.Helper()
	client := servers.OIDCClient{ID: "replicas", Secret: "replicas-secret", Auth: "client_secret_basic",
		RedirectURIs: []string{publicURL + "/auth/callback"}, ApplicationType: "native"}
	r := replicas{t: t, op: servers.OIDC(t, servers.OIDCOptions{Clients: []servers.OIDCClient{client}, AccessTokenTTL: time.Hour})}
	r.proxy = servers.NewFaultProxy(t, r.op.Issuer)
	e := base().with(env{"DATABASE_URL": servers.Postgres(t)})
	for range n {
		r.all = append(r.all, startDetecting(t, e))
	}
	r.provider = r.all[0].call("POST", "/providers", map[string]any{"profile": map[string]any{
		"name": "strict", "client_id": client.ID, "client_secret": client.Secret, "auth_header": client.Auth,
		"auth_url": r.op.Issuer + "/auth", "token_url": r.proxy.URL + "/token", "revocation_url": r.op.Issuer + "/token/revocation",
		"params": map[string]any{"prompt": "consent"},
	}}).want(201).text("id")
	return r
}

// consent begins a consent without ID token: what it needs is at the URLs that the
// profile names.
func (r replicas) consent(more map[string]any) (authURL string) {
	r.t.Helper()
	body := map[string]any{"workspace_id": "ws-1", "provider_id": r.provider, "return_url": returnURL, "scopes": []string{"offline_access"}}
	for k, v := range more {
		body[k] = v
	}
	return r.all[0].call("POST", "/auth/consent-spec", body).want(200).text("authUrl")
}

func (r replicas) connect(n int) (connections []string) {
	r.t.Helper()
	for range n {
		q := r.all[0].visit(r.consent(nil))
		require.Equal(r.t, "success", q.Get("status"), "%v", q)
		connections = append(connections, q.Get("connection_id"))
	}
	return connections
}

// gauge returns the sum of a metric's values.
func (p *process) gauge(name string) (sum int) {
	p.t.Helper()
	scan := bufio.NewScanner(strings.NewReader(string(p.send("GET", "/metrics", nil, nil).want(200).Body)))
	for scan.Scan() {
		series, value, _ := strings.Cut(scan.Text(), " ")
		if family, _, _ := strings.Cut(series, "{"); family == name {
			n, err := strconv.ParseFloat(value, 64)
			require.NoError(p.t, err)
			sum += int(n)
		}
	}
	return sum
}

// outcome is what a caller of a refresh got.
type outcome struct {
	connection, code, token string
	status                  int
}

// storm lets n callers refresh the connections by turns, through the replicas by turns.
func storm(t *testing.T, brokers []*process, connections []string, n int) <-chan outcome {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: n}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 2 * time.Minute}
	outcomes := make(chan outcome, n)
	var wg sync.WaitGroup
	for i := range n {
		connection := connections[i%len(connections)]
		req := brokers[i/len(connections)%len(brokers)].request("POST", "/connections/"+connection+"/refresh", nil, key())
		wg.Go(func() {
			o := outcome{connection: connection}
			if resp, err := client.Do(req); err == nil {
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				a := answer{t: t, Body: body}
				o.status, o.code, o.token = resp.StatusCode, a.text("error"), a.text("access_token")
			}
			outcomes <- o
		})
	}
	go func() { wg.Wait(); close(outcomes) }()
	return outcomes
}

// waiting waits until n callers wait for refreshes, and every replica is at, or waits
// for, the refresh of each of the connections.
func waiting(t *testing.T, brokers []*process, connections, n int) {
	t.Helper()
	eventually(t, "all callers wait", func() bool {
		callers := 0
		for _, b := range brokers {
			if b.gauge("nexus_token_refreshes_under_way") != connections {
				return false
			}
			callers += b.gauge("nexus_token_refresh_waiting")
		}
		return callers == n
	})
}

// TestRefreshStorm: 1,000 callers, 10 connections, 3 replicas, a provider that detects
// reuse: 10 requests, one token each for all, and no grant is lost.
func TestRefreshStorm(t *testing.T) {
	r := newReplicas(t, 3)
	const callers = 1000
	connections := r.connect(10)
	release := make(chan struct{})
	r.proxy.Inject(func(w http.ResponseWriter, req *http.Request, pass http.HandlerFunc) {
		<-release
		pass(w, req)
	}, servers.PathIs("/token"))
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let)
	outcomes := storm(t, r.all, connections, callers)
	waiting(t, r.all, len(connections), callers)
	let()
	tokens, answered := map[string]string{}, 0
	for o := range outcomes {
		require.Equal(t, 200, o.status, "%+v", o)
		if tokens[o.connection] == "" {
			tokens[o.connection] = o.token
		}
		require.Equal(t, tokens[o.connection], o.token)
		answered++
	}
	require.Equal(t, callers, answered)
	require.Equal(t, len(connections), r.op.TokenRequests(t, "refresh_token"))
	for i, connection := range connections {
		fresh := r.all[i%3].refresh(connection).want(200).text("access_token")
		require.NotEqual(t, tokens[connection], fresh)
		require.Equal(t, fresh, r.all[(i+1)%3].token(connection).want(200).text("access_token"))
	}
}

// TestReplicaKilledDuringRefreshes: the replica that makes the refreshes is killed in the
// middle. The survivors answer, and take the refreshes over. A connection is lost only
// if the provider had rotated its token and the answer died with the replica: to the
// provider the survivor's request is then a second use.
func TestReplicaKilledDuringRefreshes(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 3)
	connections := r.connect(6)
	unsent, rotated := connections[:3], connections[3:]
	victim, survivors := r.all[0], r.all[1:]
	arrived := make(chan struct{}, len(connections))
	var reached sync.Mutex
	rotate := false
	r.proxy.Inject(func(_ http.ResponseWriter, req *http.Request, pass http.HandlerFunc) {
		reached.Lock()
		if rotate { // the provider does it, and nobody gets the answer
			pass(httptest.NewRecorder(), req)
		}
		reached.Unlock()
		arrived <- struct{}{}
		<-req.Context().Done()
	}, servers.PathIs("/token"))
	begin := func(some []string) {
		for _, connection := range some {
			go victim.try("POST", "/connections/"+connection+"/refresh", nil)
			select {
			case <-arrived:
			case <-time.After(patience):
				t.Fatal("the refresh does not reach the provider")
			}
		}
	}
	begin(unsent)
	reached.Lock()
	rotate = true
	reached.Unlock()
	begin(rotated)
	require.Equal(t, len(rotated), r.op.TokenRequests(t, "refresh_token"))

	const callers = 60
	outcomes := storm(t, survivors, connections, callers)
	waiting(t, survivors, len(connections), callers)
	r.proxy.Heal()
	victim.kill()
	for _, connection := range connections { // stored tokens are served meanwhile
		for _, b := range survivors {
			b.token(connection).want(200)
		}
	}
	answered := 0
	for o := range outcomes {
		if slices.Contains(unsent, o.connection) {
			require.Equal(t, 200, o.status, "the provider had lost nothing: %+v", o)
		} else {
			require.Equal(t, 409, o.status, "%+v", o)
			require.Equal(t, "attention_required", o.code)
		}
		answered++
	}
	require.Equal(t, callers, answered)
	require.Equal(t, len(rotated)+len(connections), r.op.TokenRequests(t, "refresh_token"), "one more for each")
	for i, connection := range unsent {
		survivors[i%2].refresh(connection).want(200)
	}
	r.all = survivors
	for _, connection := range rotated { // a new consent heals it, under the same id
		q := survivors[0].visit(r.consent(map[string]any{"connection_id": connection}))
		require.Equal(t, "success", q.Get("status"), "%v", q)
		require.Equal(t, connection, q.Get("connection_id"))
		survivors[1].refresh(connection).want(200)
	}
}

// TestOneCallbackWinsAcrossReplicas: many browsers bring the same state to two replicas at once.
func TestOneCallbackWinsAcrossReplicas(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2)
	for range 5 {
		before := r.op.TokenRequests(t, "authorization_code")
		callback := r.all[0].authorize(r.consent(nil))
		const browsers = 10
		answers := make(chan string, browsers)
		var wg sync.WaitGroup
		for i := range browsers {
			req := r.all[i%2].request("GET", callback.RequestURI(), nil, http.Header{"Accept": {"text/html"}})
			wg.Go(func() {
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					answers <- err.Error()
					return
				}
				_ = resp.Body.Close()
				q := mustURL(t, resp.Header.Get("Location")).Query()
				answers <- fmt.Sprint(resp.StatusCode, " ", q.Get("status"), " ", q.Get("error"))
			})
		}
		wg.Wait()
		close(answers)
		count := map[string]int{}
		for a := range answers {
			count[a]++
		}
		require.Equal(t, map[string]int{"302 success ": 1, "302 error connection_not_found": browsers - 1}, count)
		require.Equal(t, before+1, r.op.TokenRequests(t, "authorization_code"))
	}
}

// TestRevocationAcrossReplicas: what one replica revokes, no other serves or refreshes,
// and the provider takes its tokens for void.
func TestRevocationAcrossReplicas(t *testing.T) {
	t.Parallel()
	r := newReplicas(t, 2)
	connections := r.connect(2)
	kept, gone := connections[0], connections[1]
	refreshToken := r.all[1].token(gone).want(200).text("refresh_token")
	a := r.all[0].call("DELETE", "/connections/"+gone, map[string]any{"reason": "left", "workspace_id": "ws-1"}).want(200).object()
	require.Equal(t, "strict", a["provider_name"])
	require.Equal(t, "revoked", a["status"])
	require.Equal(t, true, a["token_deleted"])
	require.Equal(t, true, a["provider_revoked"])
	for _, b := range r.all {
		b.token(gone).want(410, "connection_revoked")
		b.call("GET", "/connections/"+gone+"/token?min_ttl=99999", nil).want(410, "connection_revoked")
		b.refresh(gone).want(404, "connection_not_found")
		b.call("POST", "/auth/consent-spec", map[string]any{
			"workspace_id": "ws-1", "provider_id": r.provider, "return_url": returnURL, "connection_id": gone,
		}).want(410, "connection_revoked")
	}
	require.Equal(t, "left", r.all[0].events("connection_revoked")[0]["reason"])
	resp, err := http.PostForm(r.op.Issuer+"/token", map[string][]string{
		"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}, "client_id": {"replicas"}, "client_secret": {"replicas-secret"},
	})
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 400, resp.StatusCode, "void")

	list := string(r.all[1].call("GET", "/connections?workspace_id=ws-1", nil).want(200).Body)
	require.Equal(t, 1, strings.Count(list, `"status":"active"`))
	require.Equal(t, 1, strings.Count(list, `"status":"revoked"`))
	require.Equal(t, "[]\n", string(r.all[1].call("GET", "/connections?workspace_id=ws-2", nil).want(200).Body))
	before := r.all[0].token(kept).want(200).text("access_token")
	require.Equal(t, before, r.all[1].call("GET", "/connections/"+kept+"/token?min_ttl=60", nil).want(200).text("access_token"))
	require.NotEqual(t, before, r.all[1].call("GET", "/connections/"+kept+"/token?min_ttl=99999", nil).want(200).text("access_token"))
}

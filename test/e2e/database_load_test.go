package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// loaded is a broker whose database is taken away and given back while callers refresh
// and fetch the tokens of its connections.
type loaded struct {
	*process
	client      *http.Client
	connections []string

	stop  chan struct{}
	ended sync.WaitGroup
	// good and failed count the answers.
	good, failed atomic.Int32

	mu sync.Mutex
	// latest is the token that a connection's refresh has answered last.
	latest map[string]string
}

// TestDatabaseRestartsUnderLoad: PostgreSQL restarts while callers refresh and read the
// tokens of connections at a provider that ends a grant whose refresh token comes a second
// time. Meanwhile requests fail in the API's own form, afterwards they work without
// anybody's help; no token is asked for twice, and none that was answered is lost. Some of
// the tokens come from the provider while the database is away.
func TestDatabaseRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := servers.PostgresCluster(t, "fsync=off")
	op := oauthtest.Start(t, oauthtest.Options{})
	x := &loaded{process: startDetecting(t, base().with(env{"DATABASE_URL": cluster.Database(t)})), stop: make(chan struct{}), latest: map[string]string{}}
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	defer transport.CloseIdleConnections()
	x.client = &http.Client{Timeout: time.Minute, Transport: transport}
	provider := x.registerAt(op, "flow")
	for range 6 {
		x.connections = append(x.connections, x.connect(provider))
	}
	for _, c := range x.connections {
		x.ended.Go(func() { x.refreshing(c) }) // one at a time: what it answered last is what must be there
		x.ended.Go(func() { x.reading(c) })
	}
	end := sync.OnceFunc(func() { close(x.stop); x.ended.Wait() })
	defer end()

	for restart := range 2 {
		x.goesOn(t, fmt.Sprintf("before restart %d", restart+1))
		failed, unstored := x.failed.Load(), countOf(x.process, "a token could not be stored")
		arrived, open := held(op, 2)
		for range cap(arrived) {
			select {
			case <-arrived:
			case <-time.After(time.Minute):
				t.Fatal("the refreshes do not reach the provider")
			}
		}
		cluster.Stop()
		open()
		eventually(t, "the broker has tried to store", func() bool {
			return countOf(x.process, "a token could not be stored") >= unstored+cap(arrived)
		})
		eventually(t, "the callers notice", func() bool { return x.failed.Load() >= failed+int32(len(x.connections)) })
		cluster.Start(t)
	}
	x.goesOn(t, "afterwards")
	end()

	spent := map[string]bool{}
	for _, r := range op.Requests(oauthtest.Token) {
		if r.Params.Get("grant_type") == "refresh_token" {
			token := r.Params.Get("refresh_token")
			require.False(t, spent[token], "a refresh token has been used twice")
			spent[token] = true
		}
	}
	require.NotEmpty(t, spent)
	for _, c := range x.connections {
		require.Equal(t, x.latest[c], x.token(c).want(200).text("access_token"), "what was answered last is stored")
		x.refresh(c).want(200) // the grant lives
	}
}

// held is gate for a provider that is busy: arrived tells which of the requests are its.
func held(op *oauthtest.Server, n int) (arrived chan struct{}, open func()) {
	arrived, release := make(chan struct{}, n), make(chan struct{})
	for range n {
		op.Next(oauthtest.Token, func(s *oauthtest.Server, w http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc) {
			arrived <- struct{}{}
			oauthtest.When(release, oauthtest.Ordinary())(s, w, r, ordinary)
		})
	}
	return arrived, func() { close(release) }
}

// goesOn waits until every connection has been refreshed, and there were many answers. A
// refresh whose lease could not be given back holds up the next one for two leases, 16 s.
func (x *loaded) goesOn(t *testing.T, when string) {
	t.Helper()
	x.mu.Lock()
	clear(x.latest)
	x.mu.Unlock()
	until := x.good.Load() + 20*int32(len(x.connections))
	require.Eventually(t, func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return len(x.latest) == len(x.connections) && x.good.Load() >= until
	}, 2*time.Minute, 20*time.Millisecond, "requests succeed %s", when)
}

func (x *loaded) refreshing(connection string) {
	x.repeat("POST", "/connections/"+connection+"/refresh", func(token string) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.latest[connection] = token
	})
}

func (x *loaded) reading(connection string) {
	x.repeat("GET", "/connections/"+connection+"/token", func(string) {})
}

// repeat sends a request over and over until stop, and hands on the tokens.
func (x *loaded) repeat(method, path string, got func(token string)) {
	for {
		select {
		case <-x.stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
		resp, err := x.client.Do(x.request(method, path, nil, key()))
		if err != nil {
			x.t.Errorf("%s %s: %v", method, path, err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		a := answer{t: x.t, Body: body}
		switch {
		case err != nil:
			x.t.Errorf("%s %s: %v", method, path, err)
			return
		case resp.StatusCode == http.StatusOK:
			x.good.Add(1)
			got(a.text("access_token"))
		case resp.StatusCode == http.StatusServiceUnavailable && a.text("error") == "database_unavailable":
			x.failed.Add(1)
		default:
			x.t.Errorf("%s %s: %s %s", method, path, resp.Status, body)
			return
		}
	}
}

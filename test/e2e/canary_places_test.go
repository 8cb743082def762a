package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// surroundings are where a process can leave something beside its database and log:
// the collector of its traces, and its folders for home, temporary files and work.
type surroundings struct {
	collector *httptest.Server
	folder    string

	mu     sync.Mutex
	traces []byte
}

func newSurroundings(t *testing.T) *surroundings {
	s := &surroundings{folder: t.TempDir()}
	s.collector = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.traces = append(s.traces, body...)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.collector.Close)
	return s
}

func (s *surroundings) env() env {
	return env{"OTEL_EXPORTER_OTLP_ENDPOINT": s.collector.URL, "TMPDIR": s.folder, "HOME": s.folder}
}

// search adds what the process, which has ended, has left.
func (s *surroundings) search(t *testing.T, c *canary, p *process) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Contains(t, string(s.traces), "POST /auth/consent-spec", "spans reach the collector")
	c.search("traces", s.traces)
	c.searchDir(t, "temporary file", s.folder)
	c.searchDir(t, "file of the working directory", p.cmd.Dir)
}

// searchProcess adds the arguments of a running process. It must have no children,
// which would have arguments and an environment of their own.
func (c *canary) searchProcess(t *testing.T, pid int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	require.NoError(t, err)
	c.search("process arguments", b)
	require.Empty(t, children(t, pid), "children of the broker")
}

// children returns the ids of a process's children: proc(5), the fourth field of
// /proc/<pid>/stat, the second after the parenthesis that ends the name.
func children(t *testing.T, parent int) (pids []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

func TestChildrenAreFound(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	require.Contains(t, children(t, os.Getpid()), strconv.Itoa(cmd.Process.Pid))
}

// searchCluster adds a dump of the database, and the log from which PostgreSQL
// restores it, of all databases of the cluster.
func (c *canary) searchCluster(t *testing.T, cluster *servers.Cluster, dsn string) {
	t.Helper()
	dump, err := exec.Command(cluster.Bin("pg_dump"), dsn).Output()
	require.NoError(t, err)
	require.Contains(t, string(dump), "COPY public.tokens")
	c.search("pg_dump", dump)
	c.searchDir(t, "WAL", cluster.Data()+"/pg_wal")
}

// searchAnswers adds answers that show no credential to anybody.
func (c *canary) searchAnswers(p *process) {
	for _, path := range []string{
		"/providers", "/providers/metadata", "/providers/health", "/health", "/health/ready", "/metrics", "/audit?limit=1000",
	} {
		c.search("answer of "+path, p.call("GET", path, nil).want(200).Body)
	}
	c.search("answers that are failures or redirects", []byte(p.failures.String()))
}

// provoke brings about failures of requests that carry what is protected.
func (p *process) provoke(c *canary, providerID, connection, code string) {
	const secret, key = "CANARY-secret-of-a-bad-request", "CANARY-key-that-is-wrong"
	c.protect("secret of a bad request", secret)
	c.protect("wrong API key", key)
	profile := map[string]any{"name": "flow", "client_id": secret, "client_secret": secret, "auth_url": "https://op.test/a", "token_url": "https://op.test/t"}
	p.call("POST", "/providers", map[string]any{"profile": profile}).want(400, "invalid_provider_name")
	p.call("PATCH", "/providers/"+providerID, map[string]any{"client_secret": secret, "auth_type": "magic"}).want(400)
	p.call("PATCH", "/providers/"+providerID, []string{secret}).want(400, "invalid_json")
	p.send("GET", "/connections/"+connection+"/token", nil, http.Header{"X-Api-Key": {key}}).want(403, "invalid_api_key")
	p.send("GET", "/auth/callback?state=nope&code="+code, nil, nil).want(400, "invalid_state")
	p.send("POST", "/auth/capture-credential", map[string]any{"state": "nope", "credentials": map[string]any{"api_key": secret}}, nil).want(400, "invalid_state")
}

// connectWitnessed takes a user through a consent with a provider that tells what it
// was sent: the code, its verifier and the tokens. Refreshes included.
func (p *process) connectWitnessed(c *canary) {
	p.t.Helper()
	client := oauthtest.Client{ID: "witness-client", Secret: "CANARY-secret-of-the-witness", RedirectURIs: []string{publicURL + "/auth/callback"}}
	op := oauthtest.Start(p.t, oauthtest.Options{Clients: []oauthtest.Client{client}, TokenPrefix: "CANARY-witness-"})
	c.protect("witness's client secret", client.Secret)
	c.protect("every code and token of the witness", "CANARY-witness-")
	id := p.call("POST", "/providers", map[string]any{"profile": map[string]any{
		"name": "witness", "issuer": op.Issuer(), "enable_discovery": true, "client_id": client.ID, "client_secret": client.Secret,
	}}).want(201).text("id")
	connection := p.connect(id)
	exchange := op.LastRequest(oauthtest.Token).Params
	require.NotEmpty(p.t, exchange.Get("code_verifier"))
	c.protect("code verifier", exchange.Get("code_verifier"))
	c.protect("code", exchange.Get("code"))
	p.protectTokens(c, p.token(connection).want(200).object())
	p.protectTokens(c, p.refresh(connection).want(200).object())

	// A consent that was begun and never ended: its verifier is still there, sealed.
	// A code that the provider refuses comes with its verifier too.
	authURL, _ := p.begin(id)
	op.Next(oauthtest.Token, oauthtest.Refuse(400, "invalid_grant"))
	p.send("GET", p.authorize(authURL).RequestURI(), nil, nil).want(500, "token_exchange_failed")
	c.protect("verifier of a failed exchange", op.LastRequest(oauthtest.Token).Params.Get("code_verifier"))
}

// captureCredentials lets a user enter credentials, which agents then get.
func (p *process) captureCredentials(c *canary) {
	p.t.Helper()
	for authType, credentials := range map[string]map[string]any{
		"api_key":    {"api_key": `CANARY-captured-key /+"`},
		"basic_auth": {"username": "CANARY-captured-user", "password": "CANARY-captured-password&<>"},
	} {
		for name, value := range credentials {
			c.protect("captured "+name, value.(string))
		}
		id := p.call("POST", "/providers", map[string]any{"profile": map[string]any{"name": strings.ReplaceAll(authType, "_", "-"), "auth_type": authType}}).want(201).text("id")
		_, state := p.begin(id)
		p.send("POST", "/auth/capture-credential", map[string]any{"state": state, "credentials": credentials}, nil).want(302)
		connection := p.lastConnection(state)
		require.Equal(p.t, credentials, p.token(connection).want(200).object()["credentials"])
	}
}

package httpapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	nexusbroker "github.com/nexus-broker/nexus-broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
	"github.com/nexus-broker/nexus-broker/secret"
)

// The keys of every test's broker, one of each role.
const (
	adminKey   = "the-admin-key"
	agentKey   = "the-agent-key"
	auditorKey = "the-auditor-key"
)

const someID = "7d1c0a52-6a2c-4f0e-9d67-0d8a4a4b7c11"

// client talks to an API over a real connection. Every answer is held against the
// contract.
type client struct {
	t      *testing.T
	url    string
	http   *http.Client
	header http.Header // of every request
	log    *logBuffer
}

// newClient starts an API with o's options and the keys of all roles, and calls it
// as an admin.
func newClient(t *testing.T, o httpapi.Options) *client {
	t.Helper()
	log := &logBuffer{}
	o.Logger = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.OpenAPI = nexusbroker.OpenAPI
	if o.Keys == nil {
		o.Keys = newKeys(t, o.Logger)
	}
	srv := httptest.NewServer(httpapi.New(o))
	t.Cleanup(srv.Close)
	return &client{
		t: t, url: srv.URL, log: log, header: http.Header{"X-Api-Key": {adminKey}},
		http: &http.Client{
			Transport:     openapitest.Transport(t, srv.Client().Transport),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

func newKeys(t *testing.T, log *slog.Logger) *httpapi.Keys {
	t.Helper()
	keys, err := httpapi.NewKeys(httpapi.KeysOptions{
		APIKey:  secret.NewValue(adminKey),
		APIKeys: []secret.Value{secret.NewValue("agent:" + agentKey), secret.NewValue("auditor:" + auditorKey)},
		Logger:  log,
	})
	require.NoError(t, err)
	return keys
}

// as returns the same client with another key; "" sends none.
func (c *client) as(key string) *client {
	return c.with("X-API-Key", key)
}

// with returns the same client with a header set, or without it if value is "".
func (c *client) with(name, value string) *client {
	other := *c
	other.header = c.header.Clone()
	other.header.Del(name)
	if value != "" {
		other.header.Set(name, value)
	}
	return &other
}

// got is an answer whose body has been read.
type got struct {
	*http.Response
	body string
}

func (c *client) do(method, path, body string) got {
	c.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, c.url+path, in)
	require.NoError(c.t, err)
	req.Header = c.header.Clone()
	resp, err := c.http.Do(req)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return got{resp, string(b)}
}

func (c *client) get(path string) got { c.t.Helper(); return c.do("GET", path, "") }

// code returns the error code of an answer, "" if it has none.
func (g got) code() string {
	var body struct{ Error string }
	_ = json.Unmarshal([]byte(g.body), &body)
	return body.Error
}

// requireError checks status and code.
func (g got) requireError(t *testing.T, status int, code string) {
	t.Helper()
	require.Equal(t, status, g.StatusCode, g.body)
	require.Equal(t, code, g.code())
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// lines returns the log lines with this message.
func (b *logBuffer) lines(t *testing.T, message string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range strings.Lines(b.String()) {
		var attrs map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &attrs))
		if attrs["msg"] == message {
			found = append(found, attrs)
		}
	}
	return found
}

// handler returns an API that everybody may call, without a log.
func handler(t testing.TB, o httpapi.Options) http.Handler {
	t.Helper()
	o.Logger, o.OpenAPI = slog.New(slog.DiscardHandler), nexusbroker.OpenAPI
	return httpapi.New(o)
}

// bare returns a function that calls an API without a connection and without the
// contract: for what no well-behaved client or domain does.
func bare(t testing.TB, o httpapi.Options) func(method, target string) got {
	t.Helper()
	api := handler(t, o)
	return func(method, target string) got {
		rec := httptest.NewRecorder()
		api.ServeHTTP(rec, httptest.NewRequest(method, target, nil))
		return got{rec.Result(), rec.Body.String()}
	}
}

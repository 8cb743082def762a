package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
)

func TestRequestID(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for _, id := range []string{"a", "trace-1.2_3", strings.Repeat("x", 128)} {
		require.Equal(t, id, c.with("X-Request-Id", id).get("/providers").Header.Get("X-Request-Id"))
		require.Equal(t, id, domain.request().ID)
	}
	generated := regexp.MustCompile(`^[0-9a-f-]{36}$`)
	for _, id := range []string{"", "a b", "a/b", "a;b", "a\tb", "ä", `"`, "<script>", "%0d%0aX-Evil:1", strings.Repeat("x", 129)} {
		answer := c.with("X-Request-Id", id).get("/providers")
		require.Regexp(t, generated, answer.Header.Get("X-Request-Id"))
		require.Equal(t, answer.Header.Get("X-Request-Id"), domain.request().ID)
	}
	require.NotEqual(t, c.get("/health").Header.Get("X-Request-Id"), c.get("/health").Header.Get("X-Request-Id"))
	// On failures too.
	require.Equal(t, "mine", c.with("X-Request-Id", "mine").get("/nothing").Header.Get("X-Request-Id"))
	require.Equal(t, "mine", c.as("").with("X-Request-Id", "mine").get("/audit").Header.Get("X-Request-Id"))
}

func TestWhatAuditEventsCarry(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain}).with("User-Agent", "agent/1.0")
	answer := c.get("/providers")
	from := domain.request()
	require.Equal(t, "127.0.0.1", from.IPAddress)
	require.Equal(t, "agent/1.0", from.UserAgent)
	require.Equal(t, answer.Header.Get("X-Request-Id"), from.ID)

	// A database may refuse bytes that are no text, and a refused row refuses a token.
	c.with("User-Agent", "a\xffb"+strings.Repeat("é", 1000)).get("/providers")
	ua := domain.request().UserAgent
	require.True(t, utf8.ValidString(ua))
	require.LessOrEqual(t, len(ua), 512)
	require.True(t, strings.HasPrefix(ua, "ab"))
}

func TestAccessLog(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}, Metrics: http.NotFoundHandler()})
	c.as(auditorKey).with("X-Request-Id", "r-1").get("/providers/by-name/s3cret-name?x=s3cret-query")
	c.as("s3cret-key").get("/audit")
	c.get("/s3cret-path")
	c.get("/health")
	lines := c.log.lines(t, "request")
	require.Len(t, lines, 4)
	require.Equal(t, map[string]any{
		"time": lines[0]["time"], "duration_ms": lines[0]["duration_ms"], "level": "INFO", "msg": "request",
		"method": "GET", "route": "/providers/by-name/{name}", "status": 200.0, "request_id": "r-1",
		"role": "auditor", "client": "127.0.0.1",
	}, lines[0])
	require.Equal(t, "invalid_api_key", lines[1]["code"])
	require.NotContains(t, lines[1], "role")
	require.Equal(t, "unmatched", lines[2]["route"])
	require.Equal(t, "DEBUG", lines[3]["level"], "probes are not worth a line")
	require.NotContains(t, c.log.String(), "s3cret")
}

func TestObserve(t *testing.T) {
	type observed struct {
		route, method string
		status        int
	}
	var mu sync.Mutex
	var all []observed
	api := handler(t, httpapi.Options{Broker: &stub{}, Observe: func(route, method string, status int, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, took, time.Duration(0))
		all = append(all, observed{route, method, status})
	}})
	for _, r := range []*http.Request{
		httptest.NewRequest("GET", "/providers/", nil),
		httptest.NewRequest("GET", "/connections/"+someID+"/token", nil),
		httptest.NewRequest("GET", "/a/b", nil),
		httptest.NewRequest("INVENTED", "/providers", nil),
		httptest.NewRequest("GET", "/auth/callback?code=c", nil),
	} {
		api.ServeHTTP(httptest.NewRecorder(), r)
	}
	require.Equal(t, []observed{
		{"/providers", "GET", 200}, {"/connections/{id}/token", "GET", 200}, {"unmatched", "GET", 404},
		{"/providers", "OTHER", 405}, {"/auth/callback", "GET", 500},
	}, all)
}

// A caller who has gone is no failure of the broker.
func TestCallerWhoHasGone(t *testing.T) {
	var statuses []int
	domain := &stub{err: context.Canceled}
	api := handler(t, httpapi.Options{Broker: domain, Observe: func(_, _ string, status int, _ time.Duration) { statuses = append(statuses, status) }})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	rec := httptest.NewRecorder()
	api.ServeHTTP(rec, httptest.NewRequest("GET", "/providers", nil).WithContext(ctx))
	require.Equal(t, 500, rec.Code, "a failure never looks like a success, whoever may still read it")
	require.Equal(t, []int{499}, statuses)

	// The same error without a caller who has gone is one.
	rec = httptest.NewRecorder()
	api.ServeHTTP(rec, httptest.NewRequest("GET", "/providers", nil))
	require.Equal(t, 500, rec.Code)
}

func TestFailuresOfOthersAreWarnings(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{err: &broker.Error{Code: broker.CodeSecretBackendUnavailable, Message: "vault is sealed"}}})
	c.do("POST", "/connections/"+someID+"/refresh", "")
	lines := c.log.lines(t, "request failed")
	require.Len(t, lines, 1)
	require.Equal(t, "WARN", lines[0]["level"])
	require.Equal(t, "secret_backend_unavailable", lines[0]["code"])
}

package httpapi_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	nexusbroker "github.com/nexus-broker/nexus-broker"
	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
)

func TestAuditEvents(t *testing.T) {
	at := time.Date(2025, 3, 1, 12, 0, 0, 123456000, time.UTC)
	id := uuid.MustParse(someID)
	domain := &stub{events: []audit.Event{
		{ID: id, ConnectionID: id, Type: audit.TokenRetrieved, Data: map[string]any{"a": "x&y"}, IPAddress: "192.0.2.7", UserAgent: "agent/1", CreatedAt: at},
		{ID: id, Type: audit.ProviderCreated, CreatedAt: at},
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	require.JSONEq(t, `[
		{"id":"`+someID+`","connection_id":"`+someID+`","event_type":"token_retrieved","event_data":"{\"a\":\"x\\u0026y\"}",
		 "ip_address":"192.0.2.7","user_agent":"agent/1","created_at":"2025-03-01T12:00:00.123456Z"},
		{"id":"`+someID+`","event_type":"provider.created","created_at":"2025-03-01T12:00:00.123456Z"}]`, c.get("/audit").body)
	require.Equal(t, audit.Filter{Limit: 50}, domain.last())

	c.get("/audit?event_type=oauth_error&since=2025-03-01T13:00:00%2B01:00&until=2025-03-02T00:00:00Z&limit=7&connection_id=" + someID + "&after=" + someID)
	require.Equal(t, audit.Filter{
		Type: audit.OAuthError, Since: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC), Until: time.Date(2025, 3, 2, 0, 0, 0, 0, time.UTC),
		Limit: 7, ConnectionID: id, After: id,
	}, domain.last())
}

func TestAuditQuery(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for limit, want := range map[string]int{"": 50, "1": 1, "1000": 1000, "1001": 50, "0": 50, "-5": 50, "x": 50, "1.5": 50} {
		c.get("/audit?limit=" + limit)
		require.Equal(t, audit.Filter{Limit: want}, domain.last(), limit)
	}
	for query, code := range map[string]string{
		"since=yesterday": "invalid_since", "since=2025-03-01": "invalid_since", "until=x": "invalid_until",
		"connection_id=x": "invalid_connection_id", "after=x": "invalid_after",
	} {
		c.get("/audit?"+query).requireError(t, 400, code)
	}
}

func TestHealth(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}}).as("")
	answer := c.get("/health")
	require.Equal(t, `{"status": "healthy"}`, answer.body)
	require.Equal(t, "application/json", answer.Header.Get("Content-Type"))
}

func TestReady(t *testing.T) {
	since := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain}).as("")
	for status, want := range map[broker.ReadyStatus]int{broker.Ready: 200, broker.Degraded: 200, broker.Unavailable: 503} {
		domain.ready = broker.Readiness{
			Status: status, Database: broker.Component{Status: "ok"},
			Secrets: broker.Component{Backend: "hashicorp-vault", Status: "unavailable", Since: since, Message: "sealed"},
		}
		answer := c.get("/health/ready")
		require.Equal(t, want, answer.StatusCode)
		require.JSONEq(t, `{"status":"`+string(status)+`","components":{"database":{"status":"ok"},"secret_backend":
			{"backend":"hashicorp-vault","status":"unavailable","since":"2025-03-01T12:00:00Z","message":"sealed"}}}`, answer.body)
	}
}

func TestOpenAPIAndMetrics(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}, Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write([]byte("up 1\n"))
	})}).as("")
	spec := c.get("/openapi.yaml")
	require.Equal(t, string(nexusbroker.OpenAPI), spec.body)
	require.Equal(t, "application/yaml", spec.Header.Get("Content-Type"))
	require.Equal(t, "up 1\n", c.get("/metrics").body)

	without := bare(t, httpapi.Options{Broker: &stub{}})
	require.Equal(t, 404, without("GET", "/metrics").StatusCode)
}

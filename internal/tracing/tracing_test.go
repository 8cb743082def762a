package tracing_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/nexus-broker/nexus-broker/internal/tracing"
)

// collector is an OTLP/HTTP collector (OpenTelemetry Protocol specification).
type collector struct {
	mu    sync.Mutex
	spans []*tracepb.Span
	raw   []byte
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collectorpb.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, body...)
	for _, resource := range request.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func TestSpansReachACollectorAndHoldNoValue(t *testing.T) {
	c := &collector{}
	server := httptest.NewServer(c)
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	p, err := tracing.New(t.Context(), "1.2.3", slog.New(slog.DiscardHandler))
	require.NoError(t, err)

	incoming := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	ctx, span := p.Tracer().Start(tracing.Incoming(t.Context(), incoming), "GET /x")
	provider := tracing.Transport(p.Tracer(), roundTripper(func(r *http.Request) (*http.Response, error) {
		require.Empty(t, r.Header.Get("Traceparent"), "a provider is told nothing of the trace")
		if r.URL.Path == "/down" {
			return nil, errors.New("dial https://op.example/down?code=CANARY")
		}
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	}))
	for _, path := range []string{"/token", "/down"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://user:CANARY@op.example"+path+"?code=CANARY", strings.NewReader("client_secret=CANARY"))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Basic CANARY")
		_, err = provider.RoundTrip(req)
		require.Equal(t, path == "/down", err != nil)
	}
	tracing.Fail(span, "internal_error")
	span.End()
	require.NoError(t, p.Shutdown(context.WithoutCancel(t.Context())))

	require.Len(t, c.spans, 3)
	names := map[string]int{}
	for _, s := range c.spans {
		names[s.Name]++
		require.Equal(t, "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c", string(s.TraceId))
	}
	require.Equal(t, map[string]int{"GET /x": 1, "provider POST": 2}, names)
	require.NotContains(t, string(c.raw), "CANARY")
	require.Contains(t, string(c.raw), "nexus-broker")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNoCollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
	var log strings.Builder
	p, err := tracing.New(t.Context(), "1.2.3", slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err, "no collector needs to be there")
	_, span := p.Tracer().Start(t.Context(), "x")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	require.Error(t, p.Shutdown(ctx))
	off := tracing.Off()
	_, span = off.Tracer().Start(t.Context(), "x")
	require.False(t, span.IsRecording())
	require.NoError(t, off.Shutdown(t.Context()))
}

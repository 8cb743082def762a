package backend_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// Each call is one span with backend, key and class, and never a value. What the store
// does not have is no failure of the call.
func TestEachCallIsOneSpan(t *testing.T) {
	for class, err := range map[string]error{
		"ok": nil, "not_found": secret.ErrNotFound, "denied": secret.ErrDenied, "unavailable": secret.ErrUnavailable,
	} {
		spans := tracetest.NewSpanRecorder()
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
		m := memory.New()
		require.NoError(t, m.Set(t.Context(), "google/client_secret", canary))
		faulty := memory.NewFaulty(m)
		inner := 0
		faulty.Before(func(ctx context.Context, _ memory.Call) error {
			require.True(t, trace.SpanFromContext(ctx).IsRecording(), "the backend's own requests belong to the span")
			inner++
			if err == nil {
				return nil
			}
			return fmt.Errorf("memory: it: %w", err)
		})
		b := secret.CapabilitiesOf(backend.Decorate(faulty, backend.Options{Name: "hashicorp-vault", Timeout: time.Minute, Tracer: tracer}))
		for operation, call := range map[string]func() error{
			"get":  func() error { _, err := b.Get(t.Context(), "google/client_secret"); return err },
			"read": func() error { _, err := b.Owned.Read(t.Context(), "google/client_secret"); return err },
			"set":  func() error { return b.Set(t.Context(), "google/client_secret", canary) },
			"replace": func() error {
				_, err := b.Owned.Replace(t.Context(), "google/client_secret", canary, "o", "")
				return err
			},
			"delete": func() error { return b.Delete(t.Context(), "google/client_secret") },
		} {
			spans.Reset()
			inner = 0
			if operation == "get" || operation == "read" {
				require.NoError(t, m.Set(t.Context(), "google/client_secret", canary))
			}
			require.ErrorIs(t, call(), err)
			require.Equal(t, 1, inner)
			ended := spans.Ended()
			require.Len(t, ended, 1)
			span := ended[0]
			require.Equal(t, "secret "+operation, span.Name())
			require.Equal(t, trace.SpanKindClient, span.SpanKind())
			require.ElementsMatch(t, []attribute.KeyValue{
				attribute.String("secret.backend", "hashicorp-vault"), attribute.String("secret.key", "google/client_secret"),
				attribute.String("secret.class", class),
			}, span.Attributes())
			failed := class == "denied" || class == "unavailable"
			require.Equal(t, failed, span.Status().Code == codes.Error)
			require.NotContains(t, fmt.Sprintf("%+v %+v %+v", span.Status(), span.Attributes(), span.Events()), canary)
		}
	}
}

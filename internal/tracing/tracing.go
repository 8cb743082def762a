// Package tracing exports spans over OTLP, where the standard OTEL_* variables ask
// for it. Names, routes, keys, error classes and statuses are all that a span holds:
// no URL, no header, no value.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

const scope = "github.com/nexus-broker/nexus-broker"

// Provider makes the tracer and, at the end, sends what it has collected.
type Provider struct {
	tracer   trace.Tracer
	shutdown func(context.Context) error
}

// Off returns a Provider whose spans go nowhere and cost next to nothing.
func Off() *Provider {
	return &Provider{tracer: noop.NewTracerProvider().Tracer(scope), shutdown: func(context.Context) error { return nil }}
}

// New returns a Provider that exports over OTLP/HTTP. Endpoint, headers, time
// limits, sampling and resource attributes come from the standard OTEL_* variables
// of the process (OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and
// "Environment Variable Specification"), which the SDK reads itself. No collector
// needs to be there: what cannot be sent is dropped, and log has a line at most once
// a minute.
func New(ctx context.Context, version string, log *slog.Logger) (*Provider, error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("OTLP exporter: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "nexus-broker"), attribute.String("service.version", version)),
		resource.WithFromEnv()) // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(newErrorLog(log, time.Now))
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return &Provider{tracer: p.Tracer(scope, trace.WithInstrumentationVersion(version)), shutdown: p.Shutdown}, nil
}

// Tracer makes spans.
func (p *Provider) Tracer() trace.Tracer { return p.tracer }

// Shutdown sends what has been collected, for as long as ctx allows.
func (p *Provider) Shutdown(ctx context.Context) error { return p.shutdown(ctx) }

// Incoming returns ctx as part of the trace that a request says it belongs to (W3C
// Trace Context).
func Incoming(ctx context.Context, h http.Header) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(h))
}

// Fail marks a span as failed for a reason that holds no value.
func Fail(span trace.Span, reason string) { span.SetStatus(codes.Error, reason) }

// Transport makes a span of every request that next sends to a provider. Nothing of
// the trace is told to the provider.
func Transport(t trace.Tracer, next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		ctx, span := t.Start(r.Context(), "provider "+r.Method, trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("server.address", r.URL.Hostname())))
		defer span.End()
		resp, err := next.RoundTrip(r.WithContext(ctx))
		if err != nil {
			Fail(span, "no answer") // the error's text may quote the URL
			return nil, err
		}
		span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
		return resp, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/nexus-broker/nexus-broker/secret"
)

// caller makes the calls of one backend.
type caller struct{ o Options }

// call makes one call. Names, the key, the class of the outcome and the time it
// took are all that is logged, counted and traced of it.
func (c *caller) call(ctx context.Context, operation, key string, do func(context.Context) error) error {
	ctx, span := c.o.Tracer.Start(ctx, "secret "+operation, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("secret.backend", c.o.Name), attribute.String("secret.key", key)))
	defer span.End()
	start := time.Now()
	err := c.withDeadline(ctx, operation, key, do)
	took := time.Since(start)
	class := Class(err)
	span.SetAttributes(attribute.String("secret.class", class))
	if err != nil && class != "not_found" {
		span.SetStatus(codes.Error, class)
	}
	c.o.Metrics.SecretCall(c.o.Name, operation, class, took)
	c.o.Logger.LogAttrs(ctx, slog.LevelDebug, "secret backend call",
		slog.String("backend", c.o.Name), slog.String("operation", operation), slog.String("key", key),
		slog.String("class", class), slog.Duration("duration", took))
	return err
}

func (c *caller) withDeadline(ctx context.Context, operation, key string, do func(context.Context) error) error {
	if c.o.Timeout <= 0 {
		return do(ctx)
	}
	limited, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	return c.explain(ctx, limited, operation, key, do(limited))
}

// explain tells from err, the outcome of a call under limited, whether the call was
// ended by the broker's deadline or by the caller, whose context is ctx.
func (c *caller) explain(ctx, limited context.Context, operation, key string, err error) error {
	if err == nil || limited.Err() == nil || !endedBy(err) {
		return err
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%s: %s %s: %w", c.o.Name, operation, key, cause)
	}
	return &timeoutError{backend: c.o.Name, operation: operation, key: key, limit: c.o.Timeout}
}

// endedBy reports whether err comes of a context that has ended.
func endedBy(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// timeoutError is a call that the broker itself has ended.
type timeoutError struct {
	backend, operation, key string
	limit                   time.Duration
}

// Error implements error.
func (e *timeoutError) Error() string {
	return fmt.Sprintf("%s: %s %s: no answer within %s (SECRET_TIMEOUT): see to the backend or its network",
		e.backend, e.operation, e.key, e.limit)
}

// Unwrap tells an outage from a caller that has given up.
func (e *timeoutError) Unwrap() []error {
	return []error{secret.ErrUnavailable, context.DeadlineExceeded}
}

// Class names the outcome of a call in metrics and logs: "ok", "not_found",
// "denied", "unavailable", "throttled", "invalid", "exists", "changed", "canceled" for
// a caller that has given up, and "unknown" for an error that breaks the contract.
func Class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, secret.ErrNotFound):
		return "not_found"
	case errors.Is(err, secret.ErrDenied):
		return "denied"
	case errors.Is(err, secret.ErrUnavailable):
		return "unavailable"
	case errors.Is(err, secret.ErrThrottled):
		return "throttled"
	case errors.Is(err, secret.ErrInvalid):
		return "invalid"
	case errors.Is(err, secret.ErrExists):
		return "exists"
	case errors.Is(err, secret.ErrChanged):
		return "changed"
	case endedBy(err):
		return "canceled"
	}
	return "unknown"
}

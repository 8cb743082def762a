// Package httpapi is the broker's HTTP API: it admits a request, decodes it, calls
// the domain and encodes the answer. The contract is openapi.yaml at the root of
// the repository.
package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/tracing"
)

// MaxBodyBytes is the size of a request body beyond which it is refused with 413.
const MaxBodyBytes = 1 << 20

// DefaultRedirectPath is where providers send the user back to, unless configured.
const DefaultRedirectPath = "/auth/callback"

// Broker is what the routes ask of the domain. It is implemented by
// *broker.Service, which documents the methods.
type Broker interface {
	Register(ctx context.Context, in broker.ProfileInput) (uuid.UUID, error)
	ReplaceProvider(ctx context.Context, id uuid.UUID, in broker.ProfileInput) error
	PatchProvider(ctx context.Context, id uuid.UUID, in broker.ProfileInput) error
	DeleteProvider(ctx context.Context, id uuid.UUID) error
	DeleteProvidersByName(ctx context.Context, name string) (int, error)
	Provider(ctx context.Context, id uuid.UUID) (broker.ProviderView, error)
	ProviderWithoutValues(ctx context.Context, id uuid.UUID) (broker.ProviderView, error)
	ProviderIDByName(ctx context.Context, name string) (uuid.UUID, error)
	Providers(ctx context.Context, p broker.Page) broker.Listing[broker.Provider]

	Begin(ctx context.Context, r broker.ConsentRequest) (broker.Consent, error)
	Complete(ctx context.Context, c broker.Callback) (broker.Redirect, error)
	CaptureForm(ctx context.Context, state string) (broker.CaptureForm, error)
	Capture(ctx context.Context, state string, credentials map[string]json.RawMessage) (broker.Redirect, error)

	Token(ctx context.Context, id uuid.UUID) (broker.TokenAnswer, error)
	TokenLasting(ctx context.Context, id uuid.UUID, atLeast time.Duration) (broker.TokenAnswer, error)
	Refresh(ctx context.Context, id uuid.UUID) (broker.TokenAnswer, error)
	Connections(ctx context.Context, workspaceID string, p broker.Page) broker.Listing[broker.ConnectionSummary]
	Revoke(ctx context.Context, r broker.RevokeRequest) (broker.Revocation, error)

	AuditEvents(ctx context.Context, f audit.Filter) broker.Listing[audit.Event]
	Ready(ctx context.Context) broker.Readiness
}

// Options are what the API is made of. Broker, Logger and OpenAPI are required.
type Options struct {
	Broker Broker
	// Keys tells who calls. Nil: no key is asked for or looked at, and everybody who
	// can reach the broker is an admin.
	Keys *Keys
	// RequireAllowlist refuses callers whose address is in none of AllowedCIDRs.
	RequireAllowlist bool
	AllowedCIDRs     []netip.Prefix
	// TrustedProxies are the peers whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// RateLimit is how many requests a second one key may make, 0 for any number. All
	// callers without a key share one allowance. Public routes are not limited.
	RateLimit float64
	// AnswerTime is how long what changes something, for callers with a role, may take to
	// its answer. Zero: as long as the server's write timeout allows for every answer.
	AnswerTime time.Duration
	// RedirectPath is the path of the callback, DefaultRedirectPath if empty.
	RedirectPath string
	// Observe is told of every answer, for metrics; route is a pattern, or "unmatched".
	// Nil: nobody is told.
	Observe func(route, method string, status int, took time.Duration)
	// Tracer makes a span of every request. Nil: none.
	Tracer trace.Tracer
	// Metrics serves GET /metrics. Nil: there is no such route.
	Metrics http.Handler
	// OpenAPI is what GET /openapi.yaml serves.
	OpenAPI []byte
	Logger  *slog.Logger
}

type api struct {
	Options
	mux      *http.ServeMux
	callback endpoint
	clients  clientAddresses
	limits   *rateLimits
	pages    *pages
}

// New returns the handler of all routes.
func New(o Options) http.Handler {
	if o.RedirectPath == "" {
		o.RedirectPath = DefaultRedirectPath
	}
	if o.Observe == nil {
		o.Observe = func(string, string, int, time.Duration) {}
	}
	if o.Tracer == nil {
		o.Tracer = tracing.Off().Tracer()
	}
	a := &api{
		Options: o,
		clients: clientAddresses{trusted: o.TrustedProxies},
		limits:  newRateLimits(o.RateLimit),
		pages:   newPages(),
	}
	a.mux = a.newMux()
	return a
}

// ServeHTTP implements http.Handler: what every request has, whichever its route.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	client, ignored := a.clients.of(r)
	if ignored && a.RequireAllowlist {
		a.clients.warnOnce(a.Logger, r)
	}
	c := &call{id: requestID(r), client: client, route: unmatched}
	ctx, span := a.Tracer.Start(tracing.Incoming(r.Context(), r.Header), knownMethod(r.Method), trace.WithSpanKind(trace.SpanKindServer))
	r = r.WithContext(c.withContext(ctx, userAgent(r)))
	r.Body = http.MaxBytesReader(w, r.Body, MaxBodyBytes)
	rec := &recorder{ResponseWriter: w}
	setHeaders(rec.Header(), c.id)
	defer func() {
		a.observe(r, c, rec.status, time.Since(started))
		endSpan(span, r, c, rec.status)
	}()
	a.serve(rec, r)
}

// endSpan says of a request what the access log says, less who made it.
func endSpan(span trace.Span, r *http.Request, c *call, status int) {
	method := knownMethod(r.Method)
	span.SetName(method + " " + c.route)
	span.SetAttributes(
		attribute.String("http.request.method", method), attribute.String("http.route", c.route),
		attribute.Int("http.response.status_code", status), attribute.String("request_id", c.id),
	)
	if status >= http.StatusInternalServerError {
		tracing.Fail(span, c.code)
	}
	span.End()
}

// setHeaders sets what every answer carries; pages have a policy of their own. Nothing may be stored by a cache: most
// answers hold a credential or a state, and none gains from being stored.
func setHeaders(h http.Header, requestID string) {
	h.Set("X-Request-Id", requestID)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	// What is no page of ours loads nothing, runs nothing, and is shown in no frame.
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
}

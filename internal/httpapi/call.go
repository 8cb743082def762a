package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
)

// call is what becomes known of a request while it is served.
type call struct {
	id     string
	client netip.Addr // not valid if unknown
	route  string     // a pattern, or unmatched
	role   Role       // "" before the caller is known, and on public routes
	pages  bool       // the route is one that browsers visit
	code   string     // of the error that was answered, "" if none was
	gone   bool       // the caller did not wait for the answer
}

type callKey struct{}

const maxUserAgentBytes = 512

// withContext returns ctx with the call, and with what audit events carry.
func (c *call) withContext(ctx context.Context, userAgent string) context.Context {
	ctx = context.WithValue(ctx, callKey{}, c)
	return audit.WithRequest(ctx, audit.Request{ID: c.id, IPAddress: c.address(), UserAgent: userAgent})
}

func (c *call) address() string {
	if !c.client.IsValid() {
		return ""
	}
	return c.client.String()
}

// callFrom returns the call of a context that ServeHTTP made.
func callFrom(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// userAgent returns the header in a form that every database can store.
func userAgent(r *http.Request) string {
	ua := r.UserAgent()
	if len(ua) > maxUserAgentBytes {
		ua = ua[:maxUserAgentBytes]
	}
	return strings.ToValidUTF8(ua, "")
}

// requestID returns the request's own id if it has 1 to 128 of the characters
// A-Z a-z 0-9 . _ -, and else a new one: the id goes into headers, logs and audit rows.
func requestID(r *http.Request) string {
	const longest = 128
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > longest || strings.ContainsFunc(id, notOfRequestID) {
		return uuid.NewString()
	}
	return id
}

func notOfRequestID(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '.' || c == '_' || c == '-')
}

// recorder notes the status that is sent.
type recorder struct {
	http.ResponseWriter
	status int // 0: nothing was sent yet
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// statusClientGone is logged and counted, and never sent, for a request whose caller
// did not wait for the answer.
const statusClientGone = 499

// observe writes the access log and the metrics. Neither holds the path or the
// query of the request: they carry codes, states and names.
func (a *api) observe(r *http.Request, c *call, status int, took time.Duration) {
	if c.gone {
		status = statusClientGone
	}
	method := knownMethod(r.Method)
	a.Observe(c.route, method, status, took)
	attrs := []slog.Attr{
		slog.String("method", method), slog.String("route", c.route), slog.Int("status", status),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.String("request_id", c.id), slog.String("client", c.address()),
	}
	if c.role != "" {
		attrs = append(attrs, slog.String("role", string(c.role)))
	}
	if c.code != "" {
		attrs = append(attrs, slog.String("code", c.code))
	}
	a.Logger.LogAttrs(r.Context(), accessLevel(c.route, status), "request", attrs...)
}

// accessLevel keeps the probes of orchestrators and scrapers out of the usual log.
func accessLevel(route string, status int) slog.Level {
	switch route {
	case "/health", "/health/ready", "/metrics":
		if status < http.StatusBadRequest {
			return slog.LevelDebug
		}
	}
	return slog.LevelInfo
}

// knownMethod bounds the values of a label that callers choose.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "OTHER"
}

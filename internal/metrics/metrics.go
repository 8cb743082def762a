// Package metrics names the broker's Prometheus metrics and is the one place that
// gives them their labels, so that no value, key or message can become one.
package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics counts what the broker does. Its methods are safe for concurrent use.
//
// Labels come from small closed sets: names of backends, operations and results.
// The one exception is oauth_token_get_total, whose provider label is the
// provider's id.
type Metrics struct {
	oauth   oauthMetrics
	secrets secretMetrics
	http    httpMetrics
}

// New registers the metrics with reg, which must not have them yet: a second
// registration panics. A nil reg is allowed and registers nothing.
func New(reg prometheus.Registerer) *Metrics {
	factory := promauto.With(reg)
	m := &Metrics{
		oauth:   newOAuthMetrics(factory),
		secrets: newSecretMetrics(factory),
		http:    newHTTPMetrics(factory),
	}
	if reg != nil {
		reg.MustRegister(m.secrets.tokenTTL)
	}
	return m
}

// callBuckets fit calls over a network, in seconds: from a cache of the store's own
// to the longest timeout.
func callBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
}

type httpMetrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newHTTPMetrics(factory promauto.Factory) httpMetrics {
	return httpMetrics{
		requests: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_http_requests_total",
			Help: "HTTP requests answered, by route pattern, method and status.",
		}, []string{"route", "method", "status"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nexus_http_request_duration_seconds",
			Help:    "Time to answer an HTTP request, by route pattern and method.",
			Buckets: callBuckets(),
		}, []string{"route", "method"}),
	}
}

// HTTPRequest counts an answered request. The route is the pattern that matched,
// never the path that was asked for. Unknown methods are counted as "other".
func (m *Metrics) HTTPRequest(route, method string, status int, took time.Duration) {
	method = knownMethod(method)
	m.http.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.http.duration.WithLabelValues(route, method).Observe(took.Seconds())
}

// knownMethod keeps a caller from creating time series by inventing methods.
func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return method
	}
	return "other"
}

package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The results of CacheLookup.
const (
	CacheHit      = "hit"      // served from memory
	CacheMiss     = "miss"     // waited for the backend
	CacheStale    = "stale"    // an expired value bridged an outage
	CacheNegative = "negative" // known to be missing
)

// secretMetrics are the metrics of the secret backends and of the cache before them.
type secretMetrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	logins   *prometheus.CounterVec
	tokenTTL *tokenTTLCollector

	hits, misses, stale, negative *striped // look-ups in the cache
}

func newSecretMetrics(factory promauto.Factory) secretMetrics {
	lookups := func(result string) *striped {
		return newStriped(factory, prometheus.CounterOpts{
			Name: "nexus_secret_cache_lookups_total",
			Help: "Look-ups of client credentials in the cache, by result: hit, miss, stale or negative.",
		}, "result", result)
	}
	return secretMetrics{
		calls: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_secret_calls_total",
			Help: "Calls to secret backends, by backend, operation and class of their outcome.",
		}, []string{"backend", "operation", "class"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nexus_secret_call_duration_seconds",
			Help:    "Time of a call to a secret backend.",
			Buckets: callBuckets(),
		}, []string{"backend", "operation"}),
		logins: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "nexus_secret_logins_total",
			Help: "Logins to secret backends, by outcome.",
		}, []string{"backend", "result"}),
		tokenTTL: newTokenTTLCollector(),
		hits:     lookups(CacheHit),
		misses:   lookups(CacheMiss),
		stale:    lookups(CacheStale),
		negative: lookups(CacheNegative),
	}
}

// SecretCall counts a call to a secret backend. The class is "ok" or the class of
// its error: "not_found", "denied", "unavailable", "throttled", "invalid",
// "canceled", "exists", "changed" or "unknown".
func (m *Metrics) SecretCall(backend, operation, class string, took time.Duration) {
	m.secrets.calls.WithLabelValues(backend, operation, class).Inc()
	m.secrets.duration.WithLabelValues(backend, operation).Observe(took.Seconds())
}

// CacheLookup counts a look-up of client credentials by one of the results above.
func (m *Metrics) CacheLookup(result string) {
	switch result {
	case CacheHit:
		m.secrets.hits.inc()
	case CacheMiss:
		m.secrets.misses.inc()
	case CacheStale:
		m.secrets.stale.inc()
	case CacheNegative:
		m.secrets.negative.inc()
	}
}

// SecretLogin counts a login to a secret backend; err is its outcome.
func (m *Metrics) SecretLogin(backend string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.secrets.logins.WithLabelValues(backend, result).Inc()
}

// RegisterTokenTTL makes the time that the backend's login token has left a gauge.
// f is called at every scrape, possibly by several at once; where it reports false
// (no token, or one without an end) the backend has no sample. Registering a
// backend again replaces its f.
func (m *Metrics) RegisterTokenTTL(backend string, f func() (time.Duration, bool)) {
	m.secrets.tokenTTL.set(backend, f)
}

// tokenTTLCollector is a gauge whose samples are asked for at scrape time and may
// be absent, which a GaugeFunc's cannot.
type tokenTTLCollector struct {
	desc *prometheus.Desc
	mu   sync.RWMutex
	ttls map[string]func() (time.Duration, bool)
}

func newTokenTTLCollector() *tokenTTLCollector {
	return &tokenTTLCollector{
		desc: prometheus.NewDesc("nexus_secret_token_ttl_seconds",
			"Time that the login token of a secret backend has left.", []string{"backend"}, nil),
		ttls: make(map[string]func() (time.Duration, bool)),
	}
}

func (c *tokenTTLCollector) set(backend string, f func() (time.Duration, bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ttls[backend] = f
}

// Describe implements prometheus.Collector.
func (c *tokenTTLCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *tokenTTLCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for backend, f := range c.ttls {
		if ttl, ok := f(); ok {
			ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, ttl.Seconds(), backend)
		}
	}
}

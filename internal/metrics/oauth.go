package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// oauthMetrics are the metrics of the flows. All but the refreshes keep the names
// of the existing broker, which dashboards and alerts refer to.
type oauthMetrics struct {
	consents       prometheus.Counter
	openidConsents prometheus.Counter
	exchanges      *prometheus.CounterVec
	exchangeTime   prometheus.Histogram
	idTokens       prometheus.Counter
	tokenGets      *prometheus.CounterVec
	discoveries    *prometheus.CounterVec
	discoveryTime  prometheus.Histogram
	verifications  *prometheus.CounterVec
	verifyTime     prometheus.Histogram
	refreshes      *prometheus.CounterVec
	refreshWaiting prometheus.Gauge
	underWay       *prometheus.GaugeVec
}

func newOAuthMetrics(factory promauto.Factory) oauthMetrics {
	counter := func(name, help string) prometheus.Counter {
		return factory.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return factory.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	duration := func(name, help string) prometheus.Histogram {
		return factory.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: callBuckets()})
	}
	return oauthMetrics{
		consents:       counter("oauth_consents_created_total", "Consent flows begun."),
		openidConsents: counter("oauth_consents_with_openid_total", "Consent flows begun with the scope openid."),
		exchanges:      counters("oauth_token_exchanges_total", "Authorization codes exchanged, by outcome.", "status"),
		exchangeTime:   duration("oauth_exchange_duration_seconds", "Time to exchange an authorization code."),
		idTokens:       counter("oauth_id_tokens_returned_total", "Code exchanges that returned an ID token."),
		tokenGets:      counters("oauth_token_get_total", "Stored tokens handed out, by provider id.", "provider", "has_id_token"),
		discoveries:    counters("oidc_discovery_total", "OpenID Connect discoveries, by outcome.", "result"),
		discoveryTime:  duration("oidc_discovery_duration_seconds", "Time of an OpenID Connect discovery."),
		verifications:  counters("oidc_verifications_total", "ID tokens verified, by outcome.", "result"),
		verifyTime:     duration("oidc_verification_duration_seconds", "Time to verify an ID token."),
		refreshes:      counters("nexus_token_refreshes_total", "Token refreshes asked of providers, by outcome.", "result"),
		refreshWaiting: factory.NewGauge(prometheus.GaugeOpts{
			Name: "nexus_token_refresh_waiting", Help: "Callers who wait for a token refresh, of this replica or another.",
		}),
		underWay: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nexus_token_refreshes_under_way", Help: "Connections whose refresh this replica makes, or waits for.",
		}, []string{"by"}),
	}
}

// ConsentCreated counts a consent flow that has begun.
func (m *Metrics) ConsentCreated(openid bool) {
	m.oauth.consents.Inc()
	if openid {
		m.oauth.openidConsents.Inc()
	}
}

// TokenExchange counts the exchange of an authorization code.
func (m *Metrics) TokenExchange(status string, took time.Duration) {
	m.oauth.exchanges.WithLabelValues(status).Inc()
	m.oauth.exchangeTime.Observe(took.Seconds())
}

// IDTokenReturned counts an exchange that returned an ID token.
func (m *Metrics) IDTokenReturned() { m.oauth.idTokens.Inc() }

// TokenGet counts a stored token that was handed out.
func (m *Metrics) TokenGet(providerID string, hasIDToken bool) {
	m.oauth.tokenGets.WithLabelValues(providerID, strconv.FormatBool(hasIDToken)).Inc()
}

// Discovery counts an OpenID Connect discovery. One that was answered from the cache
// took no time that would tell anything.
func (m *Metrics) Discovery(result string, took time.Duration) {
	m.oauth.discoveries.WithLabelValues(result).Inc()
	if result != "cached" {
		m.oauth.discoveryTime.Observe(took.Seconds())
	}
}

// Verification counts the verification of an ID token.
func (m *Metrics) Verification(result string, took time.Duration) {
	m.oauth.verifications.WithLabelValues(result).Inc()
	m.oauth.verifyTime.Observe(took.Seconds())
}

// Refresh counts a token refresh that was asked of a provider.
func (m *Metrics) Refresh(result string) { m.oauth.refreshes.WithLabelValues(result).Inc() }

// RefreshWaiting counts callers who have begun to wait for a refresh, or with -1 who
// have ended.
func (m *Metrics) RefreshWaiting(change int) { m.oauth.refreshWaiting.Add(float64(change)) }

// Who makes a refresh.
const (
	ThisReplica    = "this_replica"
	AnotherReplica = "another_replica"
)

// RefreshUnderWay counts connections whose refresh this replica has begun to make or
// to wait for, or with -1 has ended.
func (m *Metrics) RefreshUnderWay(by string, change int) {
	m.oauth.underWay.WithLabelValues(by).Add(float64(change))
}

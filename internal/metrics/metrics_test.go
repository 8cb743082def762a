package metrics_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/metrics"
)

// The names and labels of the existing broker: dashboards depend on them.
func TestNamesOfToday(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg)
	m.ConsentCreated(false)
	m.ConsentCreated(true)
	m.TokenExchange("success", time.Second)
	m.IDTokenReturned()
	m.TokenGet("0191", true)
	m.Discovery("success", time.Second)
	m.Verification("failure", time.Second)

	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP oauth_consents_created_total Consent flows begun.
# TYPE oauth_consents_created_total counter
oauth_consents_created_total 2
# HELP oauth_consents_with_openid_total Consent flows begun with the scope openid.
# TYPE oauth_consents_with_openid_total counter
oauth_consents_with_openid_total 1
# HELP oauth_id_tokens_returned_total Code exchanges that returned an ID token.
# TYPE oauth_id_tokens_returned_total counter
oauth_id_tokens_returned_total 1
# HELP oauth_token_exchanges_total Authorization codes exchanged, by outcome.
# TYPE oauth_token_exchanges_total counter
oauth_token_exchanges_total{status="success"} 1
# HELP oauth_token_get_total Stored tokens handed out, by provider id.
# TYPE oauth_token_get_total counter
oauth_token_get_total{has_id_token="true",provider="0191"} 1
# HELP oidc_discovery_total OpenID Connect discoveries, by outcome.
# TYPE oidc_discovery_total counter
oidc_discovery_total{result="success"} 1
# HELP oidc_verifications_total ID tokens verified, by outcome.
# TYPE oidc_verifications_total counter
oidc_verifications_total{result="failure"} 1
`), "oauth_consents_created_total", "oauth_consents_with_openid_total", "oauth_id_tokens_returned_total",
		"oauth_token_exchanges_total", "oauth_token_get_total", "oidc_discovery_total", "oidc_verifications_total"))

	for _, name := range []string{"oauth_exchange_duration_seconds", "oidc_discovery_duration_seconds", "oidc_verification_duration_seconds"} {
		n, err := testutil.GatherAndCount(reg, name)
		require.NoError(t, err)
		require.Equal(t, 1, n, name)
	}
}

func TestSecretMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg)
	m.SecretCall("hashicorp-vault", "get", "ok", time.Millisecond)
	for _, r := range []string{metrics.CacheHit, metrics.CacheHit, metrics.CacheStale, "never heard of"} {
		m.CacheLookup(r)
	}
	m.SecretLogin("hashicorp-vault", nil)
	m.SecretLogin("hashicorp-vault", errors.New("refused: s.token"))
	m.Refresh("ok")
	m.RegisterTokenTTL("hashicorp-vault", func() (time.Duration, bool) { return time.Minute, true })
	m.RegisterTokenTTL("aws-secrets-manager", func() (time.Duration, bool) { return 0, false })

	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP nexus_secret_cache_lookups_total Look-ups of client credentials in the cache, by result: hit, miss, stale or negative.
# TYPE nexus_secret_cache_lookups_total counter
nexus_secret_cache_lookups_total{result="hit"} 2
nexus_secret_cache_lookups_total{result="miss"} 0
nexus_secret_cache_lookups_total{result="negative"} 0
nexus_secret_cache_lookups_total{result="stale"} 1
# HELP nexus_secret_calls_total Calls to secret backends, by backend, operation and class of their outcome.
# TYPE nexus_secret_calls_total counter
nexus_secret_calls_total{backend="hashicorp-vault",class="ok",operation="get"} 1
# HELP nexus_secret_logins_total Logins to secret backends, by outcome.
# TYPE nexus_secret_logins_total counter
nexus_secret_logins_total{backend="hashicorp-vault",result="error"} 1
nexus_secret_logins_total{backend="hashicorp-vault",result="ok"} 1
# HELP nexus_secret_token_ttl_seconds Time that the login token of a secret backend has left.
# TYPE nexus_secret_token_ttl_seconds gauge
nexus_secret_token_ttl_seconds{backend="hashicorp-vault"} 60
# HELP nexus_token_refreshes_total Token refreshes asked of providers, by outcome.
# TYPE nexus_token_refreshes_total counter
nexus_token_refreshes_total{result="ok"} 1
`), "nexus_secret_cache_lookups_total", "nexus_secret_calls_total", "nexus_secret_logins_total",
		"nexus_secret_token_ttl_seconds", "nexus_token_refreshes_total"))
}

// A caller must not be able to create time series.
func TestHTTPMethodsAreAClosedSet(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg)
	for _, method := range []string{"GET", "BREW", "PROPFIND", strings.Repeat("X", 100)} {
		m.HTTPRequest("GET /providers/{id}", method, 200, time.Millisecond)
	}
	n, err := testutil.GatherAndCount(reg, "nexus_http_requests_total")
	require.NoError(t, err)
	require.Equal(t, 2, n, "GET and other")
}

func TestNilRegistererRegistersNothing(t *testing.T) {
	metrics.New(nil).ConsentCreated(true)
	metrics.New(nil).CacheLookup(metrics.CacheHit)
}

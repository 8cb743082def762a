package httpapi_test

import (
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/httpapi"
)

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestWithoutRequiredKeysNoKeyIsLookedAt(t *testing.T) {
	call := bare(t, httpapi.Options{Broker: &stub{}}) // no Keys
	require.Equal(t, 200, call("GET", "/providers").StatusCode)
}

func TestAllowlist(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain, RequireAllowlist: true, AllowedCIDRs: prefixes("10.0.0.0/8")})
	c.get("/providers").requireError(t, 403, "access_denied")
	c.as("").get("/providers").requireError(t, 401, "missing_api_key")
	require.Zero(t, domain.calls())
	require.Equal(t, 200, c.as("").get("/health").StatusCode, "public routes are not limited")

	nobody := newClient(t, httpapi.Options{Broker: domain, RequireAllowlist: true})
	nobody.get("/providers").requireError(t, 403, "access_denied")

	local := newClient(t, httpapi.Options{Broker: domain, RequireAllowlist: true, AllowedCIDRs: prefixes("127.0.0.1/32")})
	require.Equal(t, 200, local.get("/providers").StatusCode)
	off := newClient(t, httpapi.Options{Broker: domain, AllowedCIDRs: prefixes("10.0.0.0/8")})
	require.Equal(t, 200, off.get("/providers").StatusCode)
}

// The address that counts is the one that the nearest proxy we trust was called
// from. What a caller writes into X-Forwarded-For himself never counts.
func TestClientAddress(t *testing.T) {
	trusted := prefixes("10.0.0.0/8", "fd00::/8")
	for name, tt := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"direct":                         {"192.0.2.1:1", nil, "192.0.2.1"},
		"direct, IPv6":                   {"[2001:db8::1]:1", nil, "2001:db8::1"},
		"direct, IPv4 in IPv6":           {"[::ffff:192.0.2.1]:1", nil, "192.0.2.1"},
		"a zone":                         {"[fe80::1%eth0]:1", nil, "fe80::1"},
		"spoofed by an untrusted peer":   {"192.0.2.1:1", []string{"10.0.0.1"}, "192.0.2.1"},
		"one proxy":                      {"10.0.0.1:1", []string{"192.0.2.7"}, "192.0.2.7"},
		"one proxy, IPv6":                {"[fd00::1]:1", []string{"2001:db8::7"}, "2001:db8::7"},
		"proxy in IPv4 in IPv6":          {"[::ffff:10.0.0.1]:1", []string{"192.0.2.7"}, "192.0.2.7"},
		"two proxies":                    {"10.0.0.1:1", []string{"192.0.2.7, 10.0.0.2"}, "192.0.2.7"},
		"spoofed before the proxy":       {"10.0.0.1:1", []string{"127.0.0.1, 192.0.2.7"}, "192.0.2.7"},
		"spoofed in a line of its own":   {"10.0.0.1:1", []string{"127.0.0.1", "192.0.2.7"}, "192.0.2.7"},
		"spoofed as a proxy":             {"10.0.0.1:1", []string{"10.0.0.9, 192.0.2.7"}, "192.0.2.7"},
		"spoofed nonsense":               {"10.0.0.1:1", []string{"'; drop table, 192.0.2.7"}, "192.0.2.7"},
		"with a port":                    {"10.0.0.1:1", []string{"192.0.2.7:4711"}, "192.0.2.7"},
		"IPv6 with a port":               {"10.0.0.1:1", []string{"[2001:db8::7]:4711"}, "2001:db8::7"},
		"IPv6 in brackets":               {"10.0.0.1:1", []string{"[2001:db8::7]"}, "2001:db8::7"},
		"only proxies":                   {"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"the proxy says nothing of use":  {"10.0.0.1:1", []string{"unknown"}, ""},
		"the proxy says nothing":         {"10.0.0.1:1", []string{""}, ""},
		"the proxy's list ends in comma": {"10.0.0.1:1", []string{"192.0.2.7,"}, ""},
		"a peer without an address":      {"@", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			domain := &stub{}
			api := handler(t, httpapi.Options{Broker: domain, TrustedProxies: trusted})
			r := httptest.NewRequest("GET", "/providers", nil)
			r.RemoteAddr = tt.peer
			r.Header["X-Forwarded-For"] = tt.forwarded
			api.ServeHTTP(httptest.NewRecorder(), r)
			require.Equal(t, tt.want, domain.request().IPAddress)

			// An address that is not known is on no list.
			guarded := handler(t, httpapi.Options{Broker: domain, TrustedProxies: trusted, RequireAllowlist: true,
				AllowedCIDRs: prefixes("0.0.0.0/0", "::/0")})
			rec := httptest.NewRecorder()
			guarded.ServeHTTP(rec, r)
			if tt.want == "" {
				require.Equal(t, 403, rec.Code)
			} else {
				require.Equal(t, 200, rec.Code)
			}
		})
	}
}

func TestUndeclaredProxyIsWarnedOfOnce(t *testing.T) {
	o := httpapi.Options{Broker: &stub{}, RequireAllowlist: true, AllowedCIDRs: prefixes("127.0.0.0/8")}
	c := newClient(t, o).with("X-Forwarded-For", "10.0.0.1")
	c.get("/providers")
	c.get("/providers")
	require.Len(t, c.log.lines(t, "a request has X-Forwarded-For and its peer is not in TRUSTED_PROXIES: the allow-list is applied to the peer's own address"), 1)

	o.RequireAllowlist = false
	c = newClient(t, o).with("X-Forwarded-For", "10.0.0.1")
	c.get("/providers")
	require.NotContains(t, c.log.String(), "TRUSTED_PROXIES")
}

func TestRateLimit(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain, RateLimit: 0.01})
	require.Equal(t, 200, c.get("/providers").StatusCode)
	for range 3 {
		limited := c.get("/providers")
		limited.requireError(t, 429, "rate_limited")
		require.NotEmpty(t, limited.Header.Get("Retry-After"))
	}
	require.Equal(t, 1, domain.calls())
	require.Equal(t, 200, c.as(auditorKey).get("/providers").StatusCode, "every key has its own allowance")
	c.as("wrong").get("/providers").requireError(t, 403, "invalid_api_key")
	require.Equal(t, 200, c.get("/health").StatusCode)
}

// What is forbidden uses up the key's allowance, and what comes from elsewhere does not:
// whoever has stolen a key cannot use it against its owner.
func TestWhatUsesUpAnAllowance(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}, RateLimit: 0.01, RequireAllowlist: true,
		AllowedCIDRs: prefixes("10.0.0.0/8"), TrustedProxies: prefixes("127.0.0.1/32")})
	owner, thief := c.with("X-Forwarded-For", "10.0.0.1"), c.with("X-Forwarded-For", "192.0.2.1")
	for range 3 {
		thief.get("/providers").requireError(t, 403, "access_denied")
	}
	require.Equal(t, 200, owner.get("/providers").StatusCode)
	owner.get("/providers").requireError(t, 429, "rate_limited")
	thief.get("/providers").requireError(t, 403, "access_denied")

	agent := owner.as(agentKey)
	agent.get("/providers").requireError(t, 403, "forbidden")
	agent.get("/providers").requireError(t, 429, "rate_limited")
}

func TestRateLimitAllowsABurst(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}, RateLimit: 5})
	limited := 0
	for range 30 {
		if c.get("/providers").StatusCode == 429 {
			limited++
		}
	}
	require.Positive(t, limited)
	require.LessOrEqual(t, limited, 25)

	unlimited := newClient(t, httpapi.Options{Broker: &stub{}})
	for range 100 {
		require.Equal(t, 200, unlimited.get("/providers").StatusCode)
	}
}

// Without keys all callers share one allowance.
func TestRateLimitWithoutKeys(t *testing.T) {
	call := bare(t, httpapi.Options{Broker: &stub{}, RateLimit: 0.01})
	require.Equal(t, 200, call("GET", "/providers").StatusCode)
	require.Equal(t, 429, call("GET", "/providers").StatusCode)
}

// What an agent's key is refused, it is refused in every spelling.
func TestRoleEscalation(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain}).as(agentKey)
	for _, path := range []string{"/providers", "/providers/", "/providers/" + someID, "/providers/metadata", "/providers/health",
		"/providers/by-name/google", "/audit", "/audit?limit=1"} {
		c.get(path).requireError(t, 403, "forbidden")
		require.Equal(t, 403, c.do("HEAD", path, "").StatusCode)
	}
	for _, path := range []string{"//providers", "/./providers", "/providers//" + someID, "/auth/consent-spec/../../providers", "/PROVIDERS",
		"/%70roviders%2f", "/connections/" + someID + "/../../providers"} {
		require.NotEqual(t, 200, c.get(path).StatusCode, path)
	}
	c.with("X-HTTP-Method-Override", "GET").do("POST", "/providers", `{"profile":{}}`).requireError(t, 403, "forbidden")
	c.do("DELETE", "/providers/"+someID, "").requireError(t, 403, "forbidden")
	c.do("PATCH", "/providers/"+someID, "{}").requireError(t, 403, "forbidden")

	// A second header does not add to the first.
	c.header["X-Api-Key"] = []string{agentKey, adminKey}
	c.get("/providers").requireError(t, 403, "forbidden")
	c.header["X-Api-Key"] = []string{agentKey}
	c.with("Authorization", "Bearer "+adminKey).get("/providers").requireError(t, 403, "forbidden")
	require.Zero(t, domain.calls())
}

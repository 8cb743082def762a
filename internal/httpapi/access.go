package httpapi

import (
	"math"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// audience is who may use a route.
type audience []Role

// The audiences. public is nil: no key is looked at, and no address.
var (
	public   audience
	admins   = audience{Admin}
	agents   = audience{Admin, Agent}
	auditors = audience{Admin, Auditor}
	everyone = audience{Admin, Agent, Auditor} // with a key
)

// admit decides whether the caller may use a route for who, and notes the caller's
// role. Every request passes here before its handler is called.
func (a *api) admit(r *http.Request, who audience) error {
	if who == nil {
		return nil
	}
	from, err := a.authenticate(r)
	if err != nil {
		return err
	}
	c := callFrom(r.Context())
	c.role = from.role
	if a.RequireAllowlist && !contains(a.AllowedCIDRs, c.client) {
		return failure(codeAccessDenied, "this address is not in ALLOWED_CIDRS")
	}
	if !slices.Contains(who, from.role) {
		return failure(codeForbidden, "a key with the role "+string(from.role)+" may not do this")
	}
	return a.limits.take(from.key)
}

func (a *api) authenticate(r *http.Request) (caller, error) {
	if a.Keys == nil {
		return caller{role: Admin}, nil
	}
	presented := r.Header.Get("X-API-Key")
	if presented == "" {
		return caller{}, failure(codeMissingAPIKey, "the header X-API-Key is missing")
	}
	from, ok := a.Keys.find(presented)
	if !ok {
		return caller{}, failure(codeInvalidAPIKey, "the key in X-API-Key is not one of the broker's")
	}
	return from, nil
}

// contains reports whether addr, which may be unknown, is in one of the networks.
func contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// rateLimits gives every key its allowance. There are never more than keys.
type rateLimits struct {
	perSecond rate.Limit
	burst     int
	mu        sync.Mutex
	byKey     map[digest]*rate.Limiter
}

// newRateLimits allows perSecond requests, 0 for any number, and as many at once.
func newRateLimits(perSecond float64) *rateLimits {
	return &rateLimits{
		perSecond: rate.Limit(perSecond), burst: max(1, int(math.Ceil(perSecond))),
		byKey: map[digest]*rate.Limiter{},
	}
}

// take uses up one request of the key's allowance, or says when to come again.
func (l *rateLimits) take(key digest) error {
	if l.perSecond <= 0 {
		return nil
	}
	reservation := l.of(key).Reserve()
	wait := reservation.Delay()
	if wait == 0 {
		return nil
	}
	reservation.Cancel()
	return &broker.Error{
		Code: codeRateLimited, Message: "this key has made too many requests; come again later",
		RetryAfter: max(wait, time.Second),
	}
}

func (l *rateLimits) of(key digest) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter, ok := l.byKey[key]
	if !ok {
		limiter = rate.NewLimiter(l.perSecond, l.burst)
		l.byKey[key] = limiter
	}
	return limiter
}

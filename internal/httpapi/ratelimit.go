package httpapi

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// rateLimits gives every key its allowance: perSecond requests a second, and as many
// at once. Only keys that are known to the broker come here, and never addresses: who
// shares an address with others, behind a proxy, does not pay for them, and whoever
// has no key cannot fill the memory.
type rateLimits struct {
	perSecond rate.Limit
	burst     int

	mu        sync.Mutex
	byKey     map[digest]*rate.Limiter
	pruneFrom int // keys
}

const (
	// fewKeys are kept without ever looking whether they are in use.
	fewKeys = 64
	// longestWait bounds what Retry-After says of a very low limit.
	longestWait = 24 * time.Hour
)

// newRateLimits allows perSecond requests, 0 for any number, and as many at once.
func newRateLimits(perSecond float64) *rateLimits {
	return &rateLimits{
		perSecond: rate.Limit(perSecond), burst: max(1, int(math.Ceil(perSecond))),
		byKey: map[digest]*rate.Limiter{}, pruneFrom: fewKeys,
	}
}

// take uses up one request of the key's allowance, or says when to come again, a
// second at least. What is refused uses up nothing: a caller who insists still gets
// what he is allowed.
func (l *rateLimits) take(key digest, now time.Time) error {
	if l.perSecond <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.of(key, now)
	if limiter.AllowN(now, 1) {
		return nil
	}
	missing := (1 - limiter.TokensAt(now)) / float64(l.perSecond) // seconds
	wait := longestWait
	if missing < longestWait.Seconds() {
		wait = max(time.Second, time.Duration(missing*float64(time.Second)))
	}
	return &broker.Error{Code: codeRateLimited, Message: "this key has made too many requests; come again later", RetryAfter: wait}
}

// of returns the limiter of a key. An allowance that has not been touched for so long
// that it is whole again is forgotten, so that keys which were withdrawn leave nothing
// behind.
func (l *rateLimits) of(key digest, now time.Time) *rate.Limiter {
	limiter, ok := l.byKey[key]
	if ok {
		return limiter
	}
	if len(l.byKey) >= l.pruneFrom {
		for k, each := range l.byKey {
			if each.TokensAt(now) >= float64(l.burst) {
				delete(l.byKey, k)
			}
		}
		l.pruneFrom = max(fewKeys, 2*len(l.byKey))
	}
	limiter = rate.NewLimiter(l.perSecond, l.burst)
	l.byKey[key] = limiter
	return limiter
}

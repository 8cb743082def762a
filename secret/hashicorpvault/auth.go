package hashicorpvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/singleflight"

	"github.com/nexus-broker/nexus-broker/secret"
)

// unprovenFor is how long a token that has never worked, and came in place of another
// that never did, is not given up for a third: where a server refuses every token, this
// is the pause between two logins. The first one is given up at once: it may have been
// revoked before anybody used it.
const unprovenFor = time.Minute

// authenticator holds the token in use. It logs in when the first request needs a
// token, and again when the token is known not to be valid: never for a request that
// a policy denies. Any number of requests share one login.
type authenticator struct {
	conn    *conn
	method  method
	log     *slog.Logger
	onLogin func(error)
	// unproven is unprovenFor; tests shorten it.
	unproven time.Duration

	ctx     context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup // keeper and logins
	flight  singleflight.Group
	renewed chan struct{} // wakes the keeper: current has changed

	mu      sync.Mutex
	closed  bool
	current *session
	// A refused login is not repeated before refusedUntil.
	refusal      error
	refusedUntil time.Time
	refusals     *backoff.ExponentialBackOff
}

var errClosed = fmt.Errorf("%w: the backend has been closed", secret.ErrUnavailable)

func newAuthenticator(c *conn, m method, opts Options) *authenticator {
	a := &authenticator{
		conn: c, method: m, log: opts.Logger, onLogin: opts.OnLogin, unproven: unprovenFor,
		renewed: make(chan struct{}, 1), refusals: newBackoff(time.Second),
	}
	a.ctx, a.end = context.WithCancel(context.Background())
	a.running.Go(a.keep)
	return a
}

// newBackoff returns growing, jittered waits up to a minute, without end.
func newBackoff(first time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, time.Minute
	b.Reset()
	return b
}

// close ends the keeper and the logins under way, and waits for them.
func (a *authenticator) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.end()
	a.running.Wait()
}

// session returns the token to use, logging in if need be.
func (a *authenticator) session(ctx context.Context) (*session, error) {
	changed := a.method.changed()
	a.mu.Lock()
	s := a.current
	usable := s != nil && !(a.method.again() && s.expired(time.Now()))
	a.mu.Unlock()
	// A changed proof matters at the next login only.
	if usable && (!changed || a.method.again()) {
		return s, nil
	}
	return a.relogin(ctx, s)
}

// relogin is login, shared.
func (a *authenticator) relogin(ctx context.Context, old *session) (*session, error) {
	return a.share(ctx, "login", func(ctx context.Context) (*session, error) { return a.login(ctx, old) })
}

// afterDenial decides what to do about a request that was denied with s: it returns
// another token if s is not valid any more, nil if s is valid and a policy denies the
// request, and an error if there is no valid token to be had. It is shared by those whose
// requests were denied with the same token: the verdict is on that one.
func (a *authenticator) afterDenial(ctx context.Context, s *session) (*session, error) {
	return a.share(ctx, fmt.Sprintf("denied %p", s), func(ctx context.Context) (*session, error) {
		if now := a.inUse(); now != s {
			return now, nil
		}
		r := request{method: http.MethodGet, path: "auth/token/lookup-self", self: true}
		ans, err := a.conn.send(ctx, s.self, r)
		switch {
		case err != nil:
			return nil, fmt.Errorf("token lookup: %w", fault(nil, r, err))
		case !ans.denied():
			// Valid; or the server is in trouble, which the next request will see.
			if ans.ok() {
				a.accepted(s)
			}
			return nil, nil
		case !ans.invalidToken() && (!a.method.again() || time.Since(s.since) < a.unproven):
			// No policy lets the token look itself up: most likely it is valid.
			return nil, nil
		case a.onProbation(s):
			return nil, refused("the token of the last login is not valid: %s", a.method.remedy())
		}
		fresh, err := a.relogin(ctx, s)
		if err == nil && fresh == s {
			err = refused("the token is not valid: it has expired or was revoked: %s", a.method.remedy())
		}
		if err != nil {
			return nil, err
		}
		return fresh, nil
	})
}

// onProbation reports whether s must not be given up yet, should it not be valid.
func (a *authenticator) onProbation(s *session) bool {
	return a.method.again() && s.suspect && !s.worked.Load() && time.Since(s.since) < a.unproven
}

// share runs fn once for all who ask for it at the same time. It does not end with
// the ctx of the one who asked first, but with Close or after the time of one request.
func (a *authenticator) share(ctx context.Context, what string, fn func(context.Context) (*session, error)) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	done := a.flight.DoChan(what, func() (any, error) { //nolint:contextcheck // it is for all who wait, ctx is one's
		a.mu.Lock()
		if a.closed {
			a.mu.Unlock()
			return nil, errClosed
		}
		a.running.Add(1)
		a.mu.Unlock()
		defer a.running.Done()
		bounded, cancel := context.WithTimeout(a.ctx, 2*a.conn.timeout)
		defer cancel()
		s, err := fn(bounded)
		if err != nil && bounded.Err() != nil && errors.Is(err, bounded.Err()) {
			// Not the error of the caller's ctx.
			err = fmt.Errorf("%w: the login took too long or was cut off by Close", secret.ErrUnavailable)
		}
		return s, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		s, _ := r.Val.(*session)
		return s, r.Err
	}
}

func (a *authenticator) inUse() *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.current
}

// login replaces old, which may be nil, by a new token. It returns old if that is
// still the one to use.
func (a *authenticator) login(ctx context.Context, old *session) (*session, error) {
	a.mu.Lock()
	current, refusal, until := a.current, a.refusal, a.refusedUntil
	a.mu.Unlock()
	if current != old {
		return current, nil
	}
	if refusal != nil && time.Now().Before(until) && !a.method.changed() {
		return nil, refusal
	}
	g, err := a.method.obtain(ctx)
	if err == nil && old != nil && g.token.Equal(old.token) {
		return old, nil
	}
	if err != nil {
		a.onLogin(err)
		return a.failed(old, err)
	}
	s := &session{
		token: g.token, since: time.Now(), lifetime: g.lifetime,
		suspect: old != nil && !old.worked.Load(),
		secrets: withToken(a.conn.secrets, g.token), self: withToken(a.conn.login, g.token),
	}
	a.mu.Lock()
	s.tend = nextTend(s.lifetime, time.Now())
	a.current, a.refusal = s, nil
	a.refusals.Reset()
	a.mu.Unlock()
	select {
	case a.renewed <- struct{}{}:
	default:
	}
	if a.method.proves() {
		a.onLogin(nil)
		a.log.Info("logged in to Vault", "method", a.method.String(), "token_ttl", g.lifetime.ttl.String(), "renewable", g.lifetime.renewable)
	} else {
		a.log.Info("using the configured Vault token")
	}
	return s, nil
}

// accepted notes that the server has accepted the token. For one that was given to us
// that is the login.
func (a *authenticator) accepted(s *session) {
	if !s.worked.Load() && s.worked.CompareAndSwap(false, true) && !a.method.proves() {
		a.onLogin(nil)
	}
}

// failed notes a failed login. A token that cannot be replaced now stays in use.
func (a *authenticator) failed(old *session, err error) (*session, error) {
	a.log.Warn("cannot log in to Vault", "method", a.method.String(), "error", err.Error())
	if old != nil && !a.method.again() {
		return old, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if wait, ok := secret.RetryAfter(err); ok {
		a.refusal, a.refusedUntil = err, time.Now().Add(min(wait, time.Minute))
	} else if errors.Is(err, secret.ErrDenied) {
		a.refusal, a.refusedUntil = err, time.Now().Add(a.refusals.NextBackOff())
	}
	return nil, err
}

// ttl returns how long the token in use will last; false if it has no end, or none
// that is known.
func (a *authenticator) ttl() (time.Duration, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current == nil || !a.current.known || a.current.ttl == 0 {
		return 0, false
	}
	return max(0, time.Until(a.current.expires)), true
}

// lookedUp reads the lifetime in the answer of lookup-self, which was asked at sent.
func lookedUp(a *answer, sent time.Time) (lifetime, bool) {
	var data struct {
		TTL        *int64 `json:"ttl"` // seconds left, 0 also for a token that does not expire
		ExpireTime string `json:"expire_time"`
		Renewable  bool   `json:"renewable"`
	}
	if json.Unmarshal(a.data, &data) != nil || data.TTL == nil {
		return lifetime{}, false
	}
	ttl := time.Duration(*data.TTL) * time.Second
	if ttl == 0 && data.ExpireTime != "" {
		ttl = time.Millisecond // its last second
	}
	return newLifetime(ttl, data.Renewable, sent), true
}

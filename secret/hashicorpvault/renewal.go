package hashicorpvault

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// nextTend returns when a token needs attention: when two thirds of its life, more or
// less, have passed, so that there is time to try again; at once if its lifetime has
// to be looked up; never (zero) if it does not expire.
func nextTend(l lifetime, now time.Time) time.Time {
	switch {
	case !l.known:
		return now
	case l.ttl == 0:
		return time.Time{}
	}
	left := l.expires.Sub(now)
	return now.Add(time.Duration(float64(left) * (0.6 + 0.15*rand.Float64())))
}

// keep looks after the token in use until Close: it learns its lifetime, renews it
// before it expires, and logs in again where it can't be renewed, without limit.
func (a *authenticator) keep() {
	retry := newBackoff(500 * time.Millisecond)
	for {
		s, due := a.plan()
		switch a.sleep(due) {
		case closed:
			return
		case woken:
			retry.Reset()
			continue
		}
		if err := a.look(s); err != nil {
			wait := retry.NextBackOff()
			a.log.Warn("cannot keep the Vault token alive, will try again", "error", err.Error(), "in", wait.String())
			a.postpone(s, time.Now().Add(wait))
			continue
		}
		retry.Reset()
	}
}

// Why the keeper's sleep ended.
type wakeUp int

const (
	rested wakeUp = iota // it was due
	woken                // another token is in use
	closed
)

// sleep waits until due, for ever if it is zero.
func (a *authenticator) sleep(due time.Time) wakeUp {
	var alarm <-chan time.Time
	if !due.IsZero() {
		timer := time.NewTimer(time.Until(due))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-a.ctx.Done():
		return closed
	case <-a.renewed:
		return woken
	case <-alarm:
		return rested
	}
}

func (a *authenticator) plan() (*session, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current == nil {
		return nil, time.Time{}
	}
	return a.current, a.current.tend
}

func (a *authenticator) postpone(s *session, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.tend = until
}

// look does for s what is due. The error is a passing one.
func (a *authenticator) look(s *session) error {
	a.mu.Lock()
	l := s.lifetime
	a.mu.Unlock()
	switch {
	case a.method.changed() && !a.method.again():
		return a.replace(s)
	case !l.known:
		return a.learn(s)
	case l.renewable:
		return a.renew(s)
	case a.method.again():
		return a.replace(s)
	}
	a.postpone(s, time.Time{})
	a.log.Warn("the Vault token can't be renewed: "+a.method.remedy(), "expires", l.expires.UTC().Format(time.RFC3339))
	return nil
}

// replace logs in again.
func (a *authenticator) replace(s *session) error {
	fresh, err := a.relogin(a.ctx, s)
	if err == nil && fresh == s { // the file was touched and holds the same token
		a.mu.Lock()
		s.tend = nextTend(s.lifetime, time.Now())
		a.mu.Unlock()
	}
	return err
}

// learn looks up the lifetime of a token that was given to us.
func (a *authenticator) learn(s *session) error {
	r := request{method: http.MethodGet, path: "auth/token/lookup-self", self: true}
	sent := time.Now()
	ans, err := a.conn.send(a.ctx, s.self, r)
	if err == nil && ans.ok() {
		if l, ok := lookedUp(ans, sent); ok {
			a.accepted(s)
			a.set(s, l)
			return nil
		}
	}
	if err == nil && ans.denied() {
		a.log.Warn("the lifetime of the Vault token is unknown and it will not be renewed: " +
			"it is not valid, or no policy allows it to read auth/token/lookup-self")
		a.postpone(s, time.Time{})
		return nil
	}
	return fmt.Errorf("token lookup: %w", fault(ans, r, err))
}

// renew extends the token's life.
func (a *authenticator) renew(s *session) error {
	r := request{method: http.MethodPut, path: "auth/token/renew-self", body: map[string]any{}, self: true}
	sent := time.Now()
	ans, err := a.conn.send(a.ctx, s.self, r)
	switch {
	case err == nil && ans.ok():
		a.accepted(s)
		a.set(s, a.extended(s, ans, sent))
		return nil
	case err == nil && (ans.denied() || ans.fromVault && ans.status == http.StatusBadRequest):
		a.log.Info("the Vault token can't be renewed any more")
		l := s.lifetime // only the keeper changes it
		l.renewable = false
		a.mu.Lock()
		s.lifetime, s.tend = l, time.Now()
		a.mu.Unlock()
		return nil
	}
	return fmt.Errorf("token renewal: %w", fault(ans, r, err))
}

// extended reads the lifetime that a renewal has given. A token that gets less than
// half of what it was issued with nears its longest life: it is not renewed again.
func (a *authenticator) extended(s *session, ans *answer, sent time.Time) lifetime {
	var auth struct {
		LeaseDuration int64 `json:"lease_duration"` // seconds
		Renewable     bool  `json:"renewable"`
	}
	_ = json.Unmarshal(ans.auth, &auth) // an answer that says nothing gives nothing
	l := s.lifetime
	left := time.Duration(auth.LeaseDuration) * time.Second
	l.expires = sent.Add(left)
	l.renewable = auth.Renewable && left >= l.ttl/2
	return l
}

func (a *authenticator) set(s *session, l lifetime) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.lifetime = l
	s.tend = nextTend(l, time.Now())
}

package credentials

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/secret"
)

const (
	// outageMemory is how long an outage is taken for granted after it was last met.
	outageMemory = 5 * time.Second
	// retryEvery is how often a backend that is out is tried again in the background.
	retryEvery = time.Second
	// goodMemory is how long a backend is taken for good after it last answered.
	goodMemory = 15 * time.Second
	// probeEvery is how often a backend that is not known to be good is probed.
	probeEvery = 5 * time.Second
	// probeLimit is how long a probe may take. One that takes longer counts as an outage.
	probeLimit = 3 * time.Second
)

// Status is the state of a backend as GET /health/ready shows it.
type Status string

// The states of a backend.
const (
	StatusOK          Status = "ok"
	StatusUnavailable Status = "unavailable"
	StatusDenied      Status = "denied" // the login, or the rights the broker needs, are refused
)

// Health is what is known of one backend. The message is for anybody to read: it
// names no path and quotes nothing.
type Health struct {
	Name    string // of the backend
	Status  Status
	Since   time.Time // when the backend came into this state; at first, when the broker started
	Message string    // "" if ok
}

// Health tells how the backends fare, the one that is written to first, and of the
// further ones those that a row has named since the broker started, at last those of them
// that could not be opened: every flow that needs them fails. It costs
// nothing while they answer: only a backend that has not answered for 15 s, or not
// well, is probed, and that at most every 5 s however often Health is called.
//
// A probe goes on in the background, for 3 s at most. Health waits for those that it
// has begun, but no longer than ctx: then it tells what was known before.
func (s *Service) Health(ctx context.Context) []Health {
	unopened := s.sources.unopened()
	order := s.sources.list()
	var begun []<-chan struct{}
	for _, src := range order {
		if src.health.claimProbe(s.clock()) {
			begun = append(begun, s.beginProbe(ctx, src))
		}
	}
	for _, done := range begun {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	all := []Health{s.writeTo.status()}
	for _, src := range order {
		if src != s.writeTo {
			all = append(all, src.status())
		}
	}
	for _, name := range unopened {
		all = append(all, Health{Name: name, Status: StatusDenied, Since: s.started,
			Message: "the credentials of some providers are kept there, and this broker is not configured for it; its operator must configure it"})
	}
	return all
}

// beginProbe probes in the background: whoever asks how a backend fares, and has little
// time, must not wait for one that hangs.
func (s *Service) beginProbe(ctx context.Context, src *source) <-chan struct{} {
	done := make(chan struct{})
	if s.begin() != nil {
		close(done)
		return done
	}
	go func() {
		defer s.running.Done()
		defer close(done)
		ctx, cancel := s.outlive(ctx)
		defer cancel()
		ctx, stop := context.WithTimeout(ctx, probeLimit)
		defer stop()
		s.probe(ctx, src)
	}()
	return done
}

func (s *Service) probe(ctx context.Context, src *source) {
	need := secret.ReadOnly
	if src == s.writeTo && !s.readOnly {
		need = secret.ReadWrite
	}
	err := src.health.prober.Probe(ctx, need)
	s.observe(ctx, src, uuid.Nil, "probe", "", err)
	src.health.notePermission(err, s.now())
}

func (src *source) status() Health {
	status, since := src.health.status()
	h := Health{Name: src.name, Status: status, Since: since}
	switch status {
	case StatusUnavailable:
		h.Message = "the secret backend does not answer; stored tokens are served all the same"
		if src.name == Internal {
			h.Message = "the broker's database, which holds the credentials, does not answer or takes no writes"
		}
	case StatusDenied:
		h.Message = "the secret backend refuses the broker's login or the rights it needs; its administrator must grant them"
	}
	return h
}

// class is what an outcome tells of a backend.
type class int

const (
	silent       class = iota // nothing: the caller gave up, or it was no failure of the backend
	good                      // it answers
	denied                    // it answers, and denies this call
	loginRefused              // it denies every call
	out                       // it does not answer, or not now
)

func classify(err error) class {
	switch {
	case err == nil, errors.Is(err, secret.ErrNotFound), errors.Is(err, secret.ErrInvalid),
		errors.Is(err, secret.ErrExists), errors.Is(err, secret.ErrChanged):
		return good
	case errors.Is(err, secret.ErrLogin):
		return loginRefused
	case errors.Is(err, secret.ErrDenied):
		return denied
	case isOutage(err):
		return out
	}
	return silent
}

// health is what the outcomes of a backend's calls tell, the latest counting most.
type health struct {
	prober secret.Prober // nil: it cannot be probed

	mu         sync.Mutex
	reach      class // good, loginRefused or out; silent: not known yet
	permission class // of the last probe: good or denied; silent: not known
	shown      Status
	since      time.Time
	answered   time.Duration // when it last answered
	failed     time.Duration // when it was last out
	retryAt    time.Duration // not tried again in the background before, while it is out
	probeAt    time.Duration // not probed again before
	retrying   bool          // it is being tried again in the background
	bridged    bool          // this outage has been bridged with an expired value
}

// note learns from the outcome of a call, and reports whether that ends an outage.
func (h *health) note(err error, at time.Time, now time.Duration) (recovered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch c := classify(err); c {
	case silent:
		return false
	case good, denied:
		recovered = h.reach == out
		h.reach, h.answered, h.bridged = good, now, false
		if c == denied {
			h.permission = silent // a probe will tell whether this is about one key or all
		}
	case loginRefused:
		h.reach = loginRefused
	case out:
		h.reach, h.failed = out, now
	}
	h.show(at)
	return recovered
}

// notePermission learns from the outcome of a probe, after note.
func (h *health) notePermission(err error, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := classify(err); c == good || c == denied {
		h.permission = c
	}
	h.show(at)
}

func (h *health) show(at time.Time) {
	status := StatusOK
	switch {
	case h.reach == out:
		status = StatusUnavailable
	case h.reach == loginRefused, h.permission == denied:
		status = StatusDenied
	}
	if status != h.shown {
		h.shown, h.since = status, at
	}
}

func (h *health) status() (Status, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shown, h.since
}

// claimProbe reports whether the caller shall probe now.
func (h *health) claimProbe(now time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.reach == good && h.permission == good && now-h.answered < goodMemory
	if h.prober == nil || known || now < h.probeAt {
		return false
	}
	h.probeAt = now + probeEvery
	return true
}

// knownOut reports whether the backend was found to be out just now, or is being
// tried again after an outage.
func (h *health) knownOut(now time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reach == out && (h.retrying || now-h.failed < outageMemory)
}

// claimRetry reports whether the caller may try the backend in the background: at
// any time while it answers; one at a time, once a second, while it is out. If so
// the caller ends its try with retried.
func (h *health) claimRetry(now time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reach != out {
		return true
	}
	if h.retrying || now < h.retryAt {
		return false
	}
	h.retrying, h.retryAt = true, now+retryEvery
	return true
}

func (h *health) retried() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.retrying = false
}

// firstBridge reports whether it is the first time in this outage that an expired
// value is served.
func (h *health) firstBridge() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := !h.bridged
	h.bridged = true
	return first
}

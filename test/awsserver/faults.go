package awsserver

import (
	"net/http"
	"strconv"
	"time"
)

// settings are the switches of the server.
type settings struct {
	lag        time.Duration
	forceDelay time.Duration
	latency    time.Duration
	omit       bool
	denied     map[string]bool
	throttled  map[string]bool // the key "" stands for every action
	retryAfter time.Duration
	outage     int // status; 0 for none
	html       int // status; 0 for none
	drop       bool
	lost       map[string]bool
	hang       chan struct{} // closed by Heal; nil: answer
}

// Deny makes the server deny actions to everybody; they are given as a policy names
// them ("secretsmanager:GetSecretValue", "sts:AssumeRole", "kms:Decrypt").
func (s *Server) Deny(actions ...string) {
	s.change(func(x *settings) { x.denied = setOf(actions) })
}

// Throttle makes the server throttle actions, all if none is named. A retryAfter that is
// not zero is sent as the header Retry-After.
func (s *Server) Throttle(retryAfter time.Duration, actions ...string) {
	if len(actions) == 0 {
		actions = []string{""}
	}
	s.change(func(x *settings) { x.throttled, x.retryAfter = setOf(actions), retryAfter })
}

// Latency delays every answer.
func (s *Server) Latency(d time.Duration) { s.change(func(x *settings) { x.latency = d }) }

// Outage makes the service answer every request with status (500 or 503) and its own error.
func (s *Server) Outage(status int) { s.change(func(x *settings) { x.outage = status }) }

// HTML makes something else answer: a page, with status.
func (s *Server) HTML(status int) { s.change(func(x *settings) { x.html = status }) }

// Drop makes the server cut each connection instead of answering.
func (s *Server) Drop() { s.change(func(x *settings) { x.drop = true }) }

// LoseAnswers makes the server carry out actions and then cut the connection.
func (s *Server) LoseAnswers(actions ...string) {
	s.change(func(x *settings) { x.lost = setOf(actions) })
}

// Hang makes the server accept requests and not answer until Heal.
func (s *Server) Hang() {
	s.change(func(x *settings) {
		if x.hang == nil {
			x.hang = make(chan struct{})
		}
	})
}

// OmitMissing makes BatchGetSecretValue leave out what is not there, instead of
// reporting it among the errors.
func (s *Server) OmitMissing() { s.change(func(x *settings) { x.omit = true }) }

// Lag makes reads see a write only d after it: GetSecretValue, BatchGetSecretValue,
// DescribeSecret and the lists. Writes look at what is really there.
func (s *Server) Lag(d time.Duration) { s.change(func(x *settings) { x.lag = d }) }

// ForceDelay is how long a secret that is deleted without recovery still has its name.
func (s *Server) ForceDelay(d time.Duration) { s.change(func(x *settings) { x.forceDelay = d }) }

// Heal ends what Deny, Throttle, Latency, Outage, HTML, Drop, LoseAnswers, Hang and
// OmitMissing have begun.
func (s *Server) Heal() {
	s.change(func(x *settings) {
		if x.hang != nil {
			close(x.hang)
		}
		*x = settings{lag: x.lag, forceDelay: x.forceDelay}
	})
}

func (s *Server) change(f func(*settings)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.settings)
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	return set
}

// inFault answers in the server's place, or not at all, where a switch says so.
func (s *Server) inFault(w http.ResponseWriter, r *http.Request, action string) bool {
	s.mu.Lock()
	x := s.settings
	s.mu.Unlock()
	if x.hang != nil {
		select {
		case <-x.hang:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			return true
		}
	}
	if x.latency > 0 {
		select {
		case <-time.After(x.latency):
		case <-r.Context().Done():
			return true
		}
	}
	switch {
	case x.drop:
		panic(http.ErrAbortHandler) // closes the connection without an answer
	case x.html != 0:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(x.html)
		_, _ = w.Write([]byte("<!DOCTYPE html><html><body><h1>Please log in</h1></body></html>"))
		return true
	case x.outage != 0:
		code := "InternalServiceError"
		if x.outage == http.StatusServiceUnavailable {
			code = "ServiceUnavailableException"
		}
		s.fail(w, &apiError{x.outage, code, "An error occurred on the server side."})
		return true
	case x.throttled[""], x.throttled[action]:
		if x.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(x.retryAfter/time.Second)))
		}
		s.fail(w, refuse("ThrottlingException", "Rate exceeded"))
		return true
	}
	return false
}

// cutAfter cuts the connection after the request has been carried out, if LoseAnswers
// names it.
func (s *Server) cutAfter(action string) {
	s.mu.Lock()
	lost := s.settings.lost[action]
	s.mu.Unlock()
	if lost {
		panic(http.ErrAbortHandler)
	}
}

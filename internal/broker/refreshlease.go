package broker

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

// DefaultRefreshLease is how long a lease on a refresh lasts without being renewed,
// which happens three times as often. A replica that dies keeps the others from
// refreshing the connection for that long, and for the grace after it.
const DefaultRefreshLease = 8 * time.Second

// errLostLease: another replica has taken the refresh over before the request was sent.
var errLostLease = errors.New("another replica has taken the refresh over")

func (s *Service) leaseTime() time.Duration {
	if s.cfg.RefreshLease > 0 {
		return s.cfg.RefreshLease
	}
	return DefaultRefreshLease
}

// renewalTime bounds one attempt to renew a lease. The holder whose database does not
// answer has several before anybody takes over, each on another connection.
func (s *Service) renewalTime() time.Duration { return min(s.leaseTime()/4, storeTime) }

// takeoverGrace is how long a lease is watched after it has run out before it is taken
// over. When the database has been away for longer than a lease, the holder may have a
// token that it could not store: it renews its lease at least twice as often, and so comes
// first (see keepLease).
func (s *Service) takeoverGrace() time.Duration { return s.leaseTime() }

// refreshUnder refreshes while it holds the lease, and leaves the outcome to those who
// wait for it.
func (s *Service) refreshUnder(
	ctx context.Context, lease RefreshLease, view TokenView, current oauth.TokenSet,
) (answer TokenAnswer, err error) {
	s.metrics.RefreshUnderWay(metrics.ThisReplica, 1)
	defer s.metrics.RefreshUnderWay(metrics.ThisReplica, -1)
	stop := s.keepLease(ctx, lease)
	ended := false
	defer func() {
		stop()
		switch {
		case !ended: // a panic, which is not for us to stop
			err = errInternalRefresh()
		case errors.Is(err, errLostLease):
			return
		}
		ctx, cancel := afterwards(ctx)
		defer cancel()
		if endErr := s.store.EndRefresh(ctx, lease, encodeOutcome(err)); endErr != nil {
			s.log.WarnContext(ctx, "a refresh lease was not given back; it runs out", "connection_id", view.ConnectionID, "error", endErr)
		}
	}()
	answer, err = s.refreshWith(ctx, view, current, func() error { return s.stillHeld(ctx, lease) })
	ended = true
	return answer, err
}

// stillHeld makes sure of the lease right before a request is sent: a replica that was
// suspended, or waited long for the vault, finds here that it was taken over.
func (s *Service) stillHeld(ctx context.Context, lease RefreshLease) error {
	err := s.store.KeepRefresh(ctx, lease, s.leaseTime())
	switch {
	case errors.Is(err, ErrStale):
		return errLostLease
	case err != nil: // not the provider's fault
		return &Error{Code: CodeInternal, Err: err, Message: "the database did not confirm that this replica may refresh"}
	}
	return nil
}

// keepLease renews a lease until stop is called. It is renewed after ctx has ended too:
// a token that was received is stored however long that takes.
func (s *Service) keepLease(ctx context.Context, lease RefreshLease) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		every := time.NewTicker(s.leaseTime() / 3)
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
			err := tryStore(ctx, s.renewalTime(), func(ctx context.Context) error { return s.store.KeepRefresh(ctx, lease, s.leaseTime()) })
			if errors.Is(err, ErrStale) {
				return // what becomes of the token is decided when it is stored
			}
			if err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "a refresh lease was not renewed", "connection_id", lease.ConnectionID, "error", err)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// awaitRefresh waits until the refresh under a lease of another replica, or under one
// that came after it, has ended and returns how; nil is a success. ended is false if
// no replica makes the request any more: then the lease whose version is lapsed may be
// taken over.
func (s *Service) awaitRefresh(ctx context.Context, lease RefreshLease) (outcome error, ended bool, lapsed int64, err error) {
	s.metrics.RefreshUnderWay(metrics.AnotherReplica, 1)
	defer s.metrics.RefreshUnderWay(metrics.AnotherReplica, -1)
	const shortest, longest = 20 * time.Millisecond, 250 * time.Millisecond
	wait := shortest
	var lapsedSince time.Time
	for ; ; wait = min(2*wait, longest) {
		select {
		case <-ctx.Done():
			return nil, false, 0, &Error{Code: CodeUpstreamError, Err: ctx.Err(), RetryAfter: time.Second,
				Message: "another replica is still waiting for the provider; try again"}
		case <-s.closing:
			return nil, false, 0, errShuttingDown()
		case <-time.After(wait/2 + rand.N(wait)):
		}
		now, err := s.store.RefreshState(ctx, lease.ConnectionID)
		switch {
		case err != nil:
			return nil, false, 0, err
		case now.Ended >= lease.Version:
			return decodeOutcome(now.Outcome), true, 0, nil
		case now.Held:
			lapsedSince = time.Time{}
		case !now.Lapsed: // the connection is gone
			return nil, false, 0, nil
		case lapsedSince.IsZero() || now.Version != lapsed:
			lapsed, lapsedSince = now.Version, time.Now()
		case time.Since(lapsedSince) >= s.takeoverGrace():
			return nil, false, lapsed, nil
		}
	}
}

// sharedOutcome is a failed refresh as the replicas hear of it that have waited. It is
// what their callers are told, so it holds neither a credential nor foreign text.
type sharedOutcome struct {
	Code       Code           `json:"code"`
	Message    string         `json:"message"`
	Details    map[string]any `json:"details,omitempty"`
	RetryAfter time.Duration  `json:"retry_after,omitempty"` // nanoseconds
}

func errInternalRefresh() *Error {
	return &Error{Code: CodeInternal, Message: "the refresh failed; the log of the replica that made it has the cause"}
}

// encodeOutcome returns "" for a success.
func encodeOutcome(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		e = errInternalRefresh()
	}
	details, _ := e.Details.(map[string]any)
	b, jsonErr := json.Marshal(sharedOutcome{Code: e.Code, Message: e.Message, Details: details, RetryAfter: e.RetryAfter})
	if jsonErr != nil { // of details that are no JSON
		b, _ = json.Marshal(sharedOutcome{Code: e.Code, Message: e.Message})
	}
	return string(b)
}

func decodeOutcome(s string) error {
	if s == "" {
		return nil
	}
	var o sharedOutcome
	if json.Unmarshal([]byte(s), &o) != nil || o.Code == "" {
		return errInternalRefresh()
	}
	e := &Error{Code: o.Code, Message: o.Message, RetryAfter: o.RetryAfter, Err: errors.New("another replica's refresh failed")}
	if o.Details != nil {
		e.Details = o.Details
	}
	return e
}

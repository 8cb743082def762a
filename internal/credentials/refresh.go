package credentials

import (
	"context"
	"time"
)

// maxRefreshes is how many background refreshes run at once: many providers whose
// pairs were read together must not become a burst on the backend.
const maxRefreshes = 16

// refresh reads the pair again in the background, if it is time and this caller's
// turn: one
// read at a time for an entry and at most one a second, one a second for a backend
// that is out, and maxRefreshes in all. A denial or a missing value takes the entry
// out of the cache; any other failure leaves it, to be tried again while in use.
func (s *Service) refresh(ctx context.Context, ref Ref, e *entry, now time.Duration) {
	due := e.refreshAt.Load()
	if now < time.Duration(due) || !e.refreshAt.CompareAndSwap(due, int64(now+retryEvery)) {
		return
	}
	select {
	case s.refreshes <- struct{}{}:
	default:
		return
	}
	src := s.sources.known(ref.Backend)
	if !src.health.claimRetry(now) {
		<-s.refreshes
		return
	}
	go func() {
		defer func() { <-s.refreshes }()
		defer src.health.retried()
		// The outcome is in the cache, in the metrics and in the backend's health.
		_, _ = s.join(context.WithoutCancel(ctx), ref, e)
	}()
}

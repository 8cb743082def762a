package tracing

import (
	"log/slog"
	"sync"
	"time"
)

// errorLogEvery keeps a collector that is away from filling the log.
const errorLogEvery = time.Minute

// errorLog implements otel.ErrorHandler.
type errorLog struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	last time.Time
}

func newErrorLog(log *slog.Logger, now func() time.Time) *errorLog {
	return &errorLog{log: log, now: now}
}

// Handle implements otel.ErrorHandler.
func (e *errorLog) Handle(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := e.now(); e.last.IsZero() || now.Sub(e.last) >= errorLogEvery {
		e.last = now
		e.log.Warn("traces are not exported", "error", err)
	}
}

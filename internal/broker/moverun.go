package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

const (
	movePage    = 200 // rows in memory at once
	moveWorkers = 8   // providers in hand at once
	moveEvents  = 100 * time.Millisecond
	// After a failure that may pass nobody begins anything for a pause that doubles from
	// the first to the second of these, or for as long as the store has asked for.
	firstPause, longestPause = 250 * time.Millisecond, 15 * time.Second
	defaultPatience          = 2 * time.Minute
)

// ErrUnfinishedMove: something was left undone, because of a signal or because a backend
// or the database did not answer for too long. Running again goes on.
var ErrUnfinishedMove = errors.New("not finished")

// Migrate moves the credentials of every provider from one backend to the other, while
// replicas serve. It may be ended at any point and run again. The values in From stay, for
// Scrub to delete. When ctx ends, the providers in hand are finished.
//
// The error is one of the whole; what failed for a provider is in its result.
func (s *Service) Migrate(ctx context.Context, o MoveOptions) error {
	if s.creds.ReadOnly() {
		return credentials.ErrReadOnly
	}
	total, err := s.store.CountProviders(ctx)
	if err != nil {
		return err
	}
	m := newMover(s, o, total)
	return m.run(ctx, s.movableProviders(), func(ctx context.Context, it moveItem) (MoveResult, error) {
		return s.moveOne(ctx, it.provider, o)
	})
}

// moveItem is what a run takes in hand: a provider, or a pair that was left behind.
type moveItem struct {
	provider Provider
	left     Cleanup
}

// moveSource returns the items that follow those it returned before, none at the end.
type moveSource func(ctx context.Context) ([]moveItem, error)

func (s *Service) movableProviders() moveSource {
	var after uuid.UUID
	return func(ctx context.Context) ([]moveItem, error) {
		found, err := s.store.ProvidersByAge(ctx, Page{After: after, Limit: movePage})
		items := make([]moveItem, len(found))
		for i, p := range found {
			// No more is needed, and of those that are put off all are kept in memory.
			p.Profile = Profile{Name: p.Profile.Name}
			items[i], after = moveItem{provider: p}, p.ID
		}
		return items, err
	}
}

// mover works through items: a few at a time, page by page, and those that failed in a
// way that may pass again and again, as long as anything succeeds now and then.
type mover struct {
	s *Service
	o MoveOptions

	mu       sync.Mutex // guards what follows, and the calls of Report and Progress
	progress MoveProgress
	later    []moveItem
	why      map[uuid.UUID]string // of later: a failure
	failures int                  // since the last success
	until    time.Time            // nobody begins anything before
	good     time.Time            // the last success
	told     time.Time
}

func newMover(s *Service, o MoveOptions, total int) *mover {
	o.Patience = max(o.Patience, 0)
	if o.Patience == 0 {
		o.Patience = max(defaultPatience, 2*s.opTime())
	}
	return &mover{s: s, o: o, progress: MoveProgress{Total: total}, why: map[uuid.UUID]string{}, good: time.Now()}
}

type moveWork func(context.Context, moveItem) (MoveResult, error)

func (m *mover) run(ctx context.Context, next moveSource, do moveWork) error {
	for {
		items, err := m.page(ctx, next)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			break
		}
		m.round(ctx, items, do)
	}
	for ctx.Err() == nil && !m.exhausted() && len(m.later) > 0 {
		again := m.later
		m.later = nil
		if !m.o.DryRun {
			m.s.repairExpired(ctx, always) // of processes that have died, if no replica serves
		}
		m.round(ctx, again, do)
	}
	return m.finish(ctx)
}

// page reads the next items, and tries that again like the work itself.
func (m *mover) page(ctx context.Context, next moveSource) ([]moveItem, error) {
	for {
		if m.pause(ctx) != nil || m.exhausted() {
			return nil, nil
		}
		items, err := next(ctx)
		if err == nil || ctx.Err() != nil {
			return items, nil
		}
		m.failed(fmt.Errorf("database: %w", err))
		if m.exhausted() {
			return nil, err
		}
	}
}

// round has the items worked on, and returns when all of them are.
func (m *mover) round(ctx context.Context, items []moveItem, do moveWork) {
	queue := make(chan moveItem)
	var workers sync.WaitGroup
	for range min(moveWorkers, len(items)) {
		workers.Go(func() {
			for it := range queue {
				if m.pause(ctx) != nil || m.exhausted() {
					m.putOff(it, nil)
					continue
				}
				r, err := do(ctx, it)
				if err != nil {
					m.putOff(it, err)
					continue
				}
				m.settled(r)
			}
		})
	}
	for _, it := range items {
		queue <- it
	}
	close(queue)
	workers.Wait()
}

// settled notes a final outcome.
func (m *mover) settled(r MoveResult) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.why, r.ProviderID)
	m.progress.Done++
	if r.Outcome.Bad() {
		m.progress.Bad++
	}
	m.failures, m.good = 0, time.Now()
	m.progress.Waiting = ""
	m.o.Report(r)
	m.tell()
}

// putOff leaves an item for later, err being why, nil if it was not begun.
func (m *mover) putOff(it moveItem, err error) {
	if err != nil {
		m.failed(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.later = append(m.later, it)
	if err != nil {
		m.why[it.provider.ID] = failureText(err)
	}
}

// failed makes everybody pause.
func (m *mover) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wait := min(firstPause<<min(m.failures, 10), longestPause)
	if asked, ok := secret.RetryAfter(err); ok {
		wait = asked
	}
	m.failures++
	if until := time.Now().Add(wait); until.After(m.until) {
		m.until = until
	}
	m.progress.Waiting = waitingFor(err)
	m.tell()
}

// waitingFor says in a few words what a pause is for.
func waitingFor(err error) string {
	switch {
	case errors.Is(err, ErrBusy):
		return "another change of a provider is under way, or a process that has died had begun one"
	case errors.Is(err, secret.ErrThrottled):
		return "the secret backend asks for fewer requests"
	}
	return failureText(err)
}

// pause waits for the end of a pause, and fails if ctx ends.
func (m *mover) pause(ctx context.Context) error {
	for {
		m.mu.Lock()
		wait := time.Until(m.until)
		m.mu.Unlock()
		if wait <= 0 {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// exhausted reports whether nothing has succeeded for too long.
func (m *mover) exhausted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failures > 0 && time.Since(m.good) > m.o.Patience
}

// tell tells of the progress, not too often.
func (m *mover) tell() {
	now := time.Now()
	if m.o.Progress == nil || m.progress.Waiting == "" && now.Sub(m.told) < moveEvents {
		return
	}
	m.told, m.progress.Later = now, len(m.later)
	m.o.Progress(m.progress)
}

// finish reports what was given up, and says whether something was not begun at all.
func (m *mover) finish(ctx context.Context) error {
	exhausted := m.exhausted()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range m.later {
		why, tried := m.why[it.provider.ID]
		if !tried {
			continue
		}
		m.progress.Done++
		m.progress.Bad++
		m.o.Report(MoveResult{ProviderID: it.provider.ID, Name: it.provider.Profile.Name, Outcome: MoveFailed, Detail: why})
	}
	if m.o.Progress != nil {
		m.progress.Later, m.progress.Waiting = 0, ""
		m.o.Progress(m.progress)
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: interrupted; run it again to go on", ErrUnfinishedMove)
	case exhausted:
		return fmt.Errorf("%w: nothing has succeeded for %s; run it again to go on", ErrUnfinishedMove, m.o.Patience)
	}
	return nil
}

package gcpsecretmanager

import (
	"context"
	"sync"
	"time"
)

// written is what the backend itself has written last to a secret.
type written struct {
	number int64 // 0: nothing is there any more
	owner  string
	at     time.Time
	// removed is when it last removed the secret or a version. For a while the newest
	// version that is seen may be the removed one, also after another one was written.
	removed time.Time
	// abandoned is the nonce of its last announcement whose answer was lost: if it is
	// there, nothing follows it.
	abandoned string
}

// How long what was written or removed is taken for newer than what is seen to the
// contrary. Secret Manager promises minutes, as a rule.
const (
	ownerLag   = time.Minute
	removedLag = 10 * time.Minute
)

// inDoubt reports whether the newest version that is seen may be one that was removed.
func (w written) inDoubt() bool { return !w.removed.IsZero() && time.Since(w.removed) < removedLag }

// recent remembers the last writes of this process: a reading of the newest version may
// lag behind them. The zero recent is ready for use.
type recent struct {
	mu    sync.Mutex
	of    map[string]written
	order []string // of the names in of, oldest first
}

// maxRecent bounds how many secrets are remembered. What lags longer than it takes to
// write to so many others is read late.
const maxRecent = 4096

// wrote notes a version that was written, or whose owner was.
func (r *recent) wrote(name string, number int64, owner string) {
	r.note(name, func(w *written) { w.number, w.owner, w.at = number, owner, time.Now() })
}

// abandoned notes an announcement that may be there and that nothing will follow.
func (r *recent) abandoned(name, nonce string) {
	r.note(name, func(w *written) { w.abandoned = nonce })
}

// removed notes that nothing that was written before is there any more.
func (r *recent) removed(name string) {
	r.note(name, func(w *written) { *w = written{removed: time.Now()} })
}

// removedVersion notes that a version is not there any more.
func (r *recent) removedVersion(name string, number int64) {
	r.note(name, func(w *written) {
		if w.number == number {
			w.number, w.owner = 0, ""
		}
		w.removed = time.Now()
	})
}

func (r *recent) note(name string, change func(*written)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]written{}
	}
	w, there := r.of[name]
	if !there {
		r.order = append(r.order, name)
	}
	change(&w)
	r.of[name] = w
	for len(r.of) > maxRecent {
		delete(r.of, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *recent) get(name string) written {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[name]
}

// locks serialise the writers of this process on one secret, so that they wait for each
// other here and not by asking the store. The zero locks are ready for use.
type locks struct {
	mu sync.Mutex
	of map[string]*lock
}

type lock struct {
	held  chan struct{} // holds an element while somebody holds the lock
	users int
}

// lock waits for the lock of a secret, or for the end of ctx.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.of == nil {
		l.of = map[string]*lock{}
	}
	k := l.of[name]
	if k == nil {
		k = &lock{held: make(chan struct{}, 1)}
		l.of[name] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.of, name)
		}
	}
	if err := ctx.Err(); err != nil { // else the choice below would be at random
		leave()
		return nil, err
	}
	select {
	case k.held <- struct{}{}:
		return func() { <-k.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

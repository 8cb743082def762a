package gcpsecretmanager

import (
	"context"
	"sync"
)

// written is what the backend itself has written last to a secret.
type written struct {
	number int64
	owner  string
}

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

func (r *recent) remember(name string, w written) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]written{}
	}
	if _, there := r.of[name]; !there {
		r.order = append(r.order, name)
	}
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

func (r *recent) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.of[name]; !there {
		return
	}
	delete(r.of, name)
	for i, n := range r.order {
		if n == name {
			r.order = append(r.order[:i:i], r.order[i+1:]...)
			return
		}
	}
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

package credentials

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// reopenEvery is how long a backend that could not be opened is not tried again: a file
// that its configuration names may be mounted meanwhile.
const reopenEvery = 15 * time.Second

// sources are the backends by name: the configured ones, and further ones that are
// opened when a row first names them. It is safe for concurrent use.
type sources struct {
	open  func(name string) (*source, error) // nil: there are no further ones
	clock func() time.Duration

	opening sync.Mutex // one is opened at a time; before mu
	failed  map[string]failedOpening

	mu     sync.RWMutex // guards what follows
	byName map[string]*source
	order  []*source // as they were configured or opened
}

type failedOpening struct {
	err error
	at  time.Duration
}

func (all *sources) add(src *source) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.byName == nil {
		all.byName = make(map[string]*source)
	}
	all.byName[src.name] = src
	all.order = append(all.order, src)
}

// known returns a backend that is open, nil if it is not.
func (all *sources) known(name string) *source {
	all.mu.RLock()
	defer all.mu.RUnlock()
	return all.byName[name]
}

// list returns the backends that are open.
func (all *sources) list() []*source {
	all.mu.RLock()
	defer all.mu.RUnlock()
	return all.order[:len(all.order):len(all.order)]
}

// unopened returns the names of the further backends that rows name and that could not be
// opened. It tries them again, each no sooner than find does.
func (all *sources) unopened() []string {
	all.opening.Lock()
	names := slices.Sorted(maps.Keys(all.failed))
	all.opening.Unlock()
	return slices.DeleteFunc(names, func(name string) bool {
		src, _ := all.find(name)
		return src != nil
	})
}

// find returns the named backend, opening it if it is a further one. The error says why
// there is none.
func (all *sources) find(name string) (*source, error) {
	if src := all.known(name); src != nil {
		return src, nil
	}
	if all.open == nil || name == "" {
		return nil, nil
	}
	all.opening.Lock()
	defer all.opening.Unlock()
	if src := all.known(name); src != nil {
		return src, nil // by somebody who was faster
	}
	if f, ok := all.failed[name]; ok && all.clock()-f.at < reopenEvery {
		return nil, f.err
	}
	src, err := all.open(name)
	if err != nil {
		if all.failed == nil {
			all.failed = make(map[string]failedOpening)
		}
		all.failed[name] = failedOpening{err, all.clock()}
		return nil, err
	}
	delete(all.failed, name)
	all.add(src)
	return src, nil
}

// NotConfiguredError reports a row that names a backend which this broker is not
// configured for. It wraps ErrNotConfigured and secret.ErrDenied.
type NotConfiguredError struct {
	Backend string
	Where   string // the key, or the references
	// Reason says which variables are missing or wrong, for anybody to read; nil if there
	// is no such backend.
	Reason error
}

// Error implements error.
func (e *NotConfiguredError) Error() string {
	text := fmt.Sprintf("%v: the credentials at %q are kept in %q", ErrNotConfigured, e.Where, e.Backend)
	if e.Reason != nil {
		text += ": " + e.Reason.Error()
	}
	return text
}

// Unwrap tells it from a denial by the backend itself.
func (e *NotConfiguredError) Unwrap() []error { return []error{ErrNotConfigured, secret.ErrDenied} }

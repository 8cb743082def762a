package awssecretsmanager

import (
	"context"
	"sync"
)

// keyLocks serialises the writes of this process to one key. Writers of other processes
// are kept apart by AWS. The zero keyLocks are ready.
type keyLocks struct {
	mu   sync.Mutex
	keys map[string]*keyLock
}

type keyLock struct {
	free    chan struct{} // holds one token while nobody writes
	waiting int           // those who have it or want it
}

// lock waits for key's lock, or until ctx ends.
func (l *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	k := l.keys[key]
	if k == nil {
		k = &keyLock{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		if l.keys == nil {
			l.keys = map[string]*keyLock{}
		}
		l.keys[key] = k
	}
	k.waiting++
	l.mu.Unlock()
	if ctx.Err() == nil {
		select {
		case <-k.free:
			return func() {
				k.free <- struct{}{}
				l.leave(key, k)
			}, nil
		case <-ctx.Done():
		}
	}
	l.leave(key, k)
	return nil, errEnded
}

func (l *keyLocks) leave(key string, k *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.waiting--; k.waiting == 0 {
		delete(l.keys, key)
	}
}

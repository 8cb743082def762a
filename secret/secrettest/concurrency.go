package secrettest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// callers is how many call at the same time, rounds how often.
const (
	callers = 16
	rounds  = 8
)

func inParallel(n int, do func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			do(i)
		})
	}
	close(start)
	wg.Wait()
}

func (s *suite) manyKeys(t *testing.T, b secret.SecretBackend) {
	prefix := s.prefix()
	keys := make([]string, callers)
	last := make([]string, callers)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s/%d/client_secret", prefix, i)
		s.cleanup(t, b, keys[i])
	}
	inParallel(callers, func(i int) {
		for round := range rounds {
			last[i] = s.value()
			if err := b.Set(bounded(t), keys[i], last[i]); err != nil {
				t.Errorf("Set: %v", err)
			}
			if got, err := b.Get(bounded(t), keys[i]); err != nil || got != last[i] {
				t.Errorf("Get after Set of a key that nobody else writes: another value, or %v", err)
			}
			if round%3 == 0 {
				if err := b.Delete(bounded(t), keys[i]); err != nil {
					t.Errorf("Delete: %v", err)
				}
				if _, err := b.Get(bounded(t), keys[i]); !errors.Is(err, secret.ErrNotFound) {
					t.Errorf("Get after Delete: %v", err)
				}
			}
		}
	})
	for i := range keys {
		wantValue(t, b, keys[i], last[i])
	}
}

func (s *suite) oneKey(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_secret")
	written := make(map[string]bool)
	values := make([]string, callers*rounds)
	for i := range values {
		values[i] = legalValues["MaxLengthEscape"][:1000] + s.value()
		written[values[i]] = true
	}
	mustSet(t, b, key, values[0])
	get := func(ctx context.Context) {
		got, err := b.Get(ctx, key)
		switch {
		case err == nil && !written[got]:
			t.Errorf("Get returns what nobody has set: %s", shorten(got))
		case err != nil && !errors.Is(err, secret.ErrNotFound):
			t.Errorf("Get: %v", err)
		}
	}
	var writing atomic.Int32
	writing.Store(callers * 3 / 4)
	inParallel(callers, func(i int) {
		ctx := bounded(t)
		if i%4 == 3 {
			for writing.Load() > 0 {
				get(ctx)
				time.Sleep(100 * time.Microsecond)
			}
			return
		}
		defer writing.Add(-1)
		for round := range rounds {
			if i%4 == 2 {
				if err := b.Delete(ctx, key); err != nil {
					t.Errorf("Delete: %v", err)
				}
			} else if err := b.Set(ctx, key, values[i*rounds+round]); err != nil {
				t.Errorf("Set: %v", err)
			}
			get(ctx)
		}
	})
	mustSet(t, b, key, "the end")
	wantValue(t, b, key, "the end")
}

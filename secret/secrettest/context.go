package secrettest

import (
	"context"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

func (s *suite) cancelled(t *testing.T, b secret.SecretBackend) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.ended(ctx, t, b, context.Canceled)
}

func (s *suite) deadline(t *testing.T, b secret.SecretBackend) {
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	s.ended(ctx, t, b, context.DeadlineExceeded)
}

// ended checks that no call does anything once ctx has ended, and that the backend
// works afterwards.
func (s *suite) ended(ctx context.Context, t *testing.T, b secret.SecretBackend, want error) {
	there, absent := s.key(t, b, "there"), s.key(t, b, "absent")
	mustSet(t, b, there, "before")
	for _, c := range calls(b) {
		for _, key := range []string{there, absent} {
			if c.name == "Create" && key == there {
				continue
			}
			wantOnly(t, c.do(ctx, key, "after", owner), want, c.name+" with a ctx that has ended")
		}
	}
	wantValue(t, b, there, "before")
	wantMissing(t, b, absent)
	mustSet(t, b, absent, "works again")
	wantValue(t, b, absent, "works again")
}

func (s *suite) interruptedSet(t *testing.T, b secret.SecretBackend) {
	for i := range 20 {
		// A key for each, because an interrupted write may still arrive later.
		key, old, value := s.key(t, b, "client_secret"), s.value(), s.value()
		mustSet(t, b, key, old)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*100*time.Microsecond)
		err := b.Set(ctx, key, value)
		cancel()
		if err != nil {
			wantOnly(t, err, context.DeadlineExceeded, "an interrupted Set")
		}
		got, getErr := b.Get(bounded(t), key)
		if getErr != nil {
			t.Fatalf("Get after an interrupted Set: %v", getErr)
		}
		if got != value && (err == nil || got != old) {
			t.Fatalf("Get after a Set that returned %v is neither the old value nor the new", err)
		}
	}
}

package gcpsecretmanager_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

// crash lets n requests through, and none after them: what the server sees of a process
// that is killed.
func crash(n int) gcpserver.Interceptor {
	var seen atomic.Int64
	return func(ctx context.Context, _ string, req any, next gcpserver.Next) (any, error) {
		if seen.Add(1) > int64(n) {
			return nil, status.Error(codes.Unavailable, gcpserver.ForeignText)
		}
		return next(ctx, req)
	}
}

// later is a clock that is ahead, by which announcements have ended.
func later() time.Time { return time.Now().Add(time.Minute) }

// TestAWriteThatIsCutOff kills the process after each request of a write, and looks with
// another one: there is the old value with its owner, or the new one with its own; and a
// person's version that comes then is nobody's.
func TestAWriteThatIsCutOff(t *testing.T) {
	t.Parallel()
	const owner = "nexus-broker/" + provider + "/2"
	for op, write := range map[string]func(context.Context, *gcpsecretmanager.GCPBackend) error{
		"Create": func(ctx context.Context, b *gcpsecretmanager.GCPBackend) error {
			_, err := b.Create(ctx, key, "new", owner)
			return err
		},
		"Replace": func(ctx context.Context, b *gcpsecretmanager.GCPBackend) error {
			_, err := b.Replace(ctx, key, "new", owner, "1")
			return err
		},
	} {
		for n := range 8 {
			t.Run(fmt.Sprint(op, " after ", n), func(t *testing.T) {
				s, p, b := fresh(t)
				if op == "Replace" {
					create(t, b, "old")
				}
				s.Forget()
				s.Intercept(crash(n))
				err := write(t.Context(), b)
				added := slices.ContainsFunc(s.Calls(), func(c gcpserver.Call) bool { return c.Method == "AddSecretVersion" && c.Code == codes.OK })
				s.Intercept(nil)
				if !added && !isOnly(t, err, secret.ErrUnavailable) {
					t.Errorf("it was cut off and says %v", err)
				}
				other := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{Now: later})
				item, readErr := other.Read(t.Context(), key)
				switch {
				case added && item.Value.Reveal() == "new" && item.Owner == owner:
				case !added && op == "Replace" && item.Value.Reveal() == "old" && item.Owner == somebody:
				case !added && op == "Create" && isOnly(t, readErr, secret.ErrNotFound):
				default:
					t.Errorf("added: %t, there is %q of %q, %v", added, item.Value.Reveal(), item.Owner, readErr)
				}
				if p.states() != nil {
					p.add("a person's")
					if item, err := other.Read(t.Context(), key); err != nil || item.Owner != "" || item.Value.Reveal() != "a person's" {
						t.Errorf("a person's version has the owner %q, %v", item.Owner, err)
					}
				}
				if err := other.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				create(t, other, "again")
			})
		}
	}
}

// Whoever has lost the answer to his own announcement knows that nothing follows it, and
// need not wait for its end.
func TestAnAnnouncementWhoseAnswerIsLostHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for method, write := range map[string]func(context.Context, *gcpsecretmanager.GCPBackend) error{
		"UpdateSecret": func(ctx context.Context, b *gcpsecretmanager.GCPBackend) error {
			_, err := b.Replace(ctx, key, "new", somebody, "1")
			return err
		},
		"CreateSecret": func(ctx context.Context, b *gcpsecretmanager.GCPBackend) error {
			_, err := b.Create(ctx, key, "new", somebody)
			return err
		},
	} {
		t.Run(method, func(t *testing.T) {
			s, _, b := fresh(t)
			if method == "UpdateSecret" {
				create(t, b, "old")
			}
			s.Intercept(gcpserver.LoseAnswer(method))
			if err := write(t.Context(), b); !isOnly(t, err, secret.ErrUnavailable) {
				t.Fatalf("the answer is lost: %v", err)
			}
			s.Intercept(nil)
			soon, cancel := context.WithTimeout(t.Context(), 10*time.Second) // an announcement lasts for 15
			defer cancel()
			if err := write(soon, b); err != nil {
				t.Fatal(err)
			}
			if item, err := b.Read(t.Context(), key); err != nil || item.Value.Reveal() != "new" || item.Owner != somebody {
				t.Errorf("there is %q of %q, %v", item.Value.Reveal(), item.Owner, err)
			}
		})
	}
}

func TestAnAnnouncementThatNothingFollowsEnds(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	create(t, b, "old")
	s.Intercept(gcpserver.Fail(codes.Unavailable, "AddSecretVersion"))
	if _, err := b.Replace(t.Context(), key, "lost", somebody, "1"); !isOnly(t, err, secret.ErrUnavailable) {
		t.Fatalf("%v", err)
	}
	s.Intercept(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := b.Replace(ctx, key, "x", somebody, "1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the addition may still arrive: %v", err)
	}
	other := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{Now: later})
	if version, err := other.Replace(t.Context(), key, "next", "o", "1"); err != nil || version != "2" {
		t.Errorf("afterwards: %q, %v", version, err)
	}
}

func TestAWaitingWriterSettlesWhatWasAdded(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	create(t, b, "old")
	s.Intercept(gcpserver.LoseAnswer("AddSecretVersion"))
	if _, err := b.Replace(t.Context(), key, "new", "first", "1"); !isOnly(t, err, secret.ErrUnavailable) {
		t.Fatalf("%v", err)
	}
	s.Intercept(nil)
	other := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{}) // without waiting for the end
	if _, err := other.Replace(t.Context(), key, "x", "second", "1"); !isOnly(t, err, secret.ErrChanged) {
		t.Errorf("%v", err)
	}
	wantItem(t, other, "new", "2", "first")
	if version, err := other.Replace(t.Context(), key, "next", "second", "2"); err != nil || version != "3" {
		t.Errorf("%q, %v", version, err)
	}
}

// slip does something just before the first request of a method.
func slip(method string, do func()) gcpserver.Interceptor {
	var once sync.Once
	return func(ctx context.Context, m string, req any, next gcpserver.Next) (any, error) {
		if m == method {
			once.Do(do)
		}
		return next(ctx, req)
	}
}

func TestAPersonWhoComesBetween(t *testing.T) {
	t.Parallel()
	for op, want := range map[string]error{"Create": secret.ErrExists, "Replace": secret.ErrChanged} {
		for _, method := range []string{"GetSecret", "UpdateSecret", "AddSecretVersion"} {
			t.Run(op+" before "+method, func(t *testing.T) {
				s, p, b := fresh(t)
				p.create()
				if op == "Replace" {
					p.add("old")
				}
				s.Intercept(slip(method, func() { p.add("theirs") }))
				var err error
				if op == "Create" {
					_, err = b.Create(t.Context(), key, "ours", somebody)
				} else {
					_, err = b.Replace(t.Context(), key, "ours", somebody, "1")
				}
				if !isOnly(t, err, want) {
					t.Errorf("%v, want %v", err, want)
				}
				if item, err := b.Read(t.Context(), key); err != nil || item.Value.Reveal() != "theirs" || item.Owner != "" {
					t.Errorf("there is %q of %q, %v", item.Value.Reveal(), item.Owner, err)
				}
			})
		}
	}
}

// A writer whose announcement has ended while it was on its way takes its version back.
func TestAnAdditionThatComesTooLate(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	create(t, b, "old")
	other := open(t, s, gcpsecretmanager.Config{KeepVersions: 9}, gcpsecretmanager.Options{Now: later})
	s.Intercept(slip("AddSecretVersion", func() {
		s.Intercept(nil)
		if version, err := other.Replace(context.Background(), key, "newer", "other", "1"); err != nil || version != "2" {
			t.Errorf("the other one: %q, %v", version, err)
		}
	}))
	if _, err := b.Replace(t.Context(), key, "late", somebody, "1"); !isOnly(t, err, secret.ErrChanged) {
		t.Errorf("%v", err)
	}
	wantItem(t, other, "newer", "2", "other")
	p.wantStates("3 DESTROYED", "2 ENABLED", "1 ENABLED")
}

func TestASecretThatIsDeletedAndMadeAnewMeanwhile(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	for range 3 {
		set(t, b, fmt.Sprint(time.Now().UnixNano()))
	}
	other := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
	s.Intercept(slip("AddSecretVersion", func() {
		s.Intercept(nil)
		if err := other.Delete(context.Background(), key); err != nil {
			t.Error(err)
		}
		if _, err := other.Create(context.Background(), key, "newer", "other"); err != nil {
			t.Error(err)
		}
	}))
	if _, err := b.Replace(t.Context(), key, "late", somebody, "3"); !isOnly(t, err, secret.ErrChanged) {
		t.Errorf("%v", err)
	}
	wantItem(t, other, "newer", "1", "other")
}

// TestManyProcesses lets several backends, each with a memory and locks of its own,
// compete for one key.
func TestManyProcesses(t *testing.T) {
	t.Parallel()
	for _, lag := range []time.Duration{0, 10 * time.Millisecond} {
		t.Run(fmt.Sprint("lag ", lag), func(t *testing.T) {
			s := gcpserver.Start(t)
			s.Lag(lag)
			var all []*gcpsecretmanager.GCPBackend
			for range 6 {
				all = append(all, open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{}))
			}
			compete := func(want error, write func(b *gcpsecretmanager.GCPBackend, value string) (string, error)) (version, value string) {
				t.Helper()
				var wg sync.WaitGroup
				var mu sync.Mutex
				winners := 0
				for i, b := range all {
					wg.Go(func() {
						v := fmt.Sprint("value of ", i, " at ", time.Now().UnixNano())
						n, err := write(b, v)
						mu.Lock()
						defer mu.Unlock()
						if err == nil {
							winners, version, value = winners+1, n, v
						} else if !isOnly(t, err, want) {
							t.Errorf("%v", err)
						}
					})
				}
				wg.Wait()
				if winners != 1 {
					t.Fatalf("%d have succeeded", winners)
				}
				return version, value
			}
			version, value := compete(secret.ErrExists, func(b *gcpsecretmanager.GCPBackend, value string) (string, error) {
				return b.Create(t.Context(), key, value, somebody)
			})
			for range 4 {
				version, value = compete(secret.ErrChanged, func(b *gcpsecretmanager.GCPBackend, value string) (string, error) {
					return b.Replace(t.Context(), key, value, somebody, version)
				})
				wait(t, "the last value is there", func() bool {
					item, err := all[0].Read(t.Context(), key)
					return err == nil && item.Value.Reveal() == value && item.Version == version && item.Owner == somebody
				})
			}
		})
	}
}

// wait polls for a condition, with a generous limit.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func TestUnrelatedChangesDoNotDisturbAWrite(t *testing.T) {
	t.Parallel()
	s, p, b := fresh(t)
	create(t, b, "old")
	var changes atomic.Int64
	s.Intercept(func(ctx context.Context, m string, req any, next gcpserver.Next) (any, error) {
		if m == "UpdateSecret" && changes.Add(1) <= 5 { // a person's labels, each time between reading and writing
			x := p.secret()
			_, err := s.UpdateSecret(ctx, &secretmanagerpb.UpdateSecretRequest{
				Secret:     &secretmanagerpb.Secret{Name: x.GetName(), Labels: map[string]string{"n": fmt.Sprint(changes.Load())}},
				UpdateMask: mask("labels"),
			})
			p.must(err)
		}
		return next(ctx, req)
	})
	version, err := b.Replace(t.Context(), key, "new", somebody, "1")
	if err != nil || version != "2" {
		t.Errorf("%q, %v", version, err)
	}
	wantItem(t, open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{}), "new", "2", somebody)
}

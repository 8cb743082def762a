package backend_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

const canary = "c4n4ry-client-secret"

// Backends that implement a part of what there is.
type (
	bare    struct{ secret.SecretBackend }
	located struct {
		secret.SecretBackend
		secret.Locator
	}
	probed struct {
		secret.SecretBackend
		secret.Prober
	}
	locatedProbed struct {
		secret.SecretBackend
		secret.Locator
		secret.Prober
	}
	owned        struct{ secret.OwnedBackend }
	ownedLocated struct {
		secret.OwnedBackend
		secret.Locator
	}
	ownedProbed struct {
		secret.OwnedBackend
		secret.Prober
	}
	ownedLocatedProbed struct {
		secret.OwnedBackend
		secret.Locator
		secret.Prober
	}
	versioned struct {
		secret.OwnedBackend
		secret.VersionRemover
	}
	versionedLocated struct {
		versioned
		secret.Locator
	}
	versionedProbed struct {
		versioned
		secret.Prober
	}
)

func TestDecorateKeepsWhatTheBackendCanDo(t *testing.T) {
	m := memory.New()
	for _, b := range []secret.SecretBackend{
		bare{m}, located{m, m}, probed{m, m}, locatedProbed{m, m, m},
		owned{m}, ownedLocated{m, m}, ownedProbed{m, m}, ownedLocatedProbed{m, m, m},
		versioned{m, m}, versionedLocated{versioned{m, m}, m}, versionedProbed{versioned{m, m}, m}, m,
	} {
		t.Run(fmt.Sprintf("%T", b), func(t *testing.T) {
			d := backend.Decorate(b, backend.Options{Name: "memory", Timeout: time.Second})

			_, is := b.(secret.OwnedBackend)
			_, stays := d.(secret.OwnedBackend)
			require.Equal(t, is, stays, "OwnedBackend")
			_, is = b.(secret.VersionRemover)
			_, stays = d.(secret.VersionRemover)
			require.Equal(t, is, stays, "VersionRemover")
			_, is = b.(secret.Prober)
			_, stays = d.(secret.Prober)
			require.Equal(t, is, stays, "Prober")
			l, is := b.(secret.Locator)
			dl, stays := d.(secret.Locator)
			require.Equal(t, is, stays, "Locator")
			if is {
				require.Equal(t, l.Locate("google"), dl.Locate("google"))
			}
		})
	}
}

func TestEveryCallHasADeadline(t *testing.T) {
	calls := map[memory.Op]func(context.Context, secret.OwnedBackend) error{
		memory.OpGet:    func(ctx context.Context, b secret.OwnedBackend) error { _, err := b.Get(ctx, "k"); return err },
		memory.OpSet:    func(ctx context.Context, b secret.OwnedBackend) error { return b.Set(ctx, "k", canary) },
		memory.OpDelete: func(ctx context.Context, b secret.OwnedBackend) error { return b.Delete(ctx, "k") },
		memory.OpRead:   func(ctx context.Context, b secret.OwnedBackend) error { _, err := b.Read(ctx, "k"); return err },
		memory.OpCreate: func(ctx context.Context, b secret.OwnedBackend) error {
			_, err := b.Create(ctx, "k", canary, "o")
			return err
		},
		memory.OpReplace: func(ctx context.Context, b secret.OwnedBackend) error {
			_, err := b.Replace(ctx, "k", canary, "o", "")
			return err
		},
		memory.OpRemoveVersion: func(ctx context.Context, b secret.OwnedBackend) error {
			return b.(secret.VersionRemover).RemoveVersion(ctx, "k", "1")
		},
		memory.OpProbe: func(ctx context.Context, b secret.OwnedBackend) error {
			return b.(secret.Prober).Probe(ctx, secret.ReadWrite)
		},
	}
	for op, call := range calls {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faulty := memory.NewFaulty(memory.New())
				faulty.Stall(op)
				b := backend.Decorate(faulty, backend.Options{Name: "hashicorp-vault", Timeout: 5 * time.Second}).(secret.OwnedBackend)

				// Ours: an outage.
				start := time.Now()
				err := call(t.Context(), b)
				require.Equal(t, 5*time.Second, time.Since(start))
				require.ErrorIs(t, err, secret.ErrUnavailable)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "hashicorp-vault")
				require.ErrorContains(t, err, string(op))
				require.ErrorContains(t, err, "SECRET_TIMEOUT")

				// The caller's deadline: no sentinel.
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err = call(ctx, b)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, secret.ErrUnavailable)

				// The caller's cancellation: no sentinel.
				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				err = call(ctx, b)
				require.ErrorIs(t, err, context.Canceled)
				require.NotErrorIs(t, err, secret.ErrUnavailable)
			})
		})
	}
}

// A definite answer counts, however late it was.
func TestAnswerAtTheDeadlineIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faulty := memory.NewFaulty(memory.New())
		faulty.Before(func(ctx context.Context, _ memory.Call) error {
			<-ctx.Done()
			return fmt.Errorf("get k: %w", secret.ErrDenied)
		})
		_, err := backend.Decorate(faulty, backend.Options{Timeout: time.Second}).Get(t.Context(), "k")
		require.ErrorIs(t, err, secret.ErrDenied)
		require.NotErrorIs(t, err, secret.ErrUnavailable)
	})
}

func TestCallsAreCountedAndLoggedByClass(t *testing.T) {
	for err, class := range map[error]string{
		nil:                          "ok",
		secret.ErrNotFound:           "not_found",
		secret.ErrDenied:             "denied",
		secret.ErrUnavailable:        "unavailable",
		secret.Throttled("slow", 1):  "throttled",
		secret.ErrInvalid:            "invalid",
		secret.ErrExists:             "exists",
		secret.ErrChanged:            "changed",
		context.Canceled:             "canceled",
		context.DeadlineExceeded:     "canceled",
		errors.New("not a sentinel"): "unknown",
	} {
		t.Run(class, func(t *testing.T) {
			var log bytes.Buffer
			reg := prometheus.NewRegistry()
			faulty := memory.NewFaulty(memory.New())
			b := backend.Decorate(faulty, backend.Options{
				Name: "hashicorp-vault", Timeout: time.Minute, Metrics: metrics.New(reg),
				Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			})
			faulty.Before(func(context.Context, memory.Call) error {
				if err == nil {
					return nil
				}
				return fmt.Errorf("set google/client_secret: %w", err)
			})
			got := b.Set(t.Context(), "google/client_secret", canary)
			require.ErrorIs(t, got, err)

			require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`
# HELP nexus_secret_calls_total Calls to secret backends, by backend, operation and class of their outcome.
# TYPE nexus_secret_calls_total counter
nexus_secret_calls_total{backend="hashicorp-vault",class=%q,operation="set"} 1
`, class)), "nexus_secret_calls_total"))
			for _, want := range []string{
				`"level":"DEBUG"`, `"backend":"hashicorp-vault"`, `"operation":"set"`, `"key":"google/client_secret"`,
				fmt.Sprintf(`"class":%q`, class), `"duration":`,
			} {
				require.Contains(t, log.String(), want)
			}
			require.NotContains(t, log.String(), canary)
		})
	}
}

func TestNoVerbShowsAValue(t *testing.T) {
	m := memory.New()
	b := backend.Decorate(m, backend.Options{Name: "memory", Timeout: time.Minute})
	require.NoError(t, b.Set(t.Context(), "k", canary))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		require.NotContains(t, fmt.Sprintf(verb, b), canary, verb)
	}
}

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

// bare is a backend with the three methods alone.
type bare struct{ secret.SecretBackend }

// A capability that the backend lacks is not made up, whichever it is.
func TestDecorateKeepsWhatTheBackendCanDo(t *testing.T) {
	full := secret.CapabilitiesOf(everything{Backend: memory.New()})
	can := func(c secret.Capabilities) map[string]bool {
		return map[string]bool{
			"Owned": c.Owned != nil, "Versions": c.Versions != nil, "Remnants": c.Remnants != nil, "Locator": c.Locator != nil, "Prober": c.Prober != nil,
			"Batch": c.Batch != nil, "References": c.References != nil, "Diagnoser": c.Diagnoser != nil, "Policies": c.Policies != nil,
		}
	}
	without := map[string]func(c *secret.Capabilities){
		"nothing": func(*secret.Capabilities) {}, "Owned": func(c *secret.Capabilities) { c.Owned = nil },
		"Versions": func(c *secret.Capabilities) { c.Versions = nil }, "Remnants": func(c *secret.Capabilities) { c.Remnants = nil },
		"Locator": func(c *secret.Capabilities) { c.Locator = nil },
		"Prober":  func(c *secret.Capabilities) { c.Prober = nil }, "Batch": func(c *secret.Capabilities) { c.Batch = nil },
		"References": func(c *secret.Capabilities) { c.References = nil }, "Diagnoser": func(c *secret.Capabilities) { c.Diagnoser = nil },
		"Policies": func(c *secret.Capabilities) { c.Policies = nil },
	}
	for name, remove := range without {
		t.Run("without "+name, func(t *testing.T) {
			c := full
			remove(&c)
			d := backend.Decorate(c, backend.Options{Name: "memory", Timeout: time.Second})
			for field, is := range can(d) {
				require.Equal(t, field != name, is, field)
			}
			if d.Locator != nil {
				require.Equal(t, "memory/google", d.Locator.Locate("google"))
			}
			require.Equal(t, can(d), can(secret.CapabilitiesOf(d)), "found again")
		})
	}
	require.Equal(t, can(secret.Capabilities{}), can(backend.Decorate(bare{memory.New()}, backend.Options{})))
}

func anybody(string) bool { return true }

// everything is a backend that can do all there is.
type everything struct{ *memory.Backend }

func (everything) Diagnose(context.Context, secret.Access) []secret.Finding { return nil }
func (everything) Policy(context.Context, secret.Access) (string, error)    { return "", nil }

func decorateFaulty(f *memory.Faulty, o backend.Options) secret.Capabilities {
	c := secret.CapabilitiesOf(f)
	c.Batch = f.Batch()
	return backend.Decorate(c, o)
}

func TestEveryCallHasADeadline(t *testing.T) {
	calls := map[memory.Op]func(context.Context, secret.Capabilities) error{
		memory.OpGet:    func(ctx context.Context, b secret.Capabilities) error { _, err := b.Get(ctx, "k"); return err },
		memory.OpSet:    func(ctx context.Context, b secret.Capabilities) error { return b.Set(ctx, "k", canary) },
		memory.OpDelete: func(ctx context.Context, b secret.Capabilities) error { return b.Delete(ctx, "k") },
		memory.OpRead:   func(ctx context.Context, b secret.Capabilities) error { _, err := b.Owned.Read(ctx, "k"); return err },
		memory.OpCreate: func(ctx context.Context, b secret.Capabilities) error {
			_, err := b.Owned.Create(ctx, "k", canary, "o")
			return err
		},
		memory.OpReplace: func(ctx context.Context, b secret.Capabilities) error {
			_, err := b.Owned.Replace(ctx, "k", canary, "o", "")
			return err
		},
		memory.OpRemoveVersion: func(ctx context.Context, b secret.Capabilities) error {
			return b.Versions.RemoveVersion(ctx, "k", "1")
		},
		memory.OpRemoveRemnant: func(ctx context.Context, b secret.Capabilities) error {
			_, err := b.Remnants.RemoveRemnant(ctx, "k", anybody)
			return err
		},
		memory.OpProbe: func(ctx context.Context, b secret.Capabilities) error {
			return b.Prober.Probe(ctx, secret.ReadWrite)
		},
		memory.OpReadBatch: func(ctx context.Context, b secret.Capabilities) error {
			outcomes := b.Batch.ReadBatch(ctx, []string{"j", "k"})
			require.ErrorContains(t, outcomes[0].Err, " j: ")
			return outcomes[1].Err
		},
		memory.OpReadReference: func(ctx context.Context, b secret.Capabilities) error {
			_, err := b.References.ReadReference(ctx, secret.Reference{Path: "team-a/k"})
			return err
		},
	}
	for op, call := range calls {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faulty := memory.NewFaulty(memory.New())
				faulty.Stall(op)
				b := decorateFaulty(faulty, backend.Options{Name: "hashicorp-vault", Timeout: 5 * time.Second})

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

package backend_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// scripted returns the outcomes that it has, whatever it is asked.
type scripted struct{ outcomes []secret.Outcome }

func (s scripted) ReadBatch(context.Context, []string) []secret.Outcome { return s.outcomes }

// A batch is one call, whose class is that of its worst outcome.
func TestABatchIsCountedOnce(t *testing.T) {
	found := secret.Outcome{Item: secret.Item{Value: secret.NewValue(canary)}}
	missing := secret.Outcome{Err: fmt.Errorf("read b: %w", secret.ErrNotFound)}
	denied := secret.Outcome{Err: fmt.Errorf("read c: %w", secret.ErrDenied)}
	for class, outcomes := range map[string][]secret.Outcome{
		"ok": {found, found}, "not_found": {found, missing}, "denied": {missing, denied},
	} {
		var log bytes.Buffer
		reg := prometheus.NewRegistry()
		b := backend.Decorate(secret.Capabilities{SecretBackend: memory.New(), Batch: scripted{outcomes}}, backend.Options{
			Name: "aws-secrets-manager", Timeout: time.Minute, Metrics: metrics.New(reg),
			Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		require.Equal(t, outcomes, b.Batch.ReadBatch(t.Context(), []string{"google/client_id", "google/client_secret"}))
		require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`
# HELP nexus_secret_calls_total Calls to secret backends, by backend, operation and class of their outcome.
# TYPE nexus_secret_calls_total counter
nexus_secret_calls_total{backend="aws-secrets-manager",class=%q,operation="read_batch"} 1
`, class)), "nexus_secret_calls_total"))
		require.Contains(t, log.String(), `"key":"google/client_id google/client_secret"`)
		require.NotContains(t, log.String(), canary)
	}
}

// Answers that cannot be told apart are handed to nobody.
func TestABatchOfAnotherLengthIsNotUsed(t *testing.T) {
	one := []secret.Outcome{{Item: secret.Item{Value: secret.NewValue(canary)}}}
	b := backend.Decorate(secret.Capabilities{SecretBackend: memory.New(), Batch: scripted{one}}, backend.Options{Name: "memory"})
	outcomes := b.Batch.ReadBatch(t.Context(), []string{"a", "b"})
	require.Len(t, outcomes, 2)
	for _, o := range outcomes {
		require.ErrorIs(t, o.Err, secret.ErrUnavailable)
		require.Zero(t, o.Item)
	}
	require.False(t, errors.Is(outcomes[0].Err, context.DeadlineExceeded))
}

package backend_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// said are findings as "check verdict".
func said(findings []secret.Finding) (lines []string) {
	for _, f := range findings {
		lines = append(lines, f.Check+" "+string(f.Verdict))
	}
	return lines
}

// Every backend can be examined, whatever it can do.
func TestDiagnoseOfAnyBackend(t *testing.T) {
	for _, wrap := range []func(*memory.Backend) secret.SecretBackend{
		func(m *memory.Backend) secret.SecretBackend { return bare{m} },
		func(m *memory.Backend) secret.SecretBackend { return ownedOnly{m} },
		func(m *memory.Backend) secret.SecretBackend { return m },
	} {
		m := memory.New()
		b := wrap(m)
		steps := []string{"create ok", "read ok", "update ok", "delete ok"}
		reads := []string{"read ok"}
		if _, is := b.(secret.Prober); is {
			steps, reads = append([]string{"probe ok"}, steps...), append([]string{"probe ok"}, reads...)
		}
		require.Equal(t, steps, said(backend.Diagnose(t.Context(), b, secret.ReadWrite)))
		require.Equal(t, reads, said(backend.Diagnose(t.Context(), b, secret.ReadOnly)))
		require.Empty(t, m.Keys())
	}
}

// A backend that can examine itself is asked, and nothing else is done.
func TestDiagnoseAsksADiagnoser(t *testing.T) {
	d := diagnoser{memory.NewFaulty(memory.New())}
	require.Equal(t, []string{"itself warn"}, said(backend.Diagnose(t.Context(), d, secret.ReadWrite)))
	require.Empty(t, d.Calls())
}

// ownedOnly is a backend without the other things that memory can do.
type ownedOnly struct{ secret.OwnedBackend }

type diagnoser struct{ *memory.Faulty }

func (diagnoser) Diagnose(context.Context, secret.Access) []secret.Finding {
	return []secret.Finding{{Check: "itself", Verdict: secret.Warn}}
}

// What fails is named, with what to do, and nothing stays behind.
func TestDiagnoseOfAFailingBackend(t *testing.T) {
	for _, c := range []struct {
		op   memory.Op
		want []string
	}{
		{memory.OpProbe, []string{"probe fail"}},
		{memory.OpCreate, []string{"probe ok", "create fail"}},
		{memory.OpGet, []string{"probe ok", "create ok", "read fail"}},
		{memory.OpReplace, []string{"probe ok", "create ok", "read ok", "update fail", "delete ok"}},
		{memory.OpDelete, []string{"probe ok", "create ok", "read ok", "update ok", "delete fail", "leftover warn"}},
	} {
		m := memory.New()
		faulty := memory.NewFaulty(m)
		faulty.Fail(fmt.Errorf("memory: it: %w: ask for the right", secret.ErrDenied), c.op)
		findings := backend.Diagnose(t.Context(), faulty, secret.ReadWrite)
		require.Equal(t, c.want, said(findings))
		for _, f := range findings {
			require.Equal(t, f.Verdict == secret.Ok, f.Advice == "")
			if f.Verdict == secret.Fail {
				require.Equal(t, "ask for the right", f.Advice)
			}
		}
		if c.op != memory.OpDelete {
			require.Empty(t, m.Keys())
		}
	}
}

func TestDiagnoseWithReadOnlyWritesNothing(t *testing.T) {
	faulty := memory.NewFaulty(memory.New())
	backend.Diagnose(t.Context(), faulty, secret.ReadOnly)
	require.Zero(t, faulty.Count(memory.Writes...))
}

// The probe goes also if the context ends after it was written.
func TestDiagnoseRemovesItsProbe(t *testing.T) {
	m := memory.New()
	faulty := memory.NewFaulty(m)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	faulty.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpCreate {
			cancel()
			return context.Canceled
		}
		return nil
	})
	require.Equal(t, []string{"probe ok", "create fail"}, said(backend.Diagnose(ctx, faulty, secret.ReadWrite)))
	require.Empty(t, m.Keys())
}

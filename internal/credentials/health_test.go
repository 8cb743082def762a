package credentials_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

var errLogin = errors.Join(errors.New("login refused"), secret.ErrDenied, secret.ErrLogin)

func (b *bed) health(t *testing.T) credentials.Health {
	t.Helper()
	all := b.Health(t.Context())
	require.Len(t, all, 1)
	require.Equal(t, vault, all[0].Name)
	return all[0]
}

func TestHealthOfABackendInUseCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		started := time.Now()
		require.Equal(t, credentials.StatusOK, b.health(t).Status)
		require.Equal(t, 1, b.vault.Count(memory.OpProbe), "one probe to begin with")
		for range 60 {
			time.Sleep(time.Second)
			_, _ = b.Read(t.Context(), google())
			h := b.health(t)
			require.Equal(t, credentials.StatusOK, h.Status)
			require.Equal(t, started, h.Since)
			require.Empty(t, h.Message)
		}
		require.Equal(t, 1, b.vault.Count(memory.OpProbe))
	})
}

func TestHealthFollowsTheCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.put(t, "google", "id", "s3cret")
		require.Equal(t, credentials.StatusOK, b.health(t).Status)
		time.Sleep(time.Second)

		b.vault.Fail(errOutage)
		_, err := b.Read(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrUnavailable)
		since := time.Now()
		time.Sleep(time.Second)
		h := b.health(t)
		require.Equal(t, credentials.StatusUnavailable, h.Status)
		require.Equal(t, since, h.Since)
		require.NotEmpty(t, h.Message)
		require.NotContains(t, h.Message, "google", "health is public")

		b.vault.Fail(nil)
		_, err = b.Read(t.Context(), google())
		require.NoError(t, err)
		require.Equal(t, credentials.StatusOK, b.health(t).Status)
		require.Equal(t, time.Now(), b.health(t).Since)

		b.vault.Fail(errLogin)
		_, err = b.Read(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrDenied)
		require.Equal(t, credentials.StatusDenied, b.health(t).Status)
	})
}

// However often it is asked for.
func TestHealthDoesNotHammerABackendThatIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.vault.Fail(errOutage)
		for range 300 {
			require.Equal(t, credentials.StatusUnavailable, b.health(t).Status)
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, b.vault.Count(memory.OpProbe), 6, "30 s, one in 5")

		// It sees the recovery by itself.
		b.vault.Fail(nil)
		time.Sleep(5 * time.Second)
		require.Equal(t, credentials.StatusOK, b.health(t).Status)
	})
}

// An idle broker notices an outage too.
func TestHealthProbesAnIdleBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		require.Equal(t, credentials.StatusOK, b.health(t).Status)
		b.vault.Fail(errOutage)
		time.Sleep(16 * time.Second)
		require.Equal(t, credentials.StatusUnavailable, b.health(t).Status)
	})
}

// A probe that hangs makes nobody wait longer than he wants to, and is an outage as soon
// as it has hung for 3 s, whether or not anybody still asks.
func TestHealthOfABackendThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.vault.Stall()
		began := time.Now()
		for _, patience := range []time.Duration{300 * time.Millisecond, 0} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			require.Equal(t, credentials.StatusOK, b.Health(ctx)[0].Status, "nothing else is known yet")
			cancel()
		}
		require.Equal(t, 300*time.Millisecond, time.Since(began), "who asks next does not wait at all")
		time.Sleep(3 * time.Second)
		require.Equal(t, credentials.StatusUnavailable, b.health(t).Status)
		require.Equal(t, 1, b.vault.Count(memory.OpProbe))
		require.Less(t, time.Since(began), 4*time.Second)

		// Each of the next ones hangs too, and is waited for no longer.
		time.Sleep(3 * time.Second)
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		require.Equal(t, credentials.StatusUnavailable, b.Health(ctx)[0].Status)
		require.Equal(t, 2, b.vault.Count(memory.OpProbe))
		require.Equal(t, 300*time.Millisecond, time.Since(began))
	})
}

// The end of the service ends a probe that hangs.
func TestCloseEndsAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		b.vault.Stall()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		b.Health(ctx)
		b.Close()
		require.Equal(t, began, time.Now())
		require.Equal(t, credentials.StatusOK, b.health(t).Status, "that tells nothing of the backend")
	})
}

// One path that is denied is not a backend that is: a probe tells.
func TestDenialOfOneKeyIsSettledByAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		require.Equal(t, credentials.StatusOK, b.health(t).Status)
		time.Sleep(5 * time.Second)
		b.vault.Fail(secret.ErrDenied, memory.OpRead)
		_, err := b.Read(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrDenied)
		require.Equal(t, credentials.StatusOK, b.health(t).Status)
		require.Equal(t, 2, b.vault.Count(memory.OpProbe))

		time.Sleep(5 * time.Second)
		b.vault.Fail(secret.ErrDenied)
		_, err = b.Read(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrDenied)
		require.Equal(t, credentials.StatusDenied, b.health(t).Status)
		// Reads that work do not hide that a right is missing.
		b.vault.Fail(secret.ErrDenied, memory.OpProbe)
		_, err = b.Read(t.Context(), google())
		require.ErrorIs(t, err, secret.ErrNotFound)
		require.Equal(t, credentials.StatusDenied, b.health(t).Status)
	})
}

// The rights that are asked for are those the broker needs.
func TestProbeAsksForTheRightsInUse(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		probes := map[string]*prober{vault: {SecretBackend: memory.New()}, credentials.Internal: {SecretBackend: memory.New()}}
		b := newBed(t, func(o *credentials.Options) {
			o.Backends, o.ReadOnly = nil, readOnly
			for _, name := range []string{credentials.Internal, vault} {
				o.Backends = append(o.Backends, credentials.Backend{Name: name, Store: probes[name], External: name == vault})
			}
		})
		require.True(t, b.External())
		require.Equal(t, vault, b.WriteTo())
		all := b.Health(t.Context())
		require.Equal(t, vault, all[0].Name, "the one that is written to comes first")
		require.Equal(t, credentials.Internal, all[1].Name)
		want := secret.ReadWrite
		if readOnly {
			want = secret.ReadOnly
		}
		require.Equal(t, []secret.Access{want}, probes[vault].asked)
		require.Equal(t, []secret.Access{secret.ReadOnly}, probes[credentials.Internal].asked)
	}
}

// prober notes what it is asked for.
type prober struct {
	secret.SecretBackend
	asked []secret.Access
}

func (p *prober) Probe(_ context.Context, need secret.Access) error {
	p.asked = append(p.asked, need)
	return nil
}

// A backend that cannot be probed is judged by its calls.
func TestHealthWithoutAProber(t *testing.T) {
	inner := memory.NewFaulty(memory.New())
	b := newBed(t, func(o *credentials.Options) {
		o.Backends = []credentials.Backend{{Name: vault, Store: bare{inner}}}
	})
	require.False(t, b.External())
	require.Equal(t, credentials.StatusOK, b.health(t).Status)
	inner.Fail(errOutage)
	_, _ = b.Read(t.Context(), google())
	require.Equal(t, credentials.StatusUnavailable, b.health(t).Status)
}

package e2e_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestOneReplicaSweeps stops a replica in the middle of its sweep: no other sweeps
// meanwhile. It dies: still none, until its lease has run out, and then another finishes
// what it had begun.
func TestOneReplicaSweeps(t *testing.T) {
	t.Parallel()
	f := fragileVault(t)
	a := &accident{operation: "delete", what: killed, at: message{"store", "DELETE metadata/NAME/client_id", 1}, name: "left"}
	f.killAll(t, startSwept(t, f.env), []*accident{a})
	require.NotEmpty(t, f.look(t, "left-0/client_secret"))
	f.hourPasses(t)

	g := &turnstile{}
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	defer once.Do(func() { close(release) })
	g.begin(func(m message, ask func()) verdict {
		if m.text == "DELETE metadata/left-0/client_id" {
			close(reached)
			<-release
			return lose
		}
		ask()
		return pass
	})
	// With this timeout the lease outlives the test.
	sweeper := startDetecting(t, f.through(t, g).with(env{"SECRET_TIMEOUT": "60s"}))
	select {
	case <-reached:
	case <-time.After(time.Minute):
		t.Fatal("the sweep does not get there")
	}
	refused := func(b *process) func() bool {
		return func() bool { return strings.Contains(b.log.String(), `"not swept: `) }
	}
	for range 2 {
		other := startDetecting(t, f.env)
		eventually(t, "it does not sweep", refused(other))
		require.NotContains(t, other.log.String(), `"swept"`)
		other.stop()
		sweeper.kill() // and then there is still its lease
	}
	once.Do(func() { close(release) })
	require.NotEmpty(t, f.look(t, "left-0/client_secret"))
	require.NotEmpty(t, f.unfinished(t))

	f.hourPasses(t)
	heir := startDetecting(t, f.env)
	eventually(t, "it sweeps", func() bool { return strings.Contains(heir.log.String(), `"swept"`) })
	require.Empty(t, f.unfinished(t))
	f.gone(t, "left-0/client_id")
	f.gone(t, "left-0/client_secret")
}

// hourPasses lets an hour pass for all that is claimed, leased or to be done later.
func (f *fragile) hourPasses(t *testing.T) {
	t.Helper()
	for _, statement := range []string{
		"UPDATE provider_profiles SET op_until = op_until - interval '1 hour'",
		"UPDATE credential_cleanups SET due_at = due_at - interval '1 hour', claimed_until = claimed_until - interval '1 hour'",
		"UPDATE leases SET held_until = held_until - interval '1 hour'",
	} {
		_, err := f.db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
}

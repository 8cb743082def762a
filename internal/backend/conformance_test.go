package backend_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
)

// A decorated backend keeps the contract, with all that it can do and with the
// three methods alone.
func TestDecoratedBackendConforms(t *testing.T) {
	o := backend.Options{Name: memory.Name, Timeout: time.Minute}
	t.Run("everything", func(t *testing.T) {
		m := memory.New() // of all subtests: a reference is to what somebody else has placed below
		decorated := backend.Decorate(m, o)
		secrettest.Run(t, func(*testing.T) secret.SecretBackend { return decorated },
			secrettest.WithName(memory.Name),
			secrettest.WithStalled(func(t *testing.T) secret.SecretBackend {
				faulty := memory.NewFaulty(memory.New())
				t.Cleanup(faulty.Stall())
				return decorateFaulty(faulty, o)
			}),
			secrettest.WithRemnants(secrettest.Remnants{
				Leave: func(_ *testing.T, _ secret.SecretBackend, key, owner string) { m.Abandon(key, owner) },
				Left:  func(_ *testing.T, _ secret.SecretBackend, key string) bool { return m.Abandoned(key) },
			}),
			secrettest.WithReferences(secrettest.References{
				Store: func(t *testing.T, _ secret.SecretBackend, name string, f secrettest.Foreign) (path, version string) {
					return place(t, m, name, f)
				},
				Path: func(key string) string { return memory.Name + "/" + key },
			}))
	})
	t.Run("bare", func(t *testing.T) {
		secrettest.Run(t, func(*testing.T) secret.SecretBackend { return backend.Decorate(bare{memory.New()}, o) },
			secrettest.WithName(memory.Name))
	})
}

// place stores what somebody else would.
func place(t *testing.T, m *memory.Backend, name string, f secrettest.Foreign) (path, version string) {
	value := f.Text
	if f.Fields != nil {
		object, err := json.Marshal(f.Fields)
		require.NoError(t, err)
		value = string(object)
	}
	path = "team-a/" + name
	version, err := m.Place(path, value)
	require.NoError(t, err)
	return path, version
}

package backend_test

import (
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
)

// A decorated backend keeps the contract, with all that it can do and with the
// three methods alone.
func TestDecoratedBackendConforms(t *testing.T) {
	decorate := func(b secret.SecretBackend) secret.SecretBackend {
		return backend.Decorate(b, backend.Options{Name: memory.Name, Timeout: time.Minute})
	}
	t.Run("owned", func(t *testing.T) {
		secrettest.Run(t, func(*testing.T) secret.SecretBackend { return decorate(memory.New()) },
			secrettest.WithName(memory.Name),
			secrettest.WithStalled(func(t *testing.T) secret.SecretBackend {
				faulty := memory.NewFaulty(memory.New())
				t.Cleanup(faulty.Stall())
				return decorate(faulty)
			}))
	})
	t.Run("bare", func(t *testing.T) {
		secrettest.Run(t, func(*testing.T) secret.SecretBackend { return decorate(bare{memory.New()}) },
			secrettest.WithName(memory.Name))
	})
}

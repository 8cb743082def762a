package broker_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// What does not open with the broker's key is not the provider's administrator's fault:
// who reads the answer is told which variable it is about.
func TestWhatAnotherKeyHasSealed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "broker.db")
	right := newHouse(t, options{internal: true, path: path})
	id := right.register("google")
	connection := right.connect(id)

	wrong := newHouse(t, options{internal: true, path: path, key: "z"})
	_, err := wrong.Provider(t.Context(), id)
	require.Contains(t, code(t, broker.CodeCredentialsInvalid, err).Message, "ENCRYPTION_KEY")
	_, err = wrong.Begin(t.Context(), request(id))
	require.Contains(t, code(t, broker.CodeCredentialsInvalid, err).Message, "ENCRYPTION_KEY")
	_, err = wrong.Token(t.Context(), connection)
	require.Contains(t, code(t, broker.CodeInternal, err).Message, "ENCRYPTION_KEY")
	_, err = wrong.Refresh(t.Context(), connection)
	require.Contains(t, code(t, broker.CodeInternal, err).Message, "ENCRYPTION_KEY")
	require.Equal(t, broker.StatusActive, right.status(connection))
}

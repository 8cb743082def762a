package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

// cutOff leaves a provider as an update of its secret does whose process was killed
// after it had written to the vault and before it had told the row.
func (h *house) cutOff(id uuid.UUID, clientSecret string) {
	h.t.Helper()
	const key = "google/client_secret"
	stored, err := h.vault.Read(h.t.Context(), key)
	require.NoError(h.t, err)
	mark := credentials.Owner{ProviderID: id, Generation: h.provider(id).Credentials.Generation + 1}
	_, err = h.vault.Replace(h.t.Context(), key, clientSecret, mark.String(), stored.Version)
	require.NoError(h.t, err)
}

// An update that was cut off and repeated finds its values stored already, and writes
// nothing. What the first attempt has written is the broker's all the same, and goes
// with the provider, or when it moves.
func TestNothingIsLeftOfAnUpdateThatWasCutOffAndRepeated(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*house, uuid.UUID) error{
		"deleted": func(h *house, id uuid.UUID) error { return h.DeleteProvider(h.t.Context(), id) },
		"renamed": func(h *house, id uuid.UUID) error {
			return h.PatchProvider(h.t.Context(), id, broker.ProfileInput{Name: broker.Given("renamed")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			id := h.register("google")
			h.cutOff(id, "new")
			require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("new")}))
			require.NoError(t, leave(h, id))
			require.Empty(t, h.inVault("google/client_secret"))
			require.Empty(t, h.inVault("google/client_id"))
			if name == "renamed" {
				require.Equal(t, "new", h.inVault("renamed/client_secret"))
			}
		})
	}
}

// A process that dies between the copy of a rename and the switch of the row has noted the
// copy before: another one deletes it, and the pair stays where the row says.
func TestARenameThatIsCutOffLeavesOnePair(t *testing.T) {
	t.Parallel()
	path, vault := t.TempDir()+"/broker.db", memory.NewFaulty(memory.New())
	one := newHouse(t, options{path: path, vault: vault})
	id := one.register("google")
	vault.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpCreate && c.Key == "renamed/client_secret" { // it is no more
			vault.Fail(errDown)
			return one.store.Close()
		}
		return nil
	})
	rename := broker.ProfileInput{Name: broker.Given("renamed")}
	require.Error(t, one.PatchProvider(t.Context(), id, rename))
	vault.After(nil)
	vault.Fail(nil)
	require.Equal(t, clientSecret, one.inVault("renamed/client_secret"), "nothing is left: the test proves nothing")

	two := newHouse(t, options{path: path, vault: vault})
	two.pass(time.Hour)
	two.SweepOnce(t.Context())
	require.Empty(t, two.inVault("renamed/client_id")+two.inVault("renamed/client_secret"))
	require.Equal(t, clientSecret, two.inVault("google/client_secret"))
	require.NoError(t, two.PatchProvider(t.Context(), id, rename))
	require.Equal(t, clientSecret, two.inVault("renamed/client_secret"))
	require.Empty(t, two.inVault("google/client_secret"))
}

package broker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

var errReset = errors.New("connection reset by the database")

// unsure is a store that loses the answer of the next change of the named method: the
// change takes place and the caller is told of an error, or, with cut, it does not.
type unsure struct {
	broker.Store
	method string
	cut    bool
}

func (u *unsure) ask(method string, do func() error) error {
	if u.method != method {
		return do()
	}
	u.method = ""
	if !u.cut {
		if err := do(); err != nil {
			return err
		}
	}
	return errReset
}

func (u *unsure) PublishProvider(ctx context.Context, p broker.Provider, op broker.Op, e ...audit.Event) error {
	return u.ask("publish", func() error { return u.Store.PublishProvider(ctx, p, op, e...) })
}

func (u *unsure) UpdateProvider(ctx context.Context, p broker.Provider, op broker.Op, add []broker.Cleanup, drop []uuid.UUID, e ...audit.Event) error {
	return u.ask("update", func() error { return u.Store.UpdateProvider(ctx, p, op, add, drop, e...) })
}

func (u *unsure) DeleteProvider(ctx context.Context, p broker.Provider, op broker.Op, add []broker.Cleanup, drop []uuid.UUID, e ...audit.Event) error {
	return u.ask("delete", func() error { return u.Store.DeleteProvider(ctx, p, op, add, drop, e...) })
}

func (u *unsure) CompleteConnection(ctx context.Context, c broker.Connection, t broker.StoredToken, now time.Time, e ...audit.Event) error {
	return u.ask("complete", func() error { return u.Store.CompleteConnection(ctx, c, t, now, e...) })
}

func (u *unsure) AddCleanups(ctx context.Context, c ...broker.Cleanup) error {
	return u.ask("note", func() error { return u.Store.AddCleanups(ctx, c...) })
}

func (u *unsure) Lease(ctx context.Context, name, holder string, ttl time.Duration) (mine bool, err error) {
	err = u.ask("lease", func() error { mine, err = u.Store.Lease(ctx, name, holder, ttl); return err })
	return mine, err
}

func newUnsureHouse(t *testing.T) (*house, *unsure) {
	t.Helper()
	u := &unsure{}
	return newHouse(t, options{wrap: func(s broker.Store) broker.Store { u.Store = s; return u }}), u
}

// A change of the database may take place although its answer is lost.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	t.Run("register", func(t *testing.T) {
		h, u := newUnsureHouse(t)
		u.method = "publish"
		id := h.register("google")
		require.Equal(t, clientSecret, h.inVault("google/client_secret"))
		h.connect(id)
	})
	t.Run("rotate", func(t *testing.T) {
		h, u := newUnsureHouse(t)
		id := h.register("google")
		u.method = "update"
		require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientSecret: text("rotated")}))
		require.Equal(t, "rotated", h.inVault("google/client_secret"))
	})
	t.Run("rename", func(t *testing.T) {
		h, u := newUnsureHouse(t)
		id := h.register("google")
		u.method = "update"
		require.NoError(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("gmail")}))
		h.pass(time.Hour)
		h.SweepOnce(t.Context())
		require.Equal(t, clientSecret, h.inVault("gmail/client_secret"))
		require.Empty(t, h.inVault("google/client_secret"))
		h.connect(id)
	})
	t.Run("delete", func(t *testing.T) {
		h, u := newUnsureHouse(t)
		id := h.register("google")
		u.method = "delete"
		require.NoError(t, h.DeleteProvider(t.Context(), id))
		h.pass(time.Hour)
		h.SweepOnce(t.Context())
		require.Empty(t, h.inVault("google/client_secret"))
	})
	t.Run("callback", func(t *testing.T) {
		h, u := newUnsureHouse(t)
		cb := h.agree(h.begin(h.register("google")))
		u.method = "complete"
		to, err := h.Complete(t.Context(), cb)
		require.NoError(t, err)
		_, err = h.Token(t.Context(), connectionIn(t, to.URL))
		require.NoError(t, err)
	})
	t.Run("capture", func(t *testing.T) {
		h, u := newUnsureHouse(t)
		c := h.begin(h.static("acme", broker.ProfileInput{AuthType: broker.Given("api_key")}))
		u.method = "complete"
		connection, err := h.enter(c, "the-key")
		require.NoError(t, err)
		require.Equal(t, "the-key", h.key(connection))
	})
}

// The same errors where the change did not take place: everything is taken back.
func TestChangesThatDidNotTakePlace(t *testing.T) {
	t.Parallel()
	h, u := newUnsureHouse(t)
	u.cut, u.method = true, "publish"
	_, err := h.Register(t.Context(), h.profile("google"))
	require.ErrorIs(t, err, errReset)
	require.Empty(t, h.inVault("google/client_id"))
	require.Empty(t, h.inVault("google/client_secret"))
	id := h.register("google")

	u.method = "update"
	require.ErrorIs(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{ClientID: text("a"), ClientSecret: text("b")}), errReset)
	require.Equal(t, clientID, h.inVault("google/client_id"))
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))

	u.method = "update"
	require.ErrorIs(t, h.PatchProvider(t.Context(), id, broker.ProfileInput{Name: broker.Given("gmail")}), errReset)
	require.Empty(t, h.inVault("gmail/client_secret"))
	require.Equal(t, clientSecret, h.inVault("google/client_secret"))

	u.method = "delete"
	require.ErrorIs(t, h.DeleteProvider(t.Context(), id), errReset)
	h.connect(id)
}

// A deletion that cannot be noted either leaves the reservation, which tells the sweep.
func TestRegistrationThatCannotEvenNoteWhatItLeaves(t *testing.T) {
	t.Parallel()
	h, u := newUnsureHouse(t)
	h.vault.After(func(_ context.Context, c memory.Call) error {
		if c.Op == memory.OpCreate && c.Key == "google/client_id" {
			h.vault.Fail(errDown)
			u.cut, u.method = true, "note"
		}
		return nil
	})
	_, err := h.Register(t.Context(), h.profile("google"))
	require.Error(t, err)
	h.vault.After(nil)
	h.vault.Fail(nil)
	require.NotEmpty(t, h.inVault("google/client_id"))
	h.pass(time.Hour)
	h.SweepOnce(t.Context())
	require.Empty(t, h.inVault("google/client_id"))
	h.register("google")
}

// A sweep that does not know whether it has the lease gives it back: the next process
// must not wait for it.
func TestSweepGivesALeaseBackThatItDoesNotKnowOf(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/broker.db"
	u := &unsure{method: "lease"}
	one := newHouse(t, options{path: path, wrap: func(s broker.Store) broker.Store { u.Store = s; return u }})
	one.SweepOnce(t.Context())
	mine, err := one.store.Lease(t.Context(), "sweep", "another process", time.Minute)
	require.NoError(t, err)
	require.True(t, mine)
}

package broker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// breaking is a store that panics with a value when a refresh begins.
type breaking struct {
	broker.Store
	value any
}

func (b breaking) ClaimRefresh(context.Context, uuid.UUID, broker.RefreshSeen, time.Duration) (broker.RefreshLease, error) {
	panic(b.value)
}

// A bug in a refresh is an error of that refresh, and the log tells where it was, but not
// the value, which may hold the token.
func TestAPanicDuringARefreshShowsNoValue(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	h := newHouse(t, options{log: &log, wrap: func(s broker.Store) broker.Store { return breaking{s, "c4n4ry"} }})
	connection := h.connect(h.register("google"))
	_, err := h.Refresh(t.Context(), connection)
	code(t, broker.CodeInternal, err)
	require.NotContains(t, err.Error(), "c4n4ry")
	require.Contains(t, log.String(), "panic during a refresh")
	require.Contains(t, log.String(), "ClaimRefresh", "the stack")
	require.NotContains(t, log.String(), "c4n4ry")
	_, err = h.Token(t.Context(), connection)
	require.NoError(t, err)
}

func TestPanicText(t *testing.T) {
	t.Parallel()
	defer func() { require.Contains(t, broker.PanicText(recover()), "index out of range") }()
	none := strings.Fields("")
	_ = none[len(t.Name())]
}

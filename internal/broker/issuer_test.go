package broker_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// An issuer that a person has written down may have a slash too many.
func TestAnIssuerWithASlashAtTheEndIsNoMixUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := h.profile("google")
	in.Issuer = broker.Given(h.op.Issuer() + "/")
	id, err := h.Register(t.Context(), in)
	require.NoError(t, err)
	cb := h.agree(h.begin(id))
	require.Equal(t, h.op.Issuer(), cb.Issuer)
	_, err = h.Complete(t.Context(), cb)
	require.NoError(t, err)
}

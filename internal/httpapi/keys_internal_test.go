package httpapi

import (
	"crypto/subtle"
	"log/slog"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
)

// How long it takes to find a key must not tell how near a guess was: every known
// key is compared, as a digest and in constant time, whichever of them fits.
func TestEveryKeyIsCompared(t *testing.T) {
	keys, err := NewKeys(KeysOptions{Logger: slog.New(slog.DiscardHandler),
		APIKeys: []secret.Value{secret.NewValue("first"), secret.NewValue("agent:second"), secret.NewValue("auditor:third")}})
	require.NoError(t, err)
	require.Equal(t, reflect.ValueOf(subtle.ConstantTimeCompare).Pointer(), reflect.ValueOf(keys.equal).Pointer(), "in constant time")
	compared := 0
	keys.equal = func(x, y []byte) int {
		compared++
		require.Len(t, x, len(y), "digests are equally long")
		return subtle.ConstantTimeCompare(x, y)
	}
	for presented, want := range map[string]Role{
		"first": Admin, "second": Agent, "third": Auditor, "fourth": "", "": "", "firs": "", "firstt": "",
	} {
		compared = 0
		from, ok := keys.find(presented)
		require.Equal(t, 3, compared, presented)
		require.Equal(t, want, from.role, presented)
		require.Equal(t, want != "", ok)
	}
}

package httpapi

import (
	"crypto/subtle"
	"testing"

	"github.com/stretchr/testify/require"
)

// How long it takes to find a key must not tell how near a guess was: every known
// key is compared, as a digest and in constant time, whichever of them fits.
func TestEveryKeyIsCompared(t *testing.T) {
	known := []key{{digestOf("first"), Admin}, {digestOf("second"), Agent}, {digestOf("third"), Auditor}}
	for presented, want := range map[string]Role{
		"first": Admin, "second": Agent, "third": Auditor, "fourth": "", "": "", "firs": "", "firstt": "",
	} {
		compared := 0
		from, ok := match(known, presented, func(x, y []byte) int {
			compared++
			require.Len(t, x, len(y), "digests are equally long")
			return subtle.ConstantTimeCompare(x, y)
		})
		require.Equal(t, len(known), compared, presented)
		require.Equal(t, want, from.role, presented)
		require.Equal(t, want != "", ok)
	}
}

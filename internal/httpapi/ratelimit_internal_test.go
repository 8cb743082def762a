package httpapi

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// A caller who does not stop at a 429 gets as much as one who does: what is refused
// uses up nothing.
func TestRefusedRequestsUseUpNothing(t *testing.T) {
	limits, allowed := newRateLimits(10), 0
	for ms := range 10_000 {
		for range 5 {
			if limits.take(digestOf("k"), noon.Add(time.Duration(ms)*time.Millisecond)) == nil {
				allowed++
			}
		}
	}
	require.InDelta(t, 10+10*10, allowed, 1, "a burst, and ten seconds' worth")
}

func TestWhenToComeAgain(t *testing.T) {
	for perSecond, want := range map[float64]time.Duration{100: time.Second, 0.1: 10 * time.Second, 1e-15: longestWait} {
		limits := newRateLimits(perSecond)
		var err error
		for range 101 {
			err = limits.take(digestOf("k"), noon)
		}
		var limited *broker.Error
		require.True(t, errors.As(err, &limited))
		require.Equal(t, want, limited.RetryAfter)
		if want < longestWait {
			require.NoError(t, limits.take(digestOf("k"), noon.Add(limited.RetryAfter)), "it is true")
		}
	}
}

// Keys come and go with their files; what they have used up does not stay for ever.
func TestAllowancesOfOldKeysAreForgotten(t *testing.T) {
	limits := newRateLimits(1)
	busy := digestOf("busy")
	for i := range 100_000 {
		now := noon.Add(time.Duration(i) * time.Second)
		require.NoError(t, limits.take(digestOf(fmt.Sprint(i)), now))
		_ = limits.take(busy, now)
		require.Error(t, limits.take(busy, now), "it is not forgotten while it is in use")
		require.LessOrEqual(t, len(limits.byKey), 2*fewKeys)
	}
}

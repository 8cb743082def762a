package credentials_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret/memory"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func newWarm(tb testing.TB, providers int) (*credentials.Service, []credentials.Ref) {
	tb.Helper()
	store := memory.New()
	s, err := credentials.New(credentials.Options{
		Backends: []credentials.Backend{{Name: vault, Store: store}}, WriteTo: vault,
		CacheTTL: 1 << 50, Audit: &recorder{}, Metrics: metrics.New(prometheus.NewRegistry()),
	})
	require.NoError(tb, err)
	tb.Cleanup(s.Close)
	refs := make([]credentials.Ref, providers)
	for i := range refs {
		refs[i] = google()
		refs[i].Key = fmt.Sprintf("provider-%d", i)
		require.NoError(tb, store.Set(tb.Context(), refs[i].ClientIDAt(), "client-id"))
		require.NoError(tb, store.Set(tb.Context(), refs[i].ClientSecretAt(), "client-secret"))
		_, err := s.Get(tb.Context(), refs[i])
		require.NoError(tb, err)
	}
	return s, refs
}

// BenchmarkGetWarm is the time to get cached credentials, on one core and on all.
func BenchmarkGetWarm(b *testing.B) {
	for _, providers := range []int{1, 10_000} {
		s, refs := newWarm(b, providers)
		b.Run(fmt.Sprintf("providers=%d", providers), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Get(context.Background(), refs[i%len(refs)]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("providers=%d/parallel", providers), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, err := s.Get(context.Background(), refs[i%len(refs)]); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func TestWarmGetAllocatesNothing(t *testing.T) {
	s, refs := newWarm(t, 1)
	got := testing.AllocsPerRun(10_000, func() {
		if _, err := s.Get(context.Background(), refs[0]); err != nil {
			t.Fatal(err)
		}
	})
	require.Less(t, got, 0.01) // what the cache allocates for itself now and then
}

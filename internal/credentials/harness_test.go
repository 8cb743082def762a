package credentials_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
)

const vault = "hashicorp-vault"

var errOutage = errors.Join(errors.New("get google/client_id: connection refused"), secret.ErrUnavailable)

// bed is a Service over a vault of memory, with everything that can be seen of it.
type bed struct {
	*credentials.Service
	vault    *memory.Faulty
	recorder *recorder
	metrics  *prometheus.Registry
	log      *buffer
}

// newBed returns a Service with a TTL of 5 minutes and an hour of grace, changed by
// the options.
func newBed(t *testing.T, change ...func(*credentials.Options)) *bed {
	t.Helper()
	b := &bed{
		vault: memory.NewFaulty(memory.New()), recorder: &recorder{},
		metrics: prometheus.NewRegistry(), log: &buffer{},
	}
	o := credentials.Options{
		Backends: []credentials.Backend{{Name: vault, Store: b.vault, External: true}}, WriteTo: vault,
		CacheTTL: 5 * time.Minute, MaxStale: time.Hour,
		Audit: b.recorder, Metrics: metrics.New(b.metrics),
		Logger: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&o)
	}
	s, err := credentials.New(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	b.Service = s
	return b
}

// put stores a pair as a person would, without marks.
func (b *bed) put(t *testing.T, key, id, clientSecret string) {
	t.Helper()
	require.NoError(t, b.vault.Set(t.Context(), key+"/client_id", id))
	require.NoError(t, b.vault.Set(t.Context(), key+"/client_secret", clientSecret))
}

// reads returns how often a key was read.
func (b *bed) reads(key string) int {
	n := 0
	for _, c := range b.vault.Calls() {
		if c.Key == key && (c.Op == memory.OpRead || c.Op == memory.OpGet) {
			n++
		}
	}
	return n
}

// stored returns the value under key and its mark, "" if there is none.
func (b *bed) stored(t *testing.T, key string) (value, mark string) {
	t.Helper()
	item, err := b.vault.Read(t.Context(), key)
	if !errors.Is(err, secret.ErrNotFound) {
		require.NoError(t, err)
	}
	return item.Value.Reveal(), item.Owner
}

// lookups returns how often the cache was asked with this result.
func (b *bed) lookups(t *testing.T, result string) float64 {
	t.Helper()
	families, err := b.metrics.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "nexus_secret_cache_lookups_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func pair(id, clientSecret string) credentials.Pair {
	var p credentials.Pair
	if id != "" {
		p.ClientID = secret.NewValue(id)
	}
	if clientSecret != "" {
		p.ClientSecret = secret.NewValue(clientSecret)
	}
	return p
}

func requirePair(t *testing.T, p credentials.Pair, id, clientSecret string) {
	t.Helper()
	require.Equal(t, id, p.ClientID.Reveal())
	require.Equal(t, clientSecret, p.ClientSecret.Reveal())
}

// google is a provider's reference.
func google() credentials.Ref {
	return credentials.Ref{
		ProviderID: uuid.MustParse("01933333-3333-7333-8333-333333333333"),
		Backend:    vault, Key: "google", Managed: true, Generation: 1,
	}
}

func ownerOf(ref credentials.Ref) credentials.Owner {
	return credentials.Owner{ProviderID: ref.ProviderID, Generation: ref.Generation}
}

// recorder keeps audit events, or fails.
type recorder struct {
	mu     sync.Mutex
	events []audit.Event
	err    error
}

func (r *recorder) Record(_ context.Context, events ...audit.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	r.events = append(r.events, events...)
	return nil
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *recorder) of(what audit.Type) []audit.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.events), func(e audit.Event) bool { return e.Type != what })
}

// buffer is a bytes.Buffer that may be written to concurrently.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

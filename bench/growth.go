package main

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/store/postgres"
)

// growth compares a broker on a large database with one on a small database of the
// same server.
func growth(ctx context.Context, l *lab) ([]row, error) {
	small, err := l.world(ctx, 0, smallConnections, nil)
	if err != nil {
		return nil, err
	}
	defer small.stop()
	l.say("generating %s connections and %s providers", number(l.connections), number(l.providers))
	large, err := l.world(ctx, l.providers, l.connections, nil)
	if err != nil {
		return nil, err
	}
	defer large.stop()
	lists, err := l.listMemory(ctx, large)
	if err != nil {
		return nil, err
	}
	p99s, err := l.growthOfP99(ctx, small, large)
	return append(p99s, lists), err
}

// growthOfP99 loads both brokers by turns.
func (l *lab) growthOfP99(ctx context.Context, small, large *world) ([]row, error) {
	if err := l.warmUp(ctx, large); err != nil {
		return nil, err
	}
	load := func(w *world, args ...string) func() (sample, error) {
		return func() (sample, error) { return l.wrk(ctx, w.instance, l.load, args...) }
	}
	var token, consent struct{ small, large []sample }
	measures := []measure{
		{&token.small, load(small, "token", strconv.Itoa(small.connections))},
		{&token.large, load(large, "token", strconv.Itoa(large.connections))},
		{&consent.small, load(small, "consent", "1", small.provider)},
		{&consent.large, load(large, "consent", strconv.Itoa(large.providers))},
	}
	for range l.rounds {
		if err := takeAll(measures); err != nil {
			return nil, err
		}
		slices.Reverse(measures) // none is always the first after another
	}
	size := fmt.Sprintf("%s connections, %s providers: ", number(large.connections), number(large.providers))
	return []row{
		grown(size+"token p99", token.small, token.large),
		grown("the same: consent p99", consent.small, consent.large),
	}, nil
}

func grown(what string, small, large []sample) row {
	c := compare(large, small, p99Of)
	return row{
		what, "≤ 1.5 × the empty database", fmt.Sprintf("%s: %s against %s, at %s/s against %s/s%s", c,
			millis(median(each(large, p99Of))), millis(median(each(small, p99Of))),
			number(median(each(large, rateOf))), number(median(each(small, rateOf))), failures(small, large)),
		metIf(c.ratio <= 1.5 && errorsIn(small, large) == 0),
	}
}

// warmUp asks once for every generated provider, so that its credentials are cached,
// and lets the broker hand out tokens for a while.
func (l *lab) warmUp(ctx context.Context, w *world) error {
	warm := newCrowd(clients)
	statuses := warm.send(ctx, w.providers, func(ctx context.Context, i int) (*http.Request, error) {
		return w.request(ctx, http.MethodPost, "/auth/consent-spec", consentRequest(generatedID(i+1, providerKind).String()))
	})
	if statuses[http.StatusOK] != w.providers {
		return fmt.Errorf("warming up: answers of %d consents: %s", w.providers, statusCounts(statuses))
	}
	_, err := l.wrk(ctx, w.instance, l.load, "token", strconv.Itoa(w.connections))
	return err
}

// listMemory measures by how much the memory of a broker grows while it lists all
// providers.
func (l *lab) listMemory(ctx context.Context, w *world) (row, error) {
	rows, err := memoryOfProviders(ctx, w.database)
	if err != nil {
		return row{}, err
	}
	var lists []string
	worst := 0.0
	for _, path := range []string{"/providers", "/providers/metadata", "/providers/health"} {
		grown, answered, err := l.growthDuring(ctx, w.database, path)
		if err != nil {
			return row{}, err
		}
		worst = max(worst, float64(grown)/float64(rows))
		lists = append(lists, fmt.Sprintf("%s for %s of `GET %s`", megabytes(grown), megabytes(answered), path))
	}
	return row{
		fmt.Sprintf("lists without a limit, %s providers", number(w.providers)), "not held in memory twice",
		fmt.Sprintf("%.1f × what the rows take (%s): %s", worst, megabytes(rows), strings.Join(lists, ", ")), metIf(worst < 2),
	}, nil
}

// growthDuring returns by how much a GET takes the peak of a new broker's memory
// above what it had before, and the size of the answer. The broker collects garbage
// eagerly, so that garbage blurs the figure little.
func (l *lab) growthDuring(ctx context.Context, database, path string) (grown, answered int64, err error) {
	b, err := l.start(ctx, env{"DATABASE_URL": database, "GOGC": "10"})
	if err != nil {
		return 0, 0, err
	}
	defer b.stop()
	if err := b.must(ctx, http.StatusOK, http.MethodGet, "/providers?limit=1", nil, nil); err != nil {
		return 0, 0, err
	}
	r, err := b.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, 0, err
	}
	before, err := b.memory("VmRSS")
	if err == nil {
		err = b.forgetPeak()
	}
	if err != nil {
		return 0, 0, err
	}
	body, status, err := exchange(b.client, r)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%w %d of %s", errStatus, status, path)
	}
	if err != nil {
		return 0, 0, err
	}
	peak, err := b.memory("VmHWM")
	return max(0, peak-before), int64(len(body)), err
}

// memoryOfProviders returns what all providers of a database take on the heap, once.
func memoryOfProviders(ctx context.Context, database string) (int64, error) {
	store, err := postgres.Open(ctx, postgres.Config{URL: database})
	if err != nil {
		return 0, err
	}
	defer store.Close()
	before := heap()
	providers, err := broker.All(store.Providers(ctx, broker.Page{}))
	after := heap()
	runtime.KeepAlive(providers)
	return max(1, after-before), err
}

func heap() int64 {
	var m runtime.MemStats
	for range 2 { // what pools hold goes with the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

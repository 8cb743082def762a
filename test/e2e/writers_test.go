package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// replica is a broker whose messages are held up, each for a random time.
type replica struct {
	*process
	delays *delays
}

// delays are drawn for one message after the other.
type delays struct {
	mu     sync.Mutex
	random *rand.Rand
}

const longestDelay = 12 * time.Millisecond

func (d *delays) seed(seed, of uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.random = rand.New(rand.NewPCG(seed, of))
}

// next is nothing for half of the messages: what is hurried along overtakes the rest.
func (d *delays) next() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.random.IntN(2) == 0 {
		return 0
	}
	return time.Duration(d.random.Int64N(int64(longestDelay)))
}

func (f *fragile) replica(t *testing.T) replica {
	g, d := &turnstile{}, &delays{}
	d.seed(0, 0)
	r := replica{startSwept(t, f.through(t, g)), d}
	g.begin(func(_ message, ask func()) verdict {
		time.Sleep(d.next())
		ask()
		time.Sleep(d.next())
		return pass
	})
	return r
}

// race is one provider that two replicas write at the same time.
type race struct {
	*fragile
	writers [2]replica
	witness *process
	random  *rand.Rand
	seed    uint64
	name    string
	id      string
}

// told is what a writer was answered.
type told struct {
	what       string // the writer's own word for what it wrote
	status     int
	begun, end time.Time
}

// TestTwoWriters has two replicas write the same provider at the same time, in random
// interleavings. What is stored in the end is what one of them has written, as a whole;
// who was told that he succeeded was the last, or somebody else was later.
//
// NEXUS_TEST_SEED repeats the interleaving of one seed, as far as the machine repeats it.
func TestTwoWriters(t *testing.T) {
	t.Parallel()
	for name, open := range fragileWorlds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testTwoWriters(t, open(t))
		})
	}
}

func testTwoWriters(t *testing.T, f *fragile) {
	seed, fixed := rand.Uint64()>>1, false
	if s := os.Getenv("NEXUS_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		fixed = true
	}
	rounds, until := 120, time.Now().Add(25*time.Second)
	switch {
	case fixed:
		rounds = 1
	case allCases():
		rounds, until = 400, time.Now().Add(time.Hour)
	}
	// Nobody dies here: what a slow machine holds up shall not be given up.
	f.env = f.env.with(env{"SECRET_TIMEOUT": "15s"})
	const least = 12
	witness := startSwept(t, f.env)
	var next atomic.Int64
	var lanes sync.WaitGroup
	for range min(rounds, 3) {
		lanes.Go(func() {
			writers := [2]replica{f.replica(t), f.replica(t)}
			for {
				i := next.Add(1) - 1
				if i >= int64(rounds) || i >= least && time.Now().After(until) || t.Failed() {
					return
				}
				x := race{fragile: f, writers: writers, witness: witness, seed: seed + uint64(i), name: fmt.Sprintf("race-%d", i)}
				x.run(t)
			}
		})
	}
	lanes.Wait()
	t.Logf("%d interleavings, seeds from %d", min(next.Load(), int64(rounds)), seed)
	require.Empty(t, f.unfinished(t), "seeds from %d", seed)
}

func (x *race) run(t *testing.T) {
	x.random = rand.New(rand.NewPCG(x.seed, 2))
	for i, w := range x.writers {
		w.delays.seed(x.seed, uint64(i))
	}
	scenes := []func(*testing.T){x.bothUpdate, x.updateAndRename, x.bothRename, x.updateAndDelete, x.bothRegister, x.renameAndDelete}
	// Failing here names the seed.
	defer func() {
		if t.Failed() {
			t.Logf("to repeat it: NEXUS_TEST_SEED=%d", x.seed)
		}
	}()
	scenes[x.random.IntN(len(scenes))](t)
}

func (x *race) pair(what string) string { return x.name + "." + what }

func (x *race) prepare() {
	x.id = x.witness.call("POST", "/providers", map[string]any{"profile": profilePair(x.name, x.pair("first"))}).want(201).text("id")
}

// writing is what a writer does: one request after the other.
type writing func(w replica) []told

// race lets both write at the same time, either of them a little later than the other.
func (x *race) race(first, second writing) (a, b []told) {
	one, other := x.writers[0], x.writers[1]
	if x.random.IntN(2) == 0 {
		one, other = other, one
	}
	late := time.Duration(x.random.Int64N(int64(120*time.Millisecond))) - 60*time.Millisecond
	answers := atOnce([]func() []told{
		func() []told { time.Sleep(-late); return first(one) },
		func() []told { time.Sleep(late); return second(other) },
	})
	return answers[0], answers[1]
}

// ask sends one request of a writer.
func (w replica) ask(what, method, path string, body any) told {
	begun := time.Now()
	status := w.try(method, path, body)
	return told{what, status, begun, time.Now()}
}

func (x *race) updates(words ...string) writing {
	return func(w replica) (all []told) {
		for _, what := range words {
			all = append(all, w.ask(what, "PATCH", "/providers/"+x.id,
				map[string]any{"client_id": x.pair(what) + "-id", "client_secret": x.pair(what) + "-secret"}))
		}
		return all
	}
}

func (x *race) renames(to string) writing {
	return func(w replica) []told {
		return []told{w.ask(to, "PATCH", "/providers/"+x.id, map[string]any{"name": to})}
	}
}

func (x *race) deletes() writing {
	return func(w replica) []told { return []told{w.ask("deletion", "DELETE", "/providers/"+x.id, nil)} }
}

func (x *race) registers(what string) writing {
	return func(w replica) []told {
		return []told{w.ask(what, "POST", "/providers", map[string]any{"profile": profilePair(x.name, x.pair(what))})}
	}
}

func (x *race) bothUpdate(t *testing.T) {
	x.prepare()
	a, b := x.race(x.updates("a1", "a2"), x.updates("b1", "b2"))
	x.check(t, []string{x.name}, x.last(t, "first", 409, slices.Concat(a, b)))
}

func (x *race) updateAndRename(t *testing.T) {
	x.prepare()
	to := x.name + "-moved"
	a, b := x.race(x.updates("a1", "a2"), x.renames(to))
	x.check(t, x.last(t, x.name, 409, b), x.last(t, "first", 409, a))
}

func (x *race) bothRename(t *testing.T) {
	x.prepare()
	a, b := x.race(x.renames(x.name+"-a"), x.renames(x.name+"-b"))
	x.check(t, x.last(t, x.name, 409, slices.Concat(a, b)), []string{"first"})
}

func (x *race) updateAndDelete(t *testing.T) {
	x.prepare()
	_, b := x.race(x.updates("a1", "a2"), x.deletes())
	x.checkDeletion(t, b[0])
}

func (x *race) renameAndDelete(t *testing.T) {
	x.prepare()
	_, b := x.race(x.renames(x.name+"-moved"), x.deletes())
	x.checkDeletion(t, b[0])
}

func (x *race) bothRegister(t *testing.T) {
	a, b := x.race(x.registers("a"), x.registers("b"))
	won := x.last(t, "none", 400, slices.Concat(a, b))
	require.Len(t, won, 1, "both were told that they have created it")
	require.NotEqual(t, []string{"none"}, won, "nobody has created it")
	x.check(t, []string{x.name}, won)
}

// last returns what may be in force after these answers: what was written with success
// and by nobody overwritten who began later; before, if all were refused.
func (x *race) last(t *testing.T, before string, refusal int, answers []told) (words []string) {
	t.Helper()
	done := slices.DeleteFunc(slices.Clone(answers), func(a told) bool { return a.status >= 300 })
	for _, a := range answers {
		require.Contains(t, []int{200, 201, refusal}, a.status, "%s of %+v", a.what, answers)
	}
	for _, a := range done {
		if !slices.ContainsFunc(done, func(b told) bool { return b.begun.After(a.end) }) {
			words = append(words, a.what)
		}
	}
	if len(done) == 0 {
		return []string{before}
	}
	return words
}

// check checks what is left of a provider that has one of the names and one of the pairs.
func (x *race) check(t *testing.T, names, pairs []string) {
	t.Helper()
	stored := x.stored(t)
	eventually(t, "one pair is stored", func() bool { // a deletion on AWS takes a moment
		stored = x.stored(t)
		return len(stored) == 2
	})
	name, _, _ := strings.Cut(stored[0], "/")
	require.Contains(t, names, name)
	require.Equal(t, []string{name + "/client_id", name + "/client_secret"}, stored)
	id := x.witness.call("GET", "/providers/by-name/"+name, nil).want(200).text("id")
	if x.id != "" {
		require.Equal(t, x.id, id)
	}
	require.Equal(t, "ready", x.witness.credentialsState(id))
	clientID := x.look(t, stored[0])
	require.Equal(t, clientID, x.witness.clientID(id))
	what := strings.TrimSuffix(strings.TrimPrefix(clientID, x.pair("")), "-id")
	require.Contains(t, pairs, what)
	require.Equal(t, x.pair(what)+"-secret", x.look(t, stored[1]))
}

// checkDeletion checks what is left after a deletion.
func (x *race) checkDeletion(t *testing.T, deletion told) {
	t.Helper()
	require.Contains(t, []int{200, 409}, deletion.status)
	status := x.witness.call("GET", "/providers/"+x.id, nil).Status
	if deletion.status == 409 {
		require.Equal(t, 200, status)
		return
	}
	require.Equal(t, 404, status)
	eventually(t, "nothing is stored", func() bool { return len(x.stored(t)) == 0 })
}

// stored returns the keys of the provider under all names.
func (x *race) stored(t *testing.T) []string {
	return slices.DeleteFunc(x.keys(t), func(key string) bool {
		return !strings.HasPrefix(key, x.name+"/") && !strings.HasPrefix(key, x.name+"-")
	})
}

package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// mishap is what happens to an operation at one of its messages.
type mishap string

const (
	killed mishap = "killed"  // the broker is killed with SIGKILL
	cut    mishap = "cut off" // the message is lost, or its answer
	down   mishap = "down"    // from this message on the service that it is for is down
)

// accident is an operation on a provider to which something happens, and what came of it.
type accident struct {
	operation string
	what      mishap
	at        message
	after     bool // the message has been answered, and the broker doesn't hear of it

	name, id string      // of the provider; no id while it is being registered
	struck   atomic.Bool // it has come to that; the one who strikes may go on when the operation has ended
	status   int         // what the broker answered; 0: nothing
	seen     string      // what others could see of it at once
}

func (a *accident) String() string {
	when := "before"
	if a.after {
		when = "after"
	}
	return fmt.Sprintf("%s (%s) %s %s %s", a.operation, a.name, a.what, when, a.at)
}

func (a *accident) renamed() string { return a.name + "-renamed" }

// old and new are the pairs that the provider has, and is to get.
func (a *accident) old() string { return a.name + ".old" }
func (a *accident) new() string { return a.name + ".new" }

var operations = []string{"register", "update", "rename", "delete"}

// prepare makes the provider that the operation is about.
func (a *accident) prepare(b *process) {
	if a.operation != "register" {
		a.id = b.call("POST", "/providers", map[string]any{"profile": profilePair(a.name, a.old())}).want(201).text("id")
	}
}

// operate carries the operation out, as far as that goes.
func (a *accident) operate(b *process) {
	switch a.operation {
	case "register":
		a.status = b.try("POST", "/providers", map[string]any{"profile": profilePair(a.name, a.new())})
	case "update":
		a.status = b.try("PATCH", "/providers/"+a.id, map[string]any{"client_id": a.new() + "-id", "client_secret": a.new() + "-secret"})
	case "rename":
		a.status = b.try("PATCH", "/providers/"+a.id, map[string]any{"name": a.renamed()})
	case "delete":
		a.status = b.try("DELETE", "/providers/"+a.id, nil)
	}
}

func profilePair(name, pair string) map[string]any {
	return map[string]any{"name": name, "auth_url": "https://op.test/authorize", "token_url": "https://op.test/token",
		"client_id": pair + "-id", "client_secret": pair + "-secret"}
}

// try sends a request that may get no answer, and returns the status of that which it gets.
func (p *process) try(method, path string, body any) int {
	p.t.Helper()
	req := p.request(method, path, body, http.Header{"X-Api-Key": {apiKey}})
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// happen has the accident happen to a broker behind the turnstile.
func (a *accident) happen(g *turnstile, b *process) {
	gone := false // what the message was for is down
	var mu sync.Mutex
	g.begin(func(m message, ask func()) verdict {
		mu.Lock()
		defer mu.Unlock()
		fails := map[string]verdict{"database": lose, "store": refuse}[m.place]
		switch {
		case gone && m.place == a.at.place:
			return fails
		case a.struck.Load() || m != a.at:
			ask()
			return pass
		}
		a.struck.Store(true)
		if a.after {
			ask()
		}
		switch a.what {
		case killed:
			b.kill()
		case down:
			gone = true
			if !a.after {
				return fails
			}
		}
		return lose
	}, a.renamed(), "NEW", a.name, "NAME")
	defer g.end()
	a.operate(b)
}

// accidents are all that are made of an operation's messages. Where all is false, those
// are left out that leave the world as another does: before a message it is as it was
// after the one before, and a message that only reads, or that belongs to a transaction,
// leaves it as it was.
func accidents(operation string, messages []message, what mishap, all bool) (list []*accident) {
	open, changed := false, false // a transaction; anything
	for _, m := range messages {
		open = (open || m.text == "begin") && m.text != "commit"
		changes := !m.reads() && (!open || m.place == "store")
		before, after := true, changes
		switch {
		case all:
			after = true
		case what == killed:
			before = changes && !changed
		case what == cut:
			before = changes
		case what == down:
			before, after = changes, false
		}
		changed = changed || changes
		for _, late := range []bool{false, true} {
			if !late && before || late && after {
				list = append(list, &accident{operation: operation, what: what, at: m, after: late})
			}
		}
	}
	return list
}

// TestCrash stops every operation that needs two systems at every message that it sends
// to one of them: the broker is killed, the message or its answer is lost, the database or
// the secret backend is down from there on. At once the API tells the truth; and in time,
// after a start and its sweep, all five invariants of writing hold.
func TestCrash(t *testing.T) {
	t.Parallel()
	for name, open := range fragileWorlds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testCrash(t, open(t), allCases())
		})
	}
}

func testCrash(t *testing.T, f *fragile, all bool) {
	witness := startSwept(t, f.env)
	messages := f.rehearse(t, witness)
	var killings, failures []*accident
	for _, operation := range operations {
		if f.fewer && !all {
			messages[operation] = slices.DeleteFunc(messages[operation], func(m message) bool { return m.place == "database" })
		}
		killings = append(killings, accidents(operation, messages[operation], killed, all)...)
		if f.fewer && !all {
			continue
		}
		failures = append(failures, accidents(operation, messages[operation], cut, all)...)
		if f.external || all { // else the database is all there is
			failures = append(failures, accidents(operation, messages[operation], down, all)...)
		}
	}
	for i, a := range slices.Concat(killings, failures) {
		a.name = "p" + strconv.Itoa(i)
	}
	var busy sync.WaitGroup
	busy.Go(func() { f.killAll(t, witness, killings) })
	for part := range 3 { // they mostly wait
		busy.Go(func() {
			var mine []*accident
			for i := part; i < len(failures); i += 3 {
				mine = append(mine, failures[i])
			}
			f.failAll(t, witness, mine)
		})
	}
	busy.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d times killed, %d times failed; %d messages", len(killings), len(failures), len(slices.Concat(
		messages["register"], messages["update"], messages["rename"], messages["delete"])))
	witness.stop()
	f.settle(t, slices.Concat(killings, failures))
}

// rehearse carries out each operation undisturbed and returns what it says. What a broker
// asks only once, before its first operation, does not belong to it.
func (f *fragile) rehearse(t *testing.T, witness *process) map[string][]message {
	g := &turnstile{}
	b := startSwept(t, f.through(t, g))
	first := accident{operation: "register", name: "rehearsal-first"}
	first.operate(b)
	require.Equal(t, http.StatusCreated, first.status)
	messages := map[string][]message{}
	for _, operation := range operations {
		a := accident{operation: operation, name: "rehearsal-" + operation}
		a.prepare(b)
		g.begin(nil, a.renamed(), "NEW", a.name, "NAME")
		a.operate(b)
		messages[operation] = g.end()
		require.Less(t, a.status, 300, operation)
		require.NotEmpty(t, messages[operation], operation)
		f.observe(t, witness, &a)
		t.Logf("%s: %q", operation, messages[operation])
	}
	b.stop()
	return messages
}

// killAll kills a broker for each accident.
func (f *fragile) killAll(t *testing.T, witness *process, list []*accident) {
	g := &turnstile{}
	e := f.through(t, g)
	for _, a := range list {
		b := start(t, e).swept()
		a.strike(t, witness, g, b)
		b.kill()
		f.observe(t, witness, a)
	}
}

// failAll makes all accidents happen to one broker.
func (f *fragile) failAll(t *testing.T, witness *process, list []*accident) {
	g := &turnstile{}
	b := startSwept(t, f.through(t, g))
	for _, a := range list {
		a.strike(t, witness, g, b)
		require.NotZero(t, a.status, "%s: no answer", a)
		f.observe(t, witness, a)
	}
	b.stop()
}

// strike prepares a provider and has the accident happen to it. It may not come to that,
// because another replica, which clears up too, was faster: then it is tried again with
// another provider.
func (a *accident) strike(t *testing.T, witness *process, g *turnstile, b *process) {
	t.Helper()
	name := a.name
	for try := 0; !a.struck.Load(); try++ {
		require.Less(t, try, 10, "%s: it never comes to that", a)
		a.name, a.id = fmt.Sprintf("%s-%d", name, try), ""
		a.prepare(witness)
		a.happen(g, b)
	}
}

// settle waits until nothing is claimed any more, starts a broker, and checks that in the
// end everything is as it should be.
func (f *fragile) settle(t *testing.T, list []*accident) {
	// What was tried and has failed is tried again after fifteen seconds.
	time.Sleep(max(claimTime, 15*time.Second) + time.Second)
	b := startSwept(t, f.env)
	// A sweep takes its turn every minute, and hundreds of accidents leave it much to do.
	within(t, 5*time.Minute, "nothing is left to be done", func() bool { return len(f.unfinished(t)) == 0 })
	left := map[string]string{} // what the store is to hold
	for _, a := range list {
		f.checkSettled(t, b, a)
	}
	for _, a := range list {
		f.succeed(t, b, a, left)
	}
	b.stop()
	startSwept(t, f.env).stop() // a late sweep hits no successor
	for key, value := range left {
		require.Equal(t, value, f.look(t, key), key)
	}
}

package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// turnstile is where all messages of one broker to its database and its secret backend pass.
// It knows them by what they say, and can do something else with one of them than let
// it pass: everything that an operation does to the world is such a message.
type turnstile struct {
	mu    sync.Mutex
	seen  []message // since begin
	said  map[message]int
	watch bool
	names *strings.Replacer // gives the operation's own names one form
	fate  func(m message, ask func()) verdict
}

// message is what a broker asks of the database or of its secret backend.
type message struct {
	place string // "database" or "store"
	text  string
	nth   int // among the messages of the operation that say the same
}

func (m message) String() string {
	if m.nth > 1 {
		return fmt.Sprintf("%s (%d)", m.text, m.nth)
	}
	return m.text
}

// reads reports whether the message changes nothing by itself.
func (m message) reads() bool {
	verb, _, _ := strings.Cut(strings.ToLower(m.text), " ")
	return slices.ContainsFunc([]string{"get", "list", "describe", "batchget", "access", "select", "begin", "rollback"},
		func(reading string) bool { return strings.HasPrefix(verb, reading) })
}

// verdict is what becomes of a message.
type verdict int

const (
	pass   verdict = iota
	lose           // the connection is cut: no answer
	refuse         // the service says that it is out of order
)

// begin watches what one operation says, to be treated as fate says. names are pairs of
// what stands for the operation's own names, as for strings.NewReplacer.
func (g *turnstile) begin(fate func(m message, ask func()) verdict, names ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen, g.said, g.watch, g.fate, g.names = nil, map[message]int{}, true, fate, strings.NewReplacer(names...)
}

// end lets everything pass again and returns what was said.
func (g *turnstile) end() []message {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watch, g.fate = false, nil
	return g.seen
}

func (g *turnstile) judge(place, text string, ask func()) verdict {
	g.mu.Lock()
	if !g.watch {
		g.mu.Unlock()
		ask()
		return pass
	}
	m := message{place: place, text: g.names.Replace(text)}
	g.said[m]++
	m.nth = g.said[m]
	g.seen = append(g.seen, m)
	fate := g.fate
	g.mu.Unlock()
	if fate == nil {
		ask()
		return pass
	}
	return fate(m, ask)
}

// database puts the turnstile in front of a PostgreSQL database and returns its URL.
func (g *turnstile) database(t *testing.T, url string) string {
	p := servers.NewPostgresProxy(t, url)
	p.Around(func(statement string, ask func() bool) bool {
		if statement == "-- ping" || statement == "SELECT 1" { // nobody's operation
			return ask()
		}
		answered := false
		return g.judge("database", shorten(statement), func() { answered = ask() }) == pass && answered
	})
	return p.URL
}

// shorten keeps what tells one statement from another.
func shorten(statement string) string {
	s := strings.Join(strings.Fields(statement), " ")
	if i := strings.Index(s, "RETURNING 1), recorded"); i > 0 { // a statement with its audit events
		s = strings.TrimPrefix(s[:i], "WITH changed AS (")
	}
	if i := strings.Index(s, " FROM "); i > 0 && strings.HasPrefix(s, "SELECT ") {
		s = "SELECT" + s[i:]
	}
	return s[:min(len(s), 70)]
}

// http puts the turnstile in front of a secret backend that speaks HTTP and returns its URL.
// name tells what a request is, "" for one that is nobody's operation.
func (g *turnstile) http(t *testing.T, url string, name func(*http.Request) string, refusal servers.Fault) string {
	p := servers.NewFaultProxy(t, url)
	p.Inject(func(w http.ResponseWriter, r *http.Request, ask http.HandlerFunc) {
		text := name(r)
		if text == "" {
			ask(w, r)
			return
		}
		answer := httptest.NewRecorder()
		switch g.judge("store", text, func() { ask(answer, r) }) {
		case lose:
			panic(http.ErrAbortHandler)
		case refuse:
			refusal(w, r, ask)
		case pass:
			for k, v := range answer.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(answer.Code)
			_, _ = io.Copy(w, answer.Body)
		}
	})
	return p.URL
}

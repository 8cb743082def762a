package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func process(killed time.Time) *incarnation { return &incarnation{killed: killed} }

// family returns a book with one grant, whose first refresh token is r1.
func family() *tokens {
	t := newTokens()
	t.exchanged("", "a1", "r1", now)
	return t
}

func TestRefreshesInTurnAreNoDuplicates(t *testing.T) {
	book := family()
	book.present("r1", process(time.Time{}), now)
	book.refused("r1") // invalid_client: the secret was rotated
	book.present("r1", process(time.Time{}), now)
	book.exchanged("r1", "a2", "r2", now)
	book.present("r2", process(time.Time{}), now)
	book.exchanged("r2", "a3", "r3", now)
	issued, orphans, twice := book.counts()
	require.Equal(t, 3, issued)
	require.Zero(t, orphans)
	require.Empty(t, twice)
	require.Equal(t, []int{1, 2, 3, 0}, []int{book.number("a1"), book.number("a2"), book.number("a3"), book.number("foreign")})
}

func TestDuplicatesAreCounted(t *testing.T) {
	for name, before := range map[string]func(*tokens){
		"under way":            func(b *tokens) { b.present("r1", process(time.Time{}), now) },
		"under way, by nobody": func(b *tokens) { b.present("r1", nil, now) },
		"exchanged":            func(b *tokens) { b.present("r1", process(time.Time{}), now); b.exchanged("r1", "a2", "r2", now) },
		"handed out, then died": func(b *tokens) {
			b.present("r1", process(now.Add(time.Second)), now)
			b.exchanged("r1", "a2", "r2", now)
			b.handedOut("a2")
		},
		"long stored, then died": func(b *tokens) {
			b.present("r1", process(now.Add(storeTime)), now)
			b.exchanged("r1", "a2", "r2", now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			book := family()
			before(book)
			book.present("r1", process(time.Time{}), now)
			_, orphans, twice := book.counts()
			require.Zero(t, orphans)
			require.Len(t, twice, 1)
			require.False(t, book.orphaned("a1"))
		})
	}
}

func TestATokenThatDiedWithItsProcessIsNoDuplicate(t *testing.T) {
	for name, before := range map[string]func(*tokens){
		"unanswered": func(b *tokens) { b.present("r1", process(now.Add(time.Second)), now) },
		"answered": func(b *tokens) {
			b.present("r1", process(now.Add(time.Second)), now)
			b.exchanged("r1", "a2", "r2", now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			book := family()
			before(book)
			book.present("r1", process(time.Time{}), now)
			_, orphans, twice := book.counts()
			require.Equal(t, 1, orphans)
			require.Empty(t, twice)
			require.True(t, book.orphaned("a1"))
		})
	}
}

// The recorder hears the provider out although the broker has gone.
func TestRecorderKnowsWhatABrokerDidNotHear(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "r1", r.PostFormValue("refresh_token"))
		close(asked)
		<-answer
		_, _ = io.WriteString(w, `{"access_token":"a2","refresh_token":"r2"}`)
	}))
	defer provider.Close()
	book := family()
	rec := newRecorder(book, provider.URL, func(net.Conn) *incarnation { return nil })
	require.NoError(t, rec.listen())
	defer rec.close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, rec.url()+"/token", strings.NewReader(url.Values{"refresh_token": {"r1"}}.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, err = http.DefaultClient.Do(r)
	require.ErrorIs(t, err, context.Canceled)
	close(answer)
	require.Eventually(t, func() bool { return book.number("a2") == 2 }, 30*time.Second, 10*time.Millisecond)
}

// The process behind a connection is found, and no other is taken for it.
func TestSocketsHaveOwners(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	conn, err := ln.Accept()
	require.NoError(t, err)
	defer conn.Close()
	inode := socketInode(conn.RemoteAddr(), conn.LocalAddr())
	require.NotEmpty(t, inode)
	require.NotEqual(t, inode, socketInode(conn.LocalAddr(), conn.RemoteAddr()))
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.True(t, (&incarnation{cmd: &exec.Cmd{Process: self}}).owns(inode))
	other := exec.Command("sleep", "60")
	require.NoError(t, other.Start())
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	require.False(t, (&incarnation{cmd: other}).owns(inode))
}

// The proxy goes past a replica that is down, and cuts what hangs on one that dies.
func TestProxy(t *testing.T) {
	dead, err := freeAddress()
	require.NoError(t, err)
	alive := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	p := newProxy()
	p.backends = []string{dead, alive.Listener.Addr().String()}
	require.NoError(t, p.listen())
	defer p.close()
	book := newLedger()
	c := newClient(p.address, book)
	for range 2 * callsPerConnection {
		require.Equal(t, http.StatusTeapot, c.call(t.Context(), "call", http.MethodGet, "/", nil).status)
	}
	alive.CloseClientConnections()
	alive.Close()
	require.Equal(t, "connection cut", c.call(t.Context(), "call", http.MethodPost, "/", nil).class())
	require.Equal(t, 2*callsPerConnection+1, book.lines["call"].calls)
	require.Equal(t, 1, book.lines["call"].classes["connection cut"])
}

func TestClasses(t *testing.T) {
	back, err := url.Parse("https://app.example.com/done?status=error&error=invalid_state")
	require.NoError(t, err)
	body, err := json.Marshal(map[string]string{"error": "internal_error"})
	require.NoError(t, err)
	require.Equal(t, "302 with invalid_state", answer{status: 302, location: back}.class())
	require.Equal(t, "500 internal_error", answer{status: 500, body: body}.class())
	require.Equal(t, good, answer{status: 200}.class())
	require.Equal(t, "connection cut", answer{err: io.ErrUnexpectedEOF}.class())
}

// Whatever must not be there ends the program with a failure.
func TestVerdict(t *testing.T) {
	require.True(t, verdict{orphans: 3, ended: 2}.kept())
	for _, v := range []verdict{{lost: []string{"x"}}, {twice: []string{"x"}}, {dead: []string{"x"}}, {left: []string{"x"}}} {
		require.False(t, v.kept())
		s := &soak{ledger: newLedger(), tokens: newTokens()}
		require.Contains(t, s.report(time.Minute, v), "BROKEN x")
	}
}

// An older token after a newer one is a lost update.
func TestAnOlderTokenIsALostUpdate(t *testing.T) {
	book := family()
	book.exchanged("r1", "a2", "r2", now)
	answers := []string{"a2", "a1"}
	broker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"access_token": answers[0]})
		answers = answers[1:]
	}))
	defer broker.Close()
	s := &soak{ledger: newLedger(), tokens: book}
	c, one := newClient(broker.Listener.Addr().String(), s.ledger), &connection{id: "c"}
	s.ask(t.Context(), c, one, "token", http.MethodGet)
	require.Empty(t, s.ledger.losses())
	s.ask(t.Context(), c, one, "token", http.MethodGet)
	require.Len(t, s.ledger.losses(), 1)
}

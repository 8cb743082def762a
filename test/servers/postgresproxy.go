package servers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
)

// PostgresProxy stands in front of a PostgreSQL server and sees every statement that
// is executed, between the client's asking and its getting the answer.
//
// It understands as much of the protocol (PostgreSQL documentation, "Message Formats")
// as a client needs that waits for each answer before it asks again: no TLS, no COPY, no
// password. It needs no server installed.
type PostgresProxy struct {
	URL string // of the database, through the proxy

	t      TB
	target string // host:port

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]struct{}
	around   Around
	era      int // how often the connections have vanished
}

// Around is what happens to the execution of a statement. ask has the server execute it,
// and waits for the answer; false if the server has gone away. The client gets the answer
// if Around returns true; else its connection is cut, and the session at the server ends.
type Around func(statement string, ask func() bool) bool

// NewPostgresProxy starts a proxy in front of a database; it ends with the test.
func NewPostgresProxy(t TB, database string) *PostgresProxy {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatalf("proxy of PostgreSQL: %v", err)
	}
	p := &PostgresProxy{t: t, target: u.Host, open: map[net.Conn]struct{}{}}
	p.listen("127.0.0.1:0")
	u.Host = p.listener.Addr().String()
	p.URL = u.String()
	t.Cleanup(p.Down)
	return p
}

// Around sets what happens to every statement from now on; nil: nothing.
func (p *PostgresProxy) Around(a Around) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.around = a
}

// Vanish makes the connections that are open vanish without a word: what is sent on them
// arrives nowhere, and nothing comes back. Connections that are made afterwards work.
func (p *PostgresProxy) Vanish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.era++
}

// vanished reports whether a session has vanished; if so it returns when the client has
// given up.
func (p *PostgresProxy) vanished(s *pgSession) bool {
	p.mu.Lock()
	gone := s.era != p.era
	p.mu.Unlock()
	if gone {
		_, _ = io.Copy(io.Discard, s.client)
	}
	return gone
}

// Down closes the port: connections are refused, open ones are cut.
func (p *PostgresProxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
	for c := range p.open {
		_ = c.Close()
	}
}

// Up opens the same port again.
func (p *PostgresProxy) Up() {
	p.t.Helper()
	p.listen(p.listener.Addr().String())
}

func (p *PostgresProxy) listen(address string) {
	p.t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		p.t.Fatalf("proxy of PostgreSQL: %v", err)
	}
	p.mu.Lock()
	p.listener = ln
	p.mu.Unlock()
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
}

// keep remembers a connection for Down, until the function that it returns closes it.
func (p *PostgresProxy) keep(c net.Conn) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = struct{}{}
	return func() {
		_ = c.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.open, c)
	}
}

func (p *PostgresProxy) serve(client net.Conn) {
	defer p.keep(client)()
	first, err := opening(client)
	if err != nil {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.keep(server)()
	if _, err := server.Write(first); err != nil || isCancel(first) {
		return
	}
	p.mu.Lock()
	s := &pgSession{client: client, server: server, era: p.era, statements: map[string]string{}}
	p.mu.Unlock()
	if !s.ask(nil) || s.deliver() != nil {
		return
	}
	for s.exchange(p) {
	}
}

// Codes in the place of a protocol version.
const (
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssRequest    = 80877104
)

// opening reads what a client begins with, refusing encryption.
func opening(client net.Conn) ([]byte, error) {
	for {
		first := make([]byte, 8)
		if _, err := io.ReadFull(client, first); err != nil {
			return nil, err
		}
		size := binary.BigEndian.Uint32(first)
		if size < 8 || size > 10_000 {
			return nil, fmt.Errorf("an opening of %d bytes", size)
		}
		rest := make([]byte, size-8)
		if _, err := io.ReadFull(client, rest); err != nil {
			return nil, err
		}
		switch binary.BigEndian.Uint32(first[4:]) {
		case sslRequest, gssRequest:
			if _, err := client.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		default:
			return append(first, rest...), nil
		}
	}
}

func isCancel(first []byte) bool { return binary.BigEndian.Uint32(first[4:]) == cancelRequest }

// pgSession is one client's session.
type pgSession struct {
	client, server net.Conn
	era            int               // in which it began
	statements     map[string]string // that were prepared
	bound          string            // the statement that is executed next
	answer         []byte
}

// exchange passes on one question, which the client ends with Sync or Query, and its
// answer; false when the session is over.
func (s *pgSession) exchange(p *PostgresProxy) bool {
	var question []byte
	executed := ""
	for complete := false; !complete; {
		kind, message, err := readMessage(s.client)
		if err != nil {
			return false
		}
		question = append(question, message...)
		body := message[5:]
		switch kind {
		case 'P': // Parse
			name, rest := cString(body)
			s.statements[name], _ = cString(rest)
		case 'B': // Bind
			_, rest := cString(body)
			name, _ := cString(rest)
			s.bound = s.statements[name]
		case 'E': // Execute
			executed = s.bound
		case 'Q': // Query
			executed, _ = cString(body)
			complete = true
		case 'S': // Sync
			complete = true
		case 'X': // Terminate
			_, _ = s.server.Write(question)
			return false
		}
	}
	if p.vanished(s) {
		return false
	}
	p.mu.Lock()
	around := p.around
	p.mu.Unlock()
	ask := func() bool { return s.ask(question) }
	switch {
	case executed == "" || around == nil:
		if !ask() {
			return false
		}
	case !around(executed, ask):
		return false
	}
	return !p.vanished(s) && s.deliver() == nil
}

// ask sends a question and reads the answer, which ReadyForQuery ends.
func (s *pgSession) ask(question []byte) bool {
	if _, err := s.server.Write(question); err != nil {
		return false
	}
	for {
		kind, message, err := readMessage(s.server)
		if err != nil {
			return false
		}
		s.answer = append(s.answer, message...)
		if kind == 'Z' {
			return true
		}
	}
}

func (s *pgSession) deliver() error {
	_, err := s.client.Write(s.answer)
	s.answer = nil
	return err
}

// readMessage reads one message, head included.
func readMessage(r io.Reader) (kind byte, message []byte, err error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 || size > 1<<26 {
		return 0, nil, errors.New("not a message of PostgreSQL")
	}
	message = append(head, make([]byte, size-4)...)
	_, err = io.ReadFull(r, message[5:])
	return head[0], message, err
}

func cString(b []byte) (s string, rest []byte) {
	end := slices.Index(b, 0)
	if end < 0 {
		return "", nil
	}
	return string(b[:end]), b[end+1:]
}

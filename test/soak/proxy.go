package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy passes connections on to the replicas in turn, leaving out those that do not
// accept one. It knows nothing of HTTP and repeats nothing: what is on a connection
// when its replica dies is lost to the client.
type proxy struct {
	address  string
	backends []string

	listener net.Listener
	turn     atomic.Uint64
	mu       sync.Mutex
	open     map[net.Conn]struct{}
}

func newProxy() *proxy { return &proxy{open: map[net.Conn]struct{}{}} }

func (p *proxy) listen() (err error) {
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	p.address = p.listener.Addr().String()
	go func() {
		for {
			conn, err := p.listener.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return nil
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		_ = conn.Close()
	}
}

func (p *proxy) serve(client net.Conn) {
	defer p.forget(p.keep(client))
	backend := p.dial()
	if backend == nil {
		return
	}
	defer p.forget(p.keep(backend))
	done := make(chan struct{}, 2)
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		done <- struct{}{}
	}
	go pass(backend, client)
	go pass(client, backend)
	<-done // either end: HTTP has no use for half a connection
}

func (p *proxy) dial() net.Conn {
	first := int(p.turn.Add(1))
	for i := range p.backends {
		conn, err := net.DialTimeout("tcp", p.backends[(first+i)%len(p.backends)], time.Second)
		if err == nil {
			return conn
		}
	}
	return nil
}

func (p *proxy) keep(c net.Conn) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = struct{}{}
	return c
}

func (p *proxy) forget(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

package main

import (
	"context"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// crowd sends requests from callers that all start at once.
type crowd struct {
	sockets int // at most, so many requests are on their way at a time
	written atomic.Int64
	all     chan struct{} // closed when sockets requests have been written
}

// newCrowd takes as many sockets as callers, if the process may have them.
func newCrowd(callers int) *crowd {
	c := &crowd{sockets: callers, all: make(chan struct{})}
	var limit syscall.Rlimit
	const others = 1000
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil && limit.Cur < uint64(callers+others) {
		c.sockets = max(1, int(limit.Cur)-others)
	}
	return c
}

// waiting returns once all requests that there are sockets for have been written and
// the receiver had a moment to read them, or after limit.
func (c *crowd) waiting(ctx context.Context, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-c.all:
	case <-ctx.Done():
		return
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
}

// send sends the requests and returns how often each status was answered; 0 stands
// for no answer.
func (c *crowd) send(ctx context.Context, callers int, request func(ctx context.Context, i int) (*http.Request, error)) map[int]int {
	transport := &http.Transport{MaxConnsPerHost: c.sockets, MaxIdleConnsPerHost: c.sockets}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 2 * time.Minute}
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) {
		if c.written.Add(1) == int64(c.sockets) {
			close(c.all)
		}
	}}
	ctx = httptrace.WithClientTrace(ctx, trace)
	var mu sync.Mutex
	statuses := map[int]int{}
	var done sync.WaitGroup
	for i := range callers {
		done.Go(func() {
			status := 0
			if r, err := request(ctx, i); err == nil {
				_, status, _ = exchange(client, r)
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	done.Wait()
	return statuses
}

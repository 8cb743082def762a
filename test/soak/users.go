package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"time"
)

// users are the connections that were made.
type users struct {
	mu   sync.Mutex
	list []*connection
}

// connection is a user's, with what callers have been told of it.
type connection struct {
	id string

	mu     sync.Mutex
	number int    // of the newest token that was handed out
	access string // that token
	dead   bool   // a caller was told that the user must consent again
}

const (
	firstConnections = 20
	mostConnections  = 200
)

func (u *users) add(c *connection) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = append(u.list, c)
}

func (u *users) all() []*connection {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*connection(nil), u.list...)
}

// traffic are the jobs of the callers, until their context ends.
func (s *soak) traffic() (jobs []func(context.Context) error) {
	for range 3 {
		jobs = append(jobs, s.consenting)
	}
	for range 4 {
		jobs = append(jobs, s.fetching)
	}
	for range 3 {
		jobs = append(jobs, s.refreshing)
	}
	for i := range 3 {
		jobs = append(jobs, func(ctx context.Context) error { return s.administering(ctx, i) })
	}
	return jobs
}

// connectFirst makes the connections that there are before anything breaks.
func (s *soak) connectFirst(ctx context.Context) error {
	c := newClient(s.proxy.address, s.ledger)
	for range firstConnections {
		if err := s.connect(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

var errFlow = errors.New("a consent did not succeed")

// connect takes a user through a consent.
func (s *soak) connect(ctx context.Context, c *client) error {
	a := c.call(ctx, "consent", http.MethodPost, "/auth/consent-spec", map[string]any{
		"workspace_id": "soak", "provider_id": s.flow, "scopes": []string{"email"}, "return_url": "https://app.example.com/done",
	})
	if !a.ok() {
		return fmt.Errorf("%w: %s", errFlow, a.class())
	}
	callback, err := authorize(ctx, a.text("authUrl"), c.base)
	if err != nil {
		return err
	}
	a = c.call(ctx, "callback", http.MethodGet, callback.RequestURI(), nil)
	if !a.ok() || a.location == nil {
		return fmt.Errorf("%w: %s", errFlow, a.class())
	}
	one := &connection{id: a.location.Query().Get("connection_id")}
	for !s.ask(ctx, c, one, "token", http.MethodGet).ok() { // so that its grant is known
		if !pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	s.users.add(one)
	return nil
}

// authorize lets the user agree and returns the callback.
func authorize(ctx context.Context, authURL, base string) (callback *url.URL, err error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	browser := &http.Client{Jar: jar, Timeout: patience, Transport: transport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), base+"/auth/callback") {
			callback = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, authURL, nil)
	if err != nil {
		return nil, err
	}
	body, status, err := exchange(browser, r)
	if err == nil && callback == nil {
		err = fmt.Errorf("%w: the provider answered %d: %.200s", errFlow, status, body)
	}
	return callback, err
}

// consenting connects one user after another, and does nothing once there are many.
func (s *soak) consenting(ctx context.Context) error {
	c := newClient(s.proxy.address, s.ledger)
	for pause(ctx, s.rand.between(100*time.Millisecond, 500*time.Millisecond)) {
		if len(s.users.all()) >= mostConnections {
			continue
		}
		if err := s.connect(ctx, c); err != nil && !errors.Is(err, errFlow) && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// fetching asks for tokens.
func (s *soak) fetching(ctx context.Context) error {
	c := newClient(s.proxy.address, s.ledger)
	for pause(ctx, s.rand.between(0, 20*time.Millisecond)) {
		s.ask(ctx, c, s.someone(), "token", http.MethodGet)
	}
	return nil
}

// refreshing asks for a refresh of one connection from several callers at once, each
// with a connection of its own, so that they come to different replicas.
func (s *soak) refreshing(ctx context.Context) error {
	callers := make([]*client, 4)
	for i := range callers {
		callers[i] = newClient(s.proxy.address, s.ledger)
	}
	for pause(ctx, s.rand.between(20*time.Millisecond, 200*time.Millisecond)) {
		one := s.someone()
		var all sync.WaitGroup
		for _, c := range callers {
			all.Go(func() { s.ask(ctx, c, one, "refresh", http.MethodPost) })
		}
		all.Wait()
	}
	return nil
}

func (s *soak) someone() *connection {
	all := s.users.all()
	return all[s.rand.below(len(all))]
}

// ask asks for a connection's token and compares the answer with what was known when
// the call began: a token that is older than one that somebody had been given by then
// means that a newer one was lost.
func (s *soak) ask(ctx context.Context, c *client, one *connection, what, method string) answer {
	path := "/connections/" + one.id + map[string]string{"token": "/token", "refresh": "/refresh"}[what]
	known := one.newest()
	a := c.call(ctx, what, method, path, nil)
	switch {
	case a.ok():
		access := a.text("access_token")
		number := s.tokens.number(access)
		if number < known {
			s.ledger.lose("connection %s: token %d was answered after token %d had been", one.id, number, known)
		}
		s.tokens.handedOut(access)
		one.given(access, number)
	case strings.HasSuffix(a.class(), "attention_required"):
		one.mu.Lock()
		one.dead = true
		one.mu.Unlock()
	}
	return a
}

func (one *connection) newest() int {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.number
}

func (one *connection) given(access string, number int) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if number > one.number {
		one.number, one.access = number, access
	}
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// administering registers providers, changes and renames them and deletes them, and
// looks after each step whether what was acknowledged is so.
func (s *soak) administering(ctx context.Context, worker int) error {
	c := newClient(s.proxy.address, s.ledger)
	for n := 0; pause(ctx, s.rand.between(50*time.Millisecond, 300*time.Millisecond)); n++ {
		p := &provider{soak: s, client: c, name: fmt.Sprintf("soak-%d-%d", worker, n)}
		if p.register(ctx) {
			p.live(ctx)
		}
	}
	return nil
}

// provider is one that a single administrator works on. Every third one is left where
// it is, for the end of the run to delete.
type provider struct {
	*soak
	client *client

	id, name string
	changes  int
}

func (p *provider) secret() string { return fmt.Sprintf("secret-%s-%d", p.id, p.changes) }

func (p *provider) register(ctx context.Context) bool {
	profile := map[string]any{
		"name": p.name, "auth_url": "https://p.example.com/a", "token_url": "https://p.example.com/t",
		"client_id": "client", "client_secret": "first",
	}
	a := p.client.call(ctx, "register", http.MethodPost, "/providers", map[string]any{"profile": profile})
	p.id = a.text("id")
	// One that failed is not tried again: nothing of it may be left in the end.
	return a.ok()
}

// live takes the provider through its life, until a step fails for good.
func (p *provider) live(ctx context.Context) {
	for _, step := range []func(context.Context) bool{p.change, p.change, p.rename, p.change, p.remove} {
		if !step(ctx) {
			return
		}
	}
}

// change gives the provider a new secret and a new description.
func (p *provider) change(ctx context.Context) bool {
	p.changes++
	description := fmt.Sprint(p.changes)
	if !p.insist(ctx, "update", http.MethodPatch, map[string]any{"client_secret": p.secret(), "description": description}) {
		return false
	}
	return p.check(ctx, "description", description)
}

func (p *provider) rename(ctx context.Context) bool {
	p.name += "-renamed"
	return p.insist(ctx, "rename", http.MethodPatch, map[string]any{"name": p.name}) && p.check(ctx, "name", p.name)
}

func (p *provider) remove(ctx context.Context) bool {
	if p.rand.below(3) == 0 {
		return true
	}
	if !p.insist(ctx, "delete", http.MethodDelete, nil) {
		return false
	}
	a := p.look(ctx)
	if a.ok() {
		p.ledger.lose("provider %s is there after it had been deleted", p.name)
	}
	return true
}

// insist repeats a call that may be repeated until it is acknowledged.
func (p *provider) insist(ctx context.Context, what, method string, body any) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if p.client.call(ctx, what, method, "/providers/"+p.id, body).ok() {
			return true
		}
		if !pause(ctx, 200*time.Millisecond) {
			return false
		}
	}
	return false // the class of its failures is in the ledger
}

// check compares what a replica answers with what was acknowledged.
func (p *provider) check(ctx context.Context, member, want string) bool {
	a := p.look(ctx)
	if ctx.Err() != nil {
		return false
	}
	if got := a.text(member); a.status != http.StatusOK || got != want {
		p.ledger.lose("provider %s: %s is %q (%d) after %q had been acknowledged", p.name, member, got, a.status, want)
	}
	return true
}

// look reads the provider until there is a definite answer.
func (p *provider) look(ctx context.Context) answer {
	for {
		a := p.client.call(ctx, "profile", http.MethodGet, "/providers/"+p.id, nil)
		if a.status == http.StatusOK || a.status == http.StatusNotFound || !pause(ctx, 200*time.Millisecond) {
			return a
		}
	}
}

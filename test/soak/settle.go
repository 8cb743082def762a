package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// settle mends everything, lets the brokers come to rest and looks at what is left.
func (s *soak) settle(ctx context.Context) (v verdict, err error) {
	s.say("the traffic has ended; waiting for the replicas")
	for _, b := range s.brokers {
		if b.current() == nil {
			if err := s.revive(ctx, b); err != nil {
				return v, err
			}
		}
	}
	if err := s.awaitReady(ctx); err != nil {
		return v, err
	}
	c := newClient(s.proxy.address, newLedger())
	s.lookAtConnections(ctx, c, &v)
	if err := s.deleteProviders(ctx, c); err != nil {
		return v, err
	}
	s.say("waiting until nothing is left over")
	err = s.Guard(func() (err error) {
		for deadline := time.Now().Add(s.settleTime); ; {
			if v.left, err = s.leftOver(ctx); err != nil || len(v.left) == 0 || time.Now().After(deadline) {
				return err
			}
			if !pause(ctx, time.Second) {
				return ctx.Err()
			}
		}
	})
	for _, what := range v.left {
		s.evidence(ctx, what)
	}
	_, v.orphans, v.twice = s.tokens.counts()
	v.lost = s.ledger.losses()
	return v, err
}

// lookAtConnections refreshes every connection. One that cannot be refreshed must be
// one whose grant the provider has ended, because a process died with its tokens.
func (s *soak) lookAtConnections(ctx context.Context, c *client, v *verdict) {
	for _, one := range s.users.all() {
		v.connected++
		a := s.ask(ctx, c, one, "refresh", http.MethodPost)
		if a.ok() {
			continue
		}
		one.mu.Lock()
		access := one.access
		one.mu.Unlock()
		if access != "" && s.tokens.orphaned(access) {
			v.ended++
			continue
		}
		v.dead = append(v.dead, fmt.Sprintf("connection %s cannot be refreshed: %s", one.id, a.class()))
	}
}

func (s *soak) deleteProviders(ctx context.Context, c *client) error {
	a := c.call(ctx, "list", http.MethodGet, "/providers", nil)
	if !a.ok() {
		return fmt.Errorf("listing the providers: %s", a.class())
	}
	for _, id := range ids(a.body) {
		for deadline := time.Now().Add(patience); ; {
			a := c.call(ctx, "delete", http.MethodDelete, "/providers/"+id, nil)
			if a.ok() {
				break
			}
			if time.Now().After(deadline) || !pause(ctx, 500*time.Millisecond) {
				return fmt.Errorf("deleting a provider: %s", a.class())
			}
		}
	}
	return nil
}

// leftOver returns what is in the vault, and what the database still has to do.
func (s *soak) leftOver(ctx context.Context) (left []string, err error) {
	for _, name := range s.list("") {
		for _, key := range s.list(name) {
			left = append(left, "in the vault: "+prefix+"/"+name+key)
		}
	}
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	for what, query := range map[string]string{
		"deletions that were not finished":  "SELECT count(*) FROM credential_cleanups",
		"operations that were not finished": "SELECT count(*) FROM provider_profiles WHERE op IS NOT NULL AND op <> ''",
	} {
		var n int
		if err := conn.QueryRow(ctx, query).Scan(&n); err != nil {
			return nil, err
		}
		if n > 0 {
			left = append(left, fmt.Sprintf("in the database: %d %s", n, what))
		}
	}
	return left, nil
}

// list returns the names below a path of the vault; folders end in a slash.
func (s *soak) list(below string) (names []string) {
	answer := s.vault.Read("secret/metadata/" + prefix + "/" + strings.TrimSuffix(below, "/") + "?list=true")
	data, _ := answer["data"].(map[string]any)
	keys, _ := data["keys"].([]any)
	for _, k := range keys {
		if name, ok := k.(string); ok {
			names = append(names, name)
		}
	}
	return names
}

// ids returns the ids of a list of providers.
func ids(list []byte) (all []string) {
	var providers []struct{ ID string }
	_ = json.Unmarshal(list, &providers)
	for _, p := range providers {
		all = append(all, p.ID)
	}
	return all
}

// evidence prints what is known of a secret that is left over: its mark and versions,
// and what the audit log and the brokers' logs say of its provider.
func (s *soak) evidence(ctx context.Context, left string) {
	key, inVault := strings.CutPrefix(left, "in the vault: ")
	if !inVault {
		return
	}
	_ = s.Guard(func() error {
		data, _ := s.vault.Read("secret/metadata/" + key)["data"].(map[string]any)
		s.say("%s: mark %v, versions %v", key, data["custom_metadata"], data["versions"])
		return nil
	})
	name := strings.TrimSuffix(strings.Split(strings.TrimPrefix(key, prefix+"/"), "/")[0], "-renamed")
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		return
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT created_at, event_type, event_data::text FROM audit_events WHERE event_data::text LIKE $1 ORDER BY created_at",
		"%"+name+"%")
	if err != nil {
		return
	}
	defer rows.Close()
	for rows.Next() {
		var at time.Time
		var kind, data string
		if rows.Scan(&at, &kind, &data) == nil {
			s.say("  %s %s %s", at.UTC().Format("15:04:05.000"), kind, data)
		}
	}
	for _, b := range s.brokers {
		for _, line := range b.mentions(name) {
			s.say("  %s: %s", b.name, line)
		}
	}
}

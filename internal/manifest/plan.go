package manifest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
)

// Action is what is to be done with a provider.
type Action string

// The actions.
const (
	Create    Action = "create"
	Update    Action = "update"
	Unchanged Action = "unchanged"
	Delete    Action = "delete"
	Orphan    Action = "orphan" // not in the manifest, and left alone
)

// Options select what a plan does.
type Options struct {
	// SetCredentials: credentials that cannot be compared are sent.
	SetCredentials bool
	// Prune: providers that the manifest does not name are deleted, but not those of older
	// brokers whose names it cannot hold.
	Prune bool
}

// Plan is what makes a broker's providers into those of a manifest. It holds no
// credential that prints itself.
type Plan struct {
	// Changes are those of the manifest's providers, in its order, and then, by name,
	// what it does not name.
	Changes []Change `json:"providers"`
}

// Change is what is to be done with one provider.
type Change struct {
	Name   string        `json:"name"`
	ID     string        `json:"id,omitempty"` // "" for one to create
	Action Action        `json:"action"`
	Fields []FieldChange `json:"fields,omitempty"`
	// Unknown are the credentials in the manifest that cannot be compared.
	Unknown []string `json:"unknown,omitempty"`
	// Note is what a person should know of it; "" for nothing.
	Note string `json:"note,omitempty"`

	send apiclient.Fields
}

// FieldChange is one member that changes. Of a masked one only the kind of the change
// is said.
type FieldChange struct {
	Field  string `json:"field"`
	Old    any    `json:"old"` // nil: none
	New    any    `json:"new"` // nil: none
	Masked string `json:"masked,omitempty"`
}

// Count returns how many providers have the action.
func (p Plan) Count(a Action) (n int) {
	for _, c := range p.Changes {
		if c.Action == a {
			n++
		}
	}
	return n
}

// Empty reports whether nothing is to be done. Orphans that stay are nothing.
func (p Plan) Empty() bool { return p.Count(Create)+p.Count(Update)+p.Count(Delete) == 0 }

// readers is how many profiles are read at once.
const readers = 8

// MakePlan compares a manifest with what the broker has. It changes nothing.
func MakePlan(ctx context.Context, broker *apiclient.Client, m Manifest, o Options) (Plan, error) {
	listed, err := broker.Providers(ctx)
	if err != nil {
		return Plan{}, err
	}
	has, err := byName(listed)
	if err != nil {
		return Plan{}, err
	}
	matched := make([]string, len(m.Providers)) // ids, "" for none
	taken := map[string]bool{}
	for i, want := range m.Providers {
		id := has[want.Name]
		if id == "" && want.PreviousName != "" {
			id = has[want.PreviousName]
		}
		if id != "" && taken[id] {
			return Plan{}, fmt.Errorf("two providers of the manifest are the broker's %q, one of them by its previous_name", want.PreviousName)
		}
		matched[i], taken[id] = id, true
	}
	current, failed := profiles(ctx, broker, matched)
	if len(failed) > 0 {
		return Plan{}, errors.Join(slices.Collect(maps.Values(failed))...)
	}
	mask := newMask(m, current)
	var p Plan
	for i, want := range m.Providers {
		p.Changes = append(p.Changes, compare(want, current[matched[i]], o, mask))
	}
	slices.SortFunc(listed, func(a, b apiclient.Summary) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range listed {
		if !taken[s.ID] {
			action := Orphan
			// A manifest that was exported cannot name the others, and would delete them.
			if o.Prune && legalName(s.Name) {
				action = Delete
			}
			p.Changes = append(p.Changes, Change{Name: s.Name, ID: s.ID, Action: action})
		}
	}
	return p, nil
}

// byName returns the ids by name. An old database may hold a name twice.
func byName(listed []apiclient.Summary) (map[string]string, error) {
	ids := map[string]string{}
	for _, s := range listed {
		if ids[s.Name] != "" {
			return nil, fmt.Errorf("the broker has two providers named %q, %s and %s: rename or delete one of them", s.Name, ids[s.Name], s.ID)
		}
		ids[s.Name] = s.ID
	}
	return ids, nil
}

// profiles reads the profiles with these ids, "" left out, and returns why one could not be
// read. One that has been deleted since it was listed is left out too.
func profiles(ctx context.Context, broker *apiclient.Client, ids []string) (found map[string]*apiclient.Profile, failed map[string]error) {
	found, failed = map[string]*apiclient.Profile{}, map[string]error{}
	var (
		mu    sync.Mutex
		group errgroup.Group
	)
	group.SetLimit(readers)
	for _, id := range ids {
		if id == "" {
			continue
		}
		group.Go(func() error {
			p, err := broker.Provider(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				found[id] = &p
			case !errors.Is(err, apiclient.ErrNotFound):
				failed[id] = err
			}
			return nil
		})
	}
	_ = group.Wait() // what failed is in failed
	return found, failed
}

// WithoutDeletions returns the plan with what it deletes left alone.
func (p Plan) WithoutDeletions() Plan {
	p.Changes = slices.Clone(p.Changes)
	for i := range p.Changes {
		if p.Changes[i].Action == Delete {
			p.Changes[i].Action = Orphan
		}
	}
	return p
}

package manifest

import (
	"context"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
)

// Result is what has become of one change.
type Result struct {
	Name   string `json:"name"`
	ID     string `json:"id,omitempty"`
	Action Action `json:"action"`
	// Error is why it failed; "" if it has been done.
	Error string `json:"error,omitempty"`
	// Skipped: it was not tried, because something before it had failed.
	Skipped bool `json:"skipped,omitempty"`
}

// Apply carries out the plan, one provider after the other, and tells done of each. A
// failure does not stop the others, but nothing is deleted after one: what was to take
// a provider's place may be missing. What was left can be planned and applied again.
// It returns how many were not done.
func Apply(ctx context.Context, broker *apiclient.Client, p Plan, done func(Result)) (failed int) {
	for _, c := range p.Changes {
		if c.Action == Unchanged || c.Action == Orphan {
			continue
		}
		r := Result{Name: c.Name, ID: c.ID, Action: c.Action}
		if r.Skipped = ctx.Err() != nil || c.Action == Delete && failed > 0; !r.Skipped {
			if err := c.carryOut(ctx, broker, &r); err != nil {
				r.Error = err.Error()
			}
		}
		if r.Skipped || r.Error != "" {
			failed++
		}
		done(r)
	}
	return failed
}

func (c Change) carryOut(ctx context.Context, broker *apiclient.Client, r *Result) (err error) {
	switch c.Action {
	case Create:
		r.ID, err = broker.Register(ctx, c.send)
	case Update:
		err = broker.Patch(ctx, c.ID, c.send)
	case Delete:
		err = broker.Delete(ctx, c.ID)
	}
	return err
}

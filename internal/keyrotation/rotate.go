package keyrotation

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nexus-broker/nexus-broker/internal/seal"
)

const (
	// pageSize is how many envelopes are in memory for each worker, and in one
	// transaction. A broker that waits for one of the rows waits that long.
	pageSize = 100
	// maxReported is how many rows that do not open are named; all are counted.
	maxReported = 1000
	// endedFor is how long a consent has ended before what it holds is erased instead of
	// re-sealed: by then no broker takes it, whose clock may be minutes behind.
	endedFor = time.Hour
)

// Rotator rotates what Rows holds.
type Rotator struct {
	Rows Rows
	Keys *seal.Keyring
	// Workers is how many transactions run at once; less than 1: one.
	Workers int
	// DryRun: count what would be done, opening it, and change nothing.
	DryRun bool
	// Progress, if not nil, is called after every page, by one goroutine at a time.
	Progress func(Progress)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Progress says how far a rotation is with a place.
type Progress struct {
	Place Place
	Done  int // envelopes looked at
	Total int // about: brokers add and remove meanwhile
}

// Result says what has become of a place's envelopes.
type Result struct {
	Place    Place `json:"place"`
	Current  int   `json:"current"`  // under the first key before
	Resealed int   `json:"resealed"` // under the first key now
	Erased   int   `json:"erased"`   // code verifiers of consents that had ended
	Changed  int   `json:"changed"`  // replaced or deleted by a broker meanwhile
	Closed   int   `json:"closed"`   // opened by no key of the ring, and left alone
}

// Closed is a row that no key of the ring opens.
type Closed struct {
	Place Place  `json:"place"`
	Row   string `json:"row"`
	KeyID string `json:"key,omitempty"` // "" if the envelope names none
}

// Report is what a rotation has done.
type Report struct {
	Places []Result `json:"places"`
	// Rows are those that no key opens, up to a thousand of them.
	Rows []Closed `json:"rows,omitempty"`
}

// Sum returns the sums of all places.
func (r Report) Sum() (sum Result) {
	for _, p := range r.Places {
		sum.add(p)
	}
	return sum
}

func (r *Result) add(o Result) {
	r.Current += o.Current
	r.Resealed += o.Resealed
	r.Erased += o.Erased
	r.Changed += o.Changed
	r.Closed += o.Closed
}

// Rotate goes once over every place. With an error, which is the database's or of ctx,
// the report says what was done until then.
func (r *Rotator) Rotate(ctx context.Context) (Report, error) {
	var report Report
	for _, place := range Places() {
		result, closed, err := r.rotatePlace(ctx, place)
		report.Places = append(report.Places, result)
		report.Rows = append(report.Rows, closed[:min(len(closed), maxReported-len(report.Rows))]...)
		if err != nil {
			return report, fmt.Errorf("rotating %s: %w", place, err)
		}
	}
	return report, nil
}

// outcome is what has become of a page.
type outcome struct {
	result Result
	closed []Closed
	looked int
}

func (r *Rotator) rotatePlace(ctx context.Context, place Place) (result Result, closed []Closed, err error) {
	result.Place = place
	total, err := r.Rows.CountEnvelopes(ctx, place)
	if err != nil {
		return result, nil, err
	}
	outcomes, done := make(chan outcome), make(chan struct{})
	go func() {
		defer close(done)
		looked := 0
		r.tell(Progress{place, 0, total})
		for o := range outcomes {
			result.add(o.result)
			closed = append(closed, o.closed[:min(len(o.closed), maxReported-len(closed))]...)
			looked += o.looked
			r.tell(Progress{place, looked, max(total, looked)})
		}
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, r.Workers) + 1) // and the one that reads
	group.Go(func() error {
		after := ""
		for {
			page, err := r.Rows.Envelopes(ctx, place, after, pageSize)
			if err != nil || len(page) == 0 {
				return err
			}
			after = page[len(page)-1].Row
			group.Go(func() error {
				o, err := r.rotatePage(ctx, place, page)
				outcomes <- o
				return err
			})
		}
	})
	err = group.Wait()
	close(outcomes)
	<-done
	return result, closed, err
}

func (r *Rotator) tell(p Progress) {
	if r.Progress != nil {
		r.Progress(p)
	}
}

// rotatePage re-seals what of a page is not under the first key.
func (r *Rotator) rotatePage(ctx context.Context, place Place, page []Envelope) (outcome, error) {
	o := outcome{looked: len(page)}
	var changes []Change
	erased := 0
	for _, e := range page {
		if r.Keys.Current(e.Sealed) {
			o.result.Current++
			continue
		}
		change := Change{Envelope: e}
		if r.ended(e) {
			erased++
		} else {
			plain, err := r.Keys.Open(e.Purpose, e.Sealed)
			if err != nil {
				o.result.Closed++
				o.closed = append(o.closed, Closed{place, e.Row, seal.KeyID(e.Sealed)})
				continue
			}
			change.Sealed = r.Keys.Seal(e.Purpose, plain)
			clear(plain)
		}
		changes = append(changes, change)
	}
	made := len(changes)
	if made > 0 && !r.DryRun {
		var err error
		if made, err = r.replace(ctx, place, changes); err != nil {
			return o, err
		}
	}
	// A broker that changed a row meanwhile has sealed under its own first key: --check
	// tells whether that is ours.
	o.result.Changed = len(changes) - made
	o.result.Erased = min(erased, made)
	o.result.Resealed = made - o.result.Erased
	return o, nil
}

// replace makes the changes and then leaves the database to the brokers for as long as
// that took: one that waits for SQLite's only writer asks for it in intervals, and would
// not find it free otherwise.
func (r *Rotator) replace(ctx context.Context, place Place, changes []Change) (made int, err error) {
	began := time.Now()
	made, err = r.Rows.ReplaceEnvelopes(ctx, place, changes)
	select {
	case <-time.After(time.Since(began)):
	case <-ctx.Done():
	}
	return made, err
}

// ended reports whether an envelope is of no use any more.
func (r *Rotator) ended(e Envelope) bool {
	now := time.Now
	if r.Now != nil {
		now = r.Now
	}
	return !e.Until.IsZero() && now().Sub(e.Until) > endedFor
}

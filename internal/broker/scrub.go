package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

// VerifyMoved compares, for each pair that a move has left behind in o.From, what lies
// there with the pair that is in use in o.To. It writes nothing.
func (s *Service) VerifyMoved(ctx context.Context, o MoveOptions) error {
	return s.forLeft(ctx, o, func(ctx context.Context, it moveItem) (MoveResult, error) {
		ctx, cancel := context.WithTimeout(ctx, s.opTime())
		defer cancel()
		return s.verifyLeft(ctx, it, o)
	})
}

// Scrub deletes the pairs that moves have left behind in o.From. Each is compared with the
// pair in use once more; what is not equal, or cannot be read or proved to be the
// broker's, stays and is reported.
func (s *Service) Scrub(ctx context.Context, o MoveOptions) error {
	if s.creds.ReadOnly() {
		return credentials.ErrReadOnly
	}
	return s.forLeft(ctx, o, func(ctx context.Context, it moveItem) (MoveResult, error) {
		return s.scrubLeft(ctx, it, o)
	})
}

func (s *Service) forLeft(ctx context.Context, o MoveOptions, do moveWork) error {
	total, err := s.CountLeft(ctx, o.From)
	if err != nil {
		return err
	}
	return newMover(s, o, total).run(ctx, s.leftBehind(o.From), do)
}

// CountLeft returns how many pairs moves have left behind in a backend.
func (s *Service) CountLeft(ctx context.Context, backend string) (n int, err error) {
	for page := (Page{Limit: movePage}); ; {
		notes, err := s.store.KeptCleanups(ctx, backend, page)
		if err != nil || len(notes) == 0 {
			return n, err
		}
		n += len(notes)
		page.After = notes[len(notes)-1].ID
	}
}

func (s *Service) leftBehind(backend string) moveSource {
	var after uuid.UUID
	return func(ctx context.Context) ([]moveItem, error) {
		notes, err := s.store.KeptCleanups(ctx, backend, Page{After: after, Limit: movePage})
		items := make([]moveItem, len(notes))
		for i, c := range notes {
			items[i], after = moveItem{provider: Provider{ID: c.ProviderID}, left: c}, c.ID
		}
		return items, err
	}
}

// verifyLeft compares one pair with the one in use.
func (s *Service) verifyLeft(ctx context.Context, it moveItem, o MoveOptions) (MoveResult, error) {
	r := MoveResult{ProviderID: it.provider.ID}
	p, err := s.store.Provider(ctx, it.provider.ID)
	if err != nil && !errors.Is(err, ErrNoRow) {
		return r, err
	}
	r.Name = p.Profile.Name
	switch {
	case err != nil || p.Deleted():
		r.Outcome, r.Detail = MoveSkipped, "deleted meanwhile"
		return r, nil
	case p.Credentials.Backend != o.To:
		r.Outcome, r.Detail = MoveSkipped, "not in "+o.To+" any more"
		return r, nil
	}
	_, r, err = s.compareLeft(ctx, r, p, it.left)
	return s.settle(r, err)
}

// comparison is what compareLeft has found beside the outcome.
type comparison struct {
	source credentials.Stored
	gone   bool // the pair in use is whole, and the source holds nothing any more
}

// compareLeft compares what a note names with the pair that the row names.
func (s *Service) compareLeft(ctx context.Context, r MoveResult, p Provider, left Cleanup) (c comparison, _ MoveResult, err error) {
	where := p.Credentials
	where.Optional = false
	used, err := s.creds.Read(ctx, where)
	if errors.Is(err, secret.ErrNotFound) && p.Credentials.Optional {
		where.Optional = true
		used, err = s.creds.Read(ctx, where)
	}
	switch {
	case errors.Is(err, secret.ErrNotFound), err == nil && used.ClientID.IsZero() && used.ClientSecret.IsZero():
		r.Outcome, r.Detail = MoveMissing, "the pair in use: "+s.creds.Locate(where)
		return c, r, nil
	case err != nil:
		return c, r, s.secretError(where, CodeCredentialsNotFoundAtFlow, err)
	}
	ref := refOf(left)
	c.source, err = s.creds.Examine(ctx, ref)
	switch {
	case errors.Is(err, secret.ErrInvalid):
		r.Outcome, r.Detail = MoveDiffers, "what lies at "+s.creds.Locate(ref)+" cannot be read"
		return c, r, nil
	case err != nil:
		return c, r, s.secretError(ref, CodeCredentialsNotFoundAtFlow, err)
	case c.source.IsEmpty():
		c.gone = true
		r.Outcome, r.Detail = MoveMissing, "the source: "+s.creds.Locate(ref)
	case c.source.Equal(used):
		r.Outcome = MoveEqual
	default:
		r.Outcome, r.Detail = MoveDiffers, "changed since it was moved, in one of both places"
	}
	return c, r, nil
}

func refOf(c Cleanup) credentials.Ref {
	return credentials.Ref{ProviderID: c.ProviderID, Backend: c.Backend, Key: c.Key, Generation: c.Generation}
}

// scrubLeft deletes one pair, under a claim on its provider and one on its place.
func (s *Service) scrubLeft(ctx context.Context, it moveItem, o MoveOptions) (MoveResult, error) {
	r := MoveResult{ProviderID: it.provider.ID}
	if o.DryRun {
		ctx, cancel := context.WithTimeout(ctx, s.opTime())
		defer cancel()
		p, err := s.store.Provider(ctx, it.provider.ID)
		if errors.Is(err, ErrNoRow) || err == nil && p.Deleted() {
			r.Outcome, r.Detail = MoveSkipped, "deleted meanwhile; the sweep sees to it"
			return r, nil
		}
		if err != nil {
			return r, err
		}
		r.Name = p.Profile.Name
		r, err = s.judgeLeft(ctx, r, p, it.left, o)
		return s.settle(r, err)
	}
	ctx, cancel := s.opContext(ctx)
	defer cancel()
	p, op, err := s.claim(ctx, it.provider.ID, OpMove, false)
	if errors.Is(err, ErrNoRow) {
		r.Outcome, r.Detail = MoveSkipped, "deleted meanwhile; the sweep sees to it"
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer s.end(ctx, p.ID, op, p.Credentials.State, p.Credentials.Generation)
	r.Name = p.Profile.Name
	notes, err := s.store.ClaimCleanupsAt(ctx, it.left.Backend, it.left.Key, op.left())
	if err != nil {
		return r, err
	}
	r, err = s.scrubClaimed(ctx, r, p, it.left, notes, o)
	return s.settle(r, err)
}

// scrubClaimed deletes the pair of a note that is among the claimed ones, and gives the
// others back.
func (s *Service) scrubClaimed(ctx context.Context, r MoveResult, p Provider, left Cleanup, notes []Cleanup, o MoveOptions) (MoveResult, error) {
	defer s.releaseCleanups(ctx, notes)
	if !slices.ContainsFunc(notes, func(n Cleanup) bool { return n.ID == left.ID }) {
		r.Outcome, r.Detail = MoveSkipped, "somebody else has seen to it"
		return r, nil
	}
	if p.Credentials.Backend == left.Backend && p.Credentials.Key == left.Key {
		r.Outcome, r.Detail = MoveSkipped, "in use again"
		return r, s.store.FinishCleanup(ctx, left.ID)
	}
	r, err := s.judgeLeft(ctx, r, p, left, o)
	if err != nil || r.Outcome != MoveDeleted {
		return r, err
	}
	if err := s.creds.Erase(ctx, left.Backend, left.Key, ownerOf(left.ProviderID, left.Generation), left.Published); err != nil {
		var kept *credentials.NotOursError
		if errors.As(err, &kept) {
			r.Outcome, r.Detail = MoveNotOurs, err.Error()
			return r, nil
		}
		return r, s.secretError(refOf(left), CodeCredentialsNotFoundAtFlow, err)
	}
	return r, s.store.FinishCleanup(ctx, left.ID)
}

// judgeLeft decides whether a pair may be deleted: MoveDeleted, or why not.
func (s *Service) judgeLeft(ctx context.Context, r MoveResult, p Provider, left Cleanup, o MoveOptions) (MoveResult, error) {
	c, r, err := s.compareLeft(ctx, r, p, left)
	if err != nil {
		return r, err
	}
	foreign := c.source.Foreign
	for _, m := range c.source.Marks {
		foreign = foreign || m != (credentials.Owner{}) && (m.ProviderID != left.ProviderID || m.Generation > left.Generation)
	}
	switch {
	case foreign:
		r.Outcome, r.Detail = MoveNotOurs, fmt.Sprintf("%s holds what carries somebody else's mark", s.creds.Locate(refOf(left)))
	case r.Outcome == MoveEqual:
		r.Outcome = MoveDeleted
	case c.gone:
		r.Outcome, r.Detail = MoveDeleted, "nothing was there any more"
	case r.Outcome == MoveDiffers && o.IncludeDiffering:
		r.Outcome = MoveDeleted
	case r.Outcome == MoveDiffers:
		r.Detail += " (--include-differing deletes the source all the same)"
	}
	return r, nil
}

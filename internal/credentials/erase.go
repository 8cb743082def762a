package credentials

import (
	"context"
	"errors"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Erase deletes what the broker has written under key: a value that carries a mark
// of owner's provider and of owner's generation or an earlier one. If published, a
// value without any mark goes too: a person has rotated what was the broker's. So does
// what cannot be read, and older versions of what a person has deleted. That nothing is
// there is fine; what a Create of owner's that was cut off has begun there goes.
//
// What cannot be proved to be the broker's stays, and is a *NotOursError if nothing
// else failed. After any other error Erase can be called again.
func (s *Service) Erase(ctx context.Context, backend, key string, owner Owner, published bool) error {
	src, err := s.writable(backend, key)
	if err != nil {
		return err
	}
	ref := Ref{ProviderID: owner.ProviderID, Backend: backend, Key: key, Generation: owner.Generation}
	results, err := s.readAll(ctx, src, owner.ProviderID, ref.Keys(), src.items)
	if err != nil {
		return err
	}
	defer s.Forget(ref)
	var t trail
	var foreign []string
	var failed error
	for _, r := range results {
		switch mark := r.item.Owner; {
		case published && (errors.Is(r.err, secret.ErrNotFound) || errors.Is(r.err, secret.ErrInvalid)):
			// Older versions may be the broker's: a person has deleted the newest, or
			// written something else over it.
			failed = errors.Join(failed, s.remove(ctx, src, owner, r.key, &t))
		case errors.Is(r.err, secret.ErrNotFound):
			failed = errors.Join(failed, s.removeRemnant(ctx, src, owner, r.key, &t))
		case errors.Is(r.err, secret.ErrInvalid):
			foreign = append(foreign, src.locate(r.key)) // not in the broker's form
		case r.err != nil:
			failed = errors.Join(failed, r.err)
		case owner.covers(mark) && !published:
			// One write, which nobody else has seen: older versions are somebody else's.
			failed = errors.Join(failed, s.removeVersion(ctx, src, owner, r.key, r.item.Version, &t))
		case owner.covers(mark), mark == "" && published:
			failed = errors.Join(failed, s.remove(ctx, src, owner, r.key, &t))
		default:
			foreign = append(foreign, src.locate(r.key))
		}
	}
	if err := s.record(ctx, t); err != nil {
		s.log.ErrorContext(ctx, "deletion of credentials not audited", "backend", backend, "key", key, "error", err)
		failed = errors.Join(failed, err)
	}
	if failed == nil && len(foreign) > 0 {
		return &NotOursError{Backend: src.name, Paths: foreign}
	}
	return failed
}

// Marks returns the marks of the two values of ref, the zero Owner for a value that
// is missing or carries no mark of the broker.
func (s *Service) Marks(ctx context.Context, ref Ref) (id, clientSecret Owner, err error) {
	src, err := s.source(ref)
	if err != nil {
		return Owner{}, Owner{}, err
	}
	ref.Public = false
	results, err := s.readAll(ctx, src, ref.ProviderID, ref.Keys(), src.items)
	if err != nil {
		return Owner{}, Owner{}, err
	}
	var marks [2]Owner
	for i, r := range results {
		if r.err != nil && !errors.Is(r.err, secret.ErrNotFound) {
			return Owner{}, Owner{}, r.err
		}
		marks[i], _ = ParseOwner(r.item.Owner)
	}
	return marks[0], marks[1], nil
}

// Stored is a pair as a backend holds it, with the marks of its values.
type Stored struct {
	Pair // a value that is missing is zero
	// Marks are those of the client id and of the client secret, the zero Owner for a
	// value that is missing or carries no mark of the broker.
	Marks [2]Owner
	// Foreign: a value carries a mark that is not the broker's.
	Foreign bool
}

// IsEmpty reports whether neither value is there.
func (p Stored) IsEmpty() bool { return p.ClientID.IsZero() && p.ClientSecret.IsZero() }

// Examine returns what lies at the place of ref, which names a key, past the cache: both
// values, also of a public client. What is missing is no error.
func (s *Service) Examine(ctx context.Context, ref Ref) (p Stored, err error) {
	src, err := s.source(ref)
	if err != nil {
		return p, err
	}
	ref.Public = false
	results, err := s.readAll(ctx, src, ref.ProviderID, ref.Keys(), src.items)
	if err != nil {
		return p, err
	}
	if _, err := verdict(src, results); err != nil {
		return p, err
	}
	p.Pair = Pair{ClientID: results[0].item.Value, ClientSecret: results[1].item.Value}
	for i, r := range results {
		var ours bool
		p.Marks[i], ours = ParseOwner(r.item.Owner)
		p.Foreign = p.Foreign || !ours && r.item.Owner != ""
	}
	return p, nil
}

package broker

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
)

// callsPerOp bounds how many calls to a secret backend one operation makes one
// after another, compensation included.
const callsPerOp = 8

// busyWait is how long a writer waits for another writer of the same provider.
const busyWait = 10 * time.Second

// opTime is how long an operation may take. Its claim lives a little longer, so
// that a live operation has always given up before somebody takes over.
func (s *Service) opTime() time.Duration { return callsPerOp * s.cfg.SecretTimeout }

func (s *Service) newOp(kind OpKind) Op {
	return Op{ID: uuid.New(), Kind: kind, Until: s.now().Add(s.opTime() + 5*time.Second)}
}

// opContext returns a context for an operation that has begun: it does not end
// with the caller, since a half-done operation helps nobody, but in good time.
func (s *Service) opContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.opTime())
}

// begin claims a provider, waiting for its turn while another operation holds it.
func (s *Service) begin(ctx context.Context, id uuid.UUID, kind OpKind, incomplete bool) (Provider, Op, error) {
	deadline := time.Now().Add(busyWait)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		op := s.newOp(kind)
		p, err := s.store.BeginOp(ctx, id, op, s.now(), incomplete)
		switch {
		case err == nil:
			return p, op, nil
		case errors.Is(err, ErrNoRow):
			return p, op, fail(CodeProviderNotFound, "no provider has this id")
		case !errors.Is(err, ErrBusy):
			return p, op, err
		case time.Now().After(deadline):
			return p, op, errBusy(err)
		}
		select {
		case <-ctx.Done():
			return p, op, ctx.Err()
		case <-time.After(pause):
		}
	}
}

func errBusy(err error) *Error {
	return &Error{Code: CodeProviderBusy, RetryAfter: time.Second, Err: err,
		Message: "another change of this provider is under way; try again"}
}

// end gives a claim back without a result. A claim that cannot be given back now
// runs out by itself.
func (s *Service) end(ctx context.Context, id uuid.UUID, op Op, state credentials.State, generation int64) {
	if err := s.store.EndOp(ctx, id, op, state, generation); err != nil {
		s.log.WarnContext(ctx, "claim on a provider not given back; it runs out by itself",
			"provider_id", id, "until", op.Until, "error", err)
	}
}

func ownerOf(id uuid.UUID, generation int64) credentials.Owner {
	return credentials.Owner{ProviderID: id, Generation: generation}
}

// cleanupOf describes the pair at ref as something to delete: values of this
// provider up to ref's generation. It is the caller's to do until after, the
// sweep's from then on.
func (s *Service) cleanupOf(id uuid.UUID, ref credentials.Ref, published bool, after time.Time) Cleanup {
	return Cleanup{
		ID: uuid.New(), Backend: ref.Backend, Key: ref.Key, ProviderID: id, Generation: ref.Generation,
		Published: published, After: after, ClaimedUntil: after, CreatedAt: s.now(),
	}
}

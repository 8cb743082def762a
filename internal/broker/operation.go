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

// callsPerCleanup is the same for the deletion of one pair.
const callsPerCleanup = 4

// busyWait is how long a writer waits at most for another writer of the same provider.
const busyWait = 10 * time.Second

// claimMargin is how much longer a claim lasts than what is done under it: what is alive
// has always given up before somebody takes over.
const claimMargin = 5 * time.Second

// opTime is how long an operation may take, by the clock of its process. That is set
// before the database notes the claim.
func (s *Service) opTime() time.Duration { return callsPerOp * s.cfg.SecretTimeout }

// cleanupTime is how long the deletion of one pair may take, and how long it is claimed
// for. Whoever wants the place waits that long for a process that has died.
func (s *Service) cleanupTime() time.Duration { return callsPerCleanup * s.cfg.SecretTimeout }

func (s *Service) newOp(kind OpKind) Op {
	return Op{ID: uuid.New(), Kind: kind, TTL: s.opTime() + claimMargin, made: time.Now()}
}

// left is how long an operation's first claim still lasts at least: what is claimed in its
// course ends with it.
func (o Op) left() time.Duration { return o.TTL - time.Since(o.made) }

// opContext returns a context for an operation that has begun: it does not end
// with the caller, since a half-done operation helps nobody, but in good time.
func (s *Service) opContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.opTime())
}

// begin claims a provider, waiting for its turn while another operation holds it.
func (s *Service) begin(ctx context.Context, id uuid.UUID, kind OpKind, incomplete bool) (p Provider, op Op, err error) {
	err = s.waitTurn(ctx, min(busyWait, s.opTime()/4), func() (err error) {
		p, op, err = s.claim(ctx, id, kind, incomplete)
		return err
	})
	if errors.Is(err, ErrNoRow) {
		err = fail(CodeProviderNotFound, "no provider has this id")
	}
	return p, op, err
}

// claim claims a provider, or returns ErrBusy. Where an update was cut off, what it has
// left of the pair is found out first.
func (s *Service) claim(ctx context.Context, id uuid.UUID, kind OpKind, incomplete bool) (p Provider, op Op, err error) {
	op = s.newOp(kind)
	p, err = s.store.BeginOp(ctx, id, op, incomplete)
	if !errors.Is(err, ErrInterrupted) {
		return p, op, err
	}
	if err = s.repair(ctx, ExpiredOp{Provider: Provider{ID: id}}); err != nil {
		return p, op, err
	}
	op = s.newOp(kind)
	p, err = s.store.BeginOp(ctx, id, op, incomplete)
	return p, op, err
}

// waitTurn calls try until it returns something else than ErrBusy, or limit has passed.
func (s *Service) waitTurn(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := try()
		switch {
		case !errors.Is(err, ErrBusy):
			return err
		case time.Now().After(deadline):
			return errBusy(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
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
			"provider_id", id, "error", err)
	}
}

// endAsExpired leaves a claim as one that has run out: the sweep will look at the provider,
// or whoever comes next, who need not wait.
func (s *Service) endAsExpired(ctx context.Context, id uuid.UUID, op Op) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	op.TTL = 0
	if err := s.store.KeepOp(ctx, id, op); err != nil {
		s.log.WarnContext(ctx, "claim on a provider not given back; it runs out by itself", "provider_id", id, "error", err)
	}
}

// fate is what became of a step on the row whose answer was an error. The answer may
// have been lost, and the step have taken place.
type fate int

const (
	unknown     fate = iota // the sweep will see
	lost                    // it cannot take place any more: somebody else has the row, or has removed it
	notHappened             // the claim is still ours: what was written can be taken back
	happened
)

// fateOf finds out what became of a step that would have ended op. took tells a row
// on which the step has taken place.
func (s *Service) fateOf(ctx context.Context, id uuid.UUID, op Op, took func(Provider) bool) fate {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opTime()/2)
	defer cancel()
	for tries := 0; ; tries++ {
		err := s.store.KeepOp(ctx, id, op) // time to take things back
		switch {
		case err == nil:
			return notHappened
		case errors.Is(err, ErrLostOp):
			switch p, err := s.store.Provider(ctx, id); {
			case err == nil && took(p):
				return happened
			case err == nil, errors.Is(err, ErrNoRow):
				return lost
			}
			return unknown
		case tries == 3 || ctx.Err() != nil:
			return unknown
		}
		time.Sleep(200 * time.Millisecond) // the database may be changing over
	}
}

func ownerOf(id uuid.UUID, generation int64) credentials.Owner {
	return credentials.Owner{ProviderID: id, Generation: generation}
}

// cleanupOf describes the pair at ref as something to delete: values of this
// provider up to ref's generation. It is the caller's to do for as long as mine, the
// sweep's from then on.
//
// At a place that was published there may be a value of one generation more: of an
// update that was cut off after it had written and before it had told the row, and whose
// values are kept by whoever repeated it. No other value of that generation can come
// there: the row leaves the place with it, and what returns later is newer.
func (s *Service) cleanupOf(id uuid.UUID, ref credentials.Ref, published bool, mine time.Duration) Cleanup {
	generation := ref.Generation
	if published {
		generation++
	}
	return Cleanup{
		ID: uuid.New(), Backend: ref.Backend, Key: ref.Key, ProviderID: id, Generation: generation,
		Published: published, Wait: mine, Claim: mine, CreatedAt: s.now(),
	}
}

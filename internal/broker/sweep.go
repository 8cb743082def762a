package broker

import (
	"context"
	"errors"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

const (
	sweepEvery = time.Minute
	sweepBatch = 100
	pruneBatch = 10_000
	sweepLease = "sweep"
)

// Sweep calls SweepOnce now and then every minute until ctx ends.
func (s *Service) Sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		s.SweepOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// SweepOnce restores what interrupted operations have left half done, deletes the
// credentials that nobody needs any more, and audit events past their time. Of several
// replicas one sweeps at a time; the others return at once.
func (s *Service) SweepOnce(ctx context.Context) {
	mine, err := s.takeSweep(ctx)
	if !mine && err == nil {
		s.log.DebugContext(ctx, "not swept: another replica is at it")
		return
	}
	defer s.endSweep(ctx) // after an error too: the lease may have been taken
	if err != nil {
		return
	}
	still := func() bool {
		mine, err := s.takeSweep(ctx)
		return mine && err == nil
	}
	s.repairExpired(ctx, still)
	s.runCleanups(ctx, still)
	s.eraseOrphans(ctx, still)
	s.pruneAudit(ctx)
}

// takeSweep takes the lease of the sweep, or prolongs it for the next step: a sweep of a
// backend that does not answer takes its time. mine is false when somebody else sweeps.
func (s *Service) takeSweep(ctx context.Context) (mine bool, err error) {
	if ctx.Err() != nil {
		return false, nil
	}
	mine, err = s.store.Lease(ctx, sweepLease, s.holder, s.opTime()+claimMargin)
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "no sweep: the database does not answer", "error", err)
	}
	return mine, err
}

// endSweep gives the lease back, so that a process that starts next sweeps at once.
func (s *Service) endSweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := s.store.Lease(ctx, sweepLease, s.holder, 0); err != nil {
		s.log.WarnContext(ctx, "lease of the sweep not given back; it runs out by itself", "error", err)
	}
	s.log.DebugContext(ctx, "swept")
}

// always is for one who does a part of a sweep's work without its lease: the claims on the
// rows are enough, the lease keeps replicas from doing the same in vain.
func always() bool { return true }

// repairExpired takes over operations whose process has died, until still is false.
func (s *Service) repairExpired(ctx context.Context, still func() bool) {
	expired, err := s.store.ExpiredOps(ctx, sweepBatch)
	if err != nil {
		s.log.WarnContext(ctx, "interrupted operations not looked up", "error", err)
		return
	}
	for _, e := range expired {
		if ctx.Err() != nil || !still() {
			return
		}
		if err := s.repair(ctx, e); err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrNoRow) {
			s.log.WarnContext(ctx, "an interrupted operation is not repaired yet", "provider_id", e.Provider.ID, "error", err)
		}
	}
}

// repair takes over an operation whose process has died, and finds out what it has left.
// ErrBusy if somebody else is at it.
func (s *Service) repair(ctx context.Context, e ExpiredOp) error {
	ctx, cancel := context.WithTimeout(ctx, s.opTime())
	defer cancel()
	op := s.newOp(OpRepair)
	p, err := s.store.BeginOp(ctx, e.Provider.ID, op, false)
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "repairing an interrupted operation", "provider_id", p.ID)
	if e.Reserved {
		s.unregister(ctx, p, op)
		return nil
	}
	state, err := s.stateAfterCut(ctx, p)
	if err != nil {
		s.endAsExpired(ctx, p.ID, op)
		return s.secretError(p.Credentials, CodeCredentialsNotFoundAtFlow, err)
	}
	generation := p.Credentials.Generation + 1
	if state == credentials.Incomplete {
		generation-- // by which the marks still tell, after the next attempt
	}
	s.end(ctx, p.ID, op, state, generation)
	return nil
}

// stateAfterCut tells from the marks of the values whether an update that was cut
// off has left a pair that fits together: both written by it, or neither.
func (s *Service) stateAfterCut(ctx context.Context, p Provider) (credentials.State, error) {
	ref := p.Credentials
	if ref.State != credentials.Incomplete {
		return ref.State, nil
	}
	id, sec, err := s.creds.Marks(ctx, ref)
	switch {
	case errors.Is(err, secret.ErrInvalid):
		return credentials.Incomplete, nil
	case err != nil:
		return credentials.Incomplete, err
	}
	wroteID := id.ProviderID == p.ID && id.Generation > ref.Generation
	wroteSecret := sec.ProviderID == p.ID && sec.Generation > ref.Generation
	if wroteID == wroteSecret {
		return credentials.Ready, nil
	}
	return credentials.Incomplete, nil
}

// runCleanups deletes the credentials that are noted for deletion, one claim at a time,
// until still is false.
func (s *Service) runCleanups(ctx context.Context, still func() bool) {
	for !s.creds.ReadOnly() && still() {
		due, err := s.store.ClaimCleanups(ctx, s.cleanupTime(), 1)
		if err != nil {
			s.log.WarnContext(ctx, "pending deletions not looked up", "error", err)
		}
		if len(due) == 0 {
			return
		}
		s.cleanUpNow(ctx, due[0])
	}
}

// postpone notes a failed deletion, to be tried again after a wait that doubles from
// fifteen seconds to one hour.
func (s *Service) postpone(ctx context.Context, c Cleanup, cause error) {
	wait := min(15*time.Second<<min(c.Attempts, 10), time.Hour)
	if err := s.store.PostponeCleanup(ctx, c.ID, wait, cause.Error()); err != nil {
		s.log.WarnContext(ctx, "failed deletion not noted", "error", err)
	}
}

// eraseOrphans deletes the internal credentials of deleted providers whose last
// active connection has ended, until still is false.
func (s *Service) eraseOrphans(ctx context.Context, still func() bool) {
	if s.creds.ReadOnly() {
		return
	}
	orphans, err := s.store.Orphans(ctx, credentials.Internal, sweepBatch)
	if err != nil {
		s.log.WarnContext(ctx, "credentials of deleted providers not looked up", "error", err)
		return
	}
	for _, p := range orphans {
		if ctx.Err() != nil || !still() {
			return
		}
		note := s.cleanupOf(p.ID, p.Credentials, true, s.cleanupTime())
		switch err := s.store.DetachCredentials(ctx, p.ID, note); {
		case err == nil:
			s.creds.Forget(p.Credentials)
			s.cleanUpNow(ctx, note)
		case !errors.Is(err, ErrStale):
			s.log.WarnContext(ctx, "credentials of a deleted provider not detached", "provider_id", p.ID, "error", err)
		}
	}
}

func (s *Service) pruneAudit(ctx context.Context) {
	if s.cfg.AuditRetention <= 0 {
		return
	}
	before := s.now().Add(-s.cfg.AuditRetention)
	for {
		n, err := s.store.PruneAudit(ctx, before, pruneBatch)
		if err != nil {
			s.log.WarnContext(ctx, "old audit events not deleted", "error", err)
		}
		if err != nil || n < pruneBatch {
			return
		}
	}
}

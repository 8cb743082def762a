package broker

import (
	"context"
	"errors"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
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
	mine, err := s.store.Lease(ctx, sweepLease, s.holder, s.now(), 2*sweepEvery)
	if err != nil {
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "sweep skipped: the database does not answer", "error", err)
		}
		return
	}
	if !mine {
		return
	}
	defer s.endSweep(ctx)
	s.repairExpired(ctx)
	s.runCleanups(ctx)
	s.eraseOrphans(ctx)
	s.pruneAudit(ctx)
}

// endSweep gives the lease back, so that a process that starts next sweeps at once.
func (s *Service) endSweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := s.store.Lease(ctx, sweepLease, s.holder, s.now(), 0); err != nil {
		s.log.WarnContext(ctx, "lease of the sweep not given back; it runs out by itself", "error", err)
	}
	s.log.DebugContext(ctx, "swept")
}

// repairExpired takes over operations whose process has died.
func (s *Service) repairExpired(ctx context.Context) {
	expired, err := s.store.ExpiredOps(ctx, s.now(), sweepBatch)
	if err != nil {
		s.log.WarnContext(ctx, "interrupted operations not looked up", "error", err)
		return
	}
	for _, e := range expired {
		s.repair(ctx, e)
	}
}

func (s *Service) repair(ctx context.Context, e ExpiredOp) {
	ctx, cancel := s.opContext(ctx)
	defer cancel()
	op := s.newOp(OpRepair)
	p, err := s.store.BeginOp(ctx, e.Provider.ID, op, s.now(), false)
	if err != nil {
		return // somebody else was faster
	}
	s.log.InfoContext(ctx, "repairing an interrupted operation", "provider_id", p.ID, "operation", e.Op.Kind)
	if e.Reserved {
		s.unregister(ctx, p, op)
		return
	}
	s.end(ctx, p.ID, op, s.stateAfterCut(ctx, p), p.Credentials.Generation+1)
}

// stateAfterCut tells from the marks of the values whether an update that was cut
// off has left a pair that fits together: both written by it, or neither.
func (s *Service) stateAfterCut(ctx context.Context, p Provider) credentials.State {
	ref := p.Credentials
	if ref.State != credentials.Incomplete {
		return ref.State
	}
	id, sec, err := s.creds.Marks(ctx, ref)
	if err != nil {
		return credentials.Incomplete
	}
	wroteID := id.ProviderID == p.ID && id.Generation > ref.Generation
	wroteSecret := sec.ProviderID == p.ID && sec.Generation > ref.Generation
	if wroteID == wroteSecret {
		return credentials.Ready
	}
	return credentials.Incomplete
}

// runCleanups deletes the credentials that are noted for deletion.
func (s *Service) runCleanups(ctx context.Context) {
	due, err := s.store.ClaimCleanups(ctx, s.now(), s.now().Add(s.opTime()+5*time.Second), sweepBatch)
	if err != nil {
		s.log.WarnContext(ctx, "pending deletions not looked up", "error", err)
		return
	}
	for _, c := range due {
		s.cleanUpNow(ctx, c)
	}
}

// postpone notes a failed deletion, to be tried again after a wait that doubles from
// fifteen seconds to one hour.
func (s *Service) postpone(ctx context.Context, c Cleanup, cause error) {
	wait := min(15*time.Second<<min(c.Attempts, 10), time.Hour)
	if err := s.store.PostponeCleanup(ctx, c.ID, s.now().Add(wait), cause.Error()); err != nil {
		s.log.WarnContext(ctx, "failed deletion not noted", "error", err)
	}
}

// eraseOrphans deletes the internal credentials of deleted providers whose last
// active connection has ended.
func (s *Service) eraseOrphans(ctx context.Context) {
	orphans, err := s.store.Orphans(ctx, credentials.Internal, sweepBatch)
	if err != nil {
		s.log.WarnContext(ctx, "credentials of deleted providers not looked up", "error", err)
		return
	}
	for _, p := range orphans {
		note := s.cleanupOf(p.ID, p.Credentials, true, s.now().Add(s.opTime()))
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

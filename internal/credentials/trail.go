package credentials

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
)

const (
	// recordLimit bounds how long a call waits for its audit events to be durable.
	recordLimit = 10 * time.Second
	// rareEvery is how often the same denial or outage is recorded and logged while it
	// lasts, and rareAtOnce how many different ones are in that time: an outage must
	// not flood the audit log.
	rareEvery  = time.Minute
	rareAtOnce = 100
)

// trail collects the audit events of one operation.
type trail struct{ events []audit.Event }

// subject is what an event is about: the "key" or the "reference" that it has.
type subject struct{ member, name string }

func keySubject(key string) subject { return subject{"key", key} }

// add appends an event about one value with one more detail.
func (t *trail) add(ctx context.Context, what audit.Type, src *source, provider uuid.UUID, of subject, detail, value string) {
	data := map[string]any{"backend": src.name, of.member: of.name, detail: value}
	if provider != uuid.Nil {
		data["provider_id"] = provider.String()
	}
	t.events = append(t.events, audit.New(ctx, what, uuid.Nil, data))
}

func (t *trail) read(ctx context.Context, src *source, provider uuid.UUID, of subject, version string) {
	t.add(ctx, audit.CredentialsRead, src, provider, of, "version", version)
}

func (t *trail) written(ctx context.Context, src *source, owner Owner, key, version string) {
	t.add(ctx, audit.CredentialsWritten, src, owner.ProviderID, keySubject(key), "version", version)
}

// removed notes that one version was deleted.
func (t *trail) removed(ctx context.Context, src *source, owner Owner, key, version string) {
	t.add(ctx, audit.CredentialsDeleted, src, owner.ProviderID, keySubject(key), "version", version)
}

func (t *trail) deleted(ctx context.Context, src *source, owner Owner, key string) {
	t.add(ctx, audit.CredentialsDeleted, src, owner.ProviderID, keySubject(key), "version", "")
}

// record makes the trail durable, also if ctx has ended: what was done is recorded
// whether or not somebody still waits for it. A failure wraps ErrNotAudited and
// nothing else, since it says nothing about a backend.
func (s *Service) record(ctx context.Context, t trail) error {
	if len(t.events) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordLimit)
	defer cancel()
	if err := s.recorder.Record(ctx, t.events...); err != nil {
		// Not wrapped: a timeout of the database must not look like one of a backend.
		return fmt.Errorf("%w: %s", ErrNotAudited, err.Error())
	}
	return nil
}

// observe learns from the outcome of a call. A denial and an outage are recorded as
// well as that is possible, each at most once a minute: the first by place, the
// second by backend.
func (s *Service) observe(ctx context.Context, src *source, provider uuid.UUID, operation, key string, err error) {
	s.learn(ctx, src, err)
	s.report(ctx, src, provider, operation, keySubject(key), err)
}

// learn notes what the outcome of a call tells of the backend.
func (s *Service) learn(ctx context.Context, src *source, err error) {
	now := s.now()
	if src.health.note(err, now, s.clock()) && s.outages.allow("end of "+src.name, now) {
		s.log.InfoContext(ctx, "secret backend answers again", "backend", src.name)
	}
}

// report records a denial and an outage.
func (s *Service) report(ctx context.Context, src *source, provider uuid.UUID, operation string, of subject, err error) {
	now := s.now()
	switch classify(err) {
	case denied, loginRefused:
		if s.denials.allow(src.name+"/"+of.name, now) {
			s.log.WarnContext(ctx, "secret backend denies access", "backend", src.name, of.member, of.name, "error", err)
			s.recordRare(ctx, audit.CredentialsDenied, src, provider, operation, of)
		}
	case out:
		if s.outages.allow(src.name, now) {
			s.log.WarnContext(ctx, "secret backend is out", "backend", src.name, "error", err)
			s.recordRare(ctx, audit.CredentialsUnavailable, src, provider, operation, of)
		}
	}
}

func (s *Service) recordRare(ctx context.Context, what audit.Type, src *source, provider uuid.UUID, operation string, of subject) {
	var t trail
	t.add(ctx, what, src, provider, of, "operation", operation)
	if err := s.record(ctx, t); err != nil {
		s.log.WarnContext(ctx, "audit event not recorded", "type", what, "backend", src.name, "error", err)
	}
}

// rateLimit lets the same thing through once per rareEvery. The zero rateLimit is
// ready for use.
type rateLimit struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (l *rateLimit) allow(what string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.last[what]; ok && now.Sub(t) < rareEvery {
		return false
	}
	for k, t := range l.last {
		if now.Sub(t) >= rareEvery {
			delete(l.last, k)
		}
	}
	if len(l.last) >= rareAtOnce {
		return false
	}
	if l.last == nil {
		l.last = make(map[string]time.Time)
	}
	l.last[what] = now
	return true
}

package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

// Register creates a provider: it reserves the row, writes the credentials, and
// publishes the row. Whatever fails, nothing is left that blocks the name, and no
// value that the broker wrote.
func (s *Service) Register(ctx context.Context, in ProfileInput) (uuid.UUID, error) {
	profile := in.apply(Profile{})
	if err := profile.validate(nil); err != nil {
		return uuid.Nil, err
	}
	g, err := in.credentials()
	if err != nil {
		return uuid.Nil, err
	}
	now := s.now()
	p := Provider{ID: uuid.New(), Profile: profile, CreatedAt: now, UpdatedAt: now,
		Health: Health{Status: HealthUnknown}}
	for {
		if p.Credentials, err = s.newRef(ctx, p.ID, profile, g); err != nil {
			return uuid.Nil, err
		}
		err := s.register(ctx, p, g.pair)
		switch {
		case err == nil:
			return p.ID, nil
		case !errors.Is(err, ErrFinished): // else the pair goes somewhere else now
			return uuid.Nil, err
		}
	}
}

func (s *Service) register(ctx context.Context, p Provider, pair credentials.Pair) error {
	ctx, cancel := s.opContext(ctx)
	defer cancel()
	if p.Credentials.InRow() {
		return s.registerInRow(ctx, p, pair)
	}
	op, err := s.reserve(ctx, p)
	if err != nil {
		return err
	}
	if p.Credentials, err = s.placeCredentials(ctx, p, op, pair); err != nil {
		if !errors.Is(err, errNotNoted) {
			s.abandon(ctx, p.ID, op)
		}
		return err
	}
	err = s.store.PublishProvider(ctx, p, op, audit.New(ctx, audit.ProviderCreated, uuid.Nil, providerData(p)))
	if err == nil {
		return nil
	}
	switch s.fateOf(ctx, p.ID, op, func(Provider) bool { return true }) {
	case happened:
		return nil
	case notHappened:
		ctx, cancel := s.opContext(ctx) // the claim has been prolonged for this
		defer cancel()
		s.unregister(ctx, p, op)
	case lost:
		s.noteLost(ctx, p)
	}
	return unstorable(err, CodeProviderCreationFailed)
}

// reserve takes the name. A reservation that a dead process left behind is cleared
// away first.
func (s *Service) reserve(ctx context.Context, p Provider) (Op, error) {
	op := s.newOp(OpRegister)
	err := s.store.ReserveProvider(ctx, p, op)
	if errors.Is(err, ErrDuplicateName) {
		s.repairExpired(ctx, always)
		err = s.store.ReserveProvider(ctx, p, op)
	}
	if errors.Is(err, ErrDuplicateName) {
		return op, errNameTaken(p.Profile.Name)
	}
	return op, unstorable(err, CodeProviderCreationFailed)
}

func errNameTaken(name string) *Error {
	return fail(CodeInvalidProviderName, fmt.Sprintf("a provider named %q exists", name))
}

// unstorable turns a text that the database cannot hold into the caller's fault.
func unstorable(err error, code Code) error {
	if errors.Is(err, ErrUnstorable) {
		return &Error{Code: code, Err: err, Message: "a field holds a text that cannot be stored: too long, or not valid text"}
	}
	return err
}

// newRef decides where the credentials of a new provider lie.
func (s *Service) newRef(ctx context.Context, id uuid.UUID, profile Profile, g given) (credentials.Ref, error) {
	if g.hasReferences() {
		return s.referencedRef(id, profile, g)
	}
	ref := credentials.Ref{
		ProviderID: id, Backend: s.creds.WriteTo(), Key: keyFor(profile.Name, id), Managed: true,
		Public: profile.public(), Optional: profile.AuthType != AuthOAuth2,
		State: credentials.Ready, Generation: 1,
	}
	switch none := !g.hasPair(); {
	case none && ref.Optional:
		return credentials.Ref{}, nil
	case none && s.creds.External():
		ref.Managed = false // somebody else has put them there
		return ref, nil
	case s.creds.ReadOnly():
		return ref, s.errExternal(ref, "the broker is read-only (SECRET_READ_ONLY)")
	}
	return s.writeTarget(ctx, ref, profile.Name, id), completePair(ref, g.pair)
}

// completePair checks that a managed pair has what its provider needs.
func completePair(ref credentials.Ref, pair credentials.Pair) error {
	switch {
	case ref.Public && !pair.ClientSecret.IsZero():
		return fail(CodeProviderCreationFailed, `a public client ("auth_header": "none") has no client_secret`)
	case ref.Optional:
		return nil
	case pair.ClientID.IsZero():
		return fail(CodeMissingClientID, "client_id is required")
	case !ref.Public && pair.ClientSecret.IsZero():
		return fail(CodeMissingClientSecret, "client_secret is required")
	}
	return nil
}

// keyFor returns what both keys of a provider begin with: its name where that is
// a legal segment, else its id.
func keyFor(name string, id uuid.UUID) string {
	if secret.CheckKey(name+"/"+credentials.ClientSecretKey) == nil {
		return name
	}
	return idKey(id)
}

func idKey(id uuid.UUID) string { return "id." + id.String() }

// placeCredentials writes the pair of a reserved provider, or checks that it is
// there, and returns where it lies.
func (s *Service) placeCredentials(ctx context.Context, p Provider, op Op, pair credentials.Pair) (credentials.Ref, error) {
	ref := p.Credentials
	if ref.IsZero() {
		return ref, nil
	}
	if err := s.takeOver(ctx, ref, op); err != nil {
		return ref, err
	}
	if !ref.Managed {
		if _, err := s.creds.Read(ctx, ref); err != nil {
			return ref, s.secretError(ref, CodeCredentialsNotFoundAtRegistration, err)
		}
		return ref, nil
	}
	err := s.createPair(ctx, p.ID, ref, pair)
	if CodeOf(err) == CodeCredentialsExist && ref.Backend == credentials.Internal {
		// In the broker's own database a place that is taken is not the caller's business.
		ref.Key = idKey(p.ID)
		err = s.createPair(ctx, p.ID, ref, pair)
	}
	return ref, err
}

// createPair writes a managed pair where none is.
func (s *Service) createPair(ctx context.Context, id uuid.UUID, ref credentials.Ref, pair credentials.Pair) error {
	err := s.creds.Create(ctx, ref, ownerOf(id, ref.Generation), pair)
	if err == nil {
		return nil
	}
	var noted error
	switch {
	case errors.Is(err, credentials.ErrLeftBehind):
		noted = s.rememberCleanup(ctx, s.cleanupOf(id, ref, false, 0))
	case answerLost(err):
		// A write without an answer may still take place after it was looked for: the
		// sweep looks again later, or before that whoever wants the place.
		note := s.cleanupOf(id, ref, false, s.opTime())
		note.Claim = 0
		noted = s.rememberCleanup(ctx, note)
	}
	err = errors.Join(err, noted)
	if errors.Is(err, secret.ErrExists) {
		return &Error{Code: CodeCredentialsExist, Err: err, Details: map[string]any{"paths": s.creds.Paths(ref)},
			Message: fmt.Sprintf("%s holds credentials at %s that the broker did not write; register without client_id and client_secret to use them",
				ref.Backend, s.creds.Locate(ref))}
	}
	return s.secretError(ref, CodeCredentialsNotFoundAtRegistration, err)
}

// answerLost reports whether a call may still take place although it has failed.
func answerLost(err error) bool {
	return errors.Is(err, secret.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// takeOver finishes the deletions that are pending for a place before something new
// lies there. A value without a mark may be what the caller has put there for the
// purpose: it stays. Where references point to nothing of the broker's is deleted.
func (s *Service) takeOver(ctx context.Context, ref credentials.Ref, op Op) error {
	if ref.Referenced() {
		return nil
	}
	var pending []Cleanup
	err := s.waitTurn(ctx, s.cleanupTime()+time.Second, func() (err error) {
		pending, err = s.store.ClaimCleanupsAt(ctx, ref.Backend, ref.Key, op.left())
		return err
	})
	if err != nil || len(pending) == 0 {
		return err
	}
	if s.creds.ReadOnly() {
		return s.dropDeletions(ctx, ref, pending)
	}
	for i, c := range pending {
		c.Published = false
		if err := s.cleanUp(ctx, c); err != nil {
			s.releaseCleanups(ctx, pending[i:])
			return s.secretError(ref, CodeCredentialsNotFoundAtRegistration, err)
		}
	}
	return nil
}

// dropDeletions is takeOver by a broker that may delete nothing: what lies at the place is in
// use from now on, so nobody may delete it later, not even what was the broker's. If it is
// not whole it is not used, and the deletions stay to be done.
func (s *Service) dropDeletions(ctx context.Context, ref credentials.Ref, pending []Cleanup) error {
	if _, err := s.creds.Read(ctx, ref); err != nil {
		s.releaseCleanups(ctx, pending)
		return s.secretError(ref, CodeCredentialsNotFoundAtRegistration, err)
	}
	for i, c := range pending {
		if err := s.store.FinishCleanup(ctx, c.ID); err != nil {
			s.releaseCleanups(ctx, pending[i:])
			return err
		}
		s.log.WarnContext(ctx, "credentials of another provider that were to be deleted stay: a provider uses their place, and the broker is read-only",
			"backend", c.Backend, "key", c.Key, "provider_id", c.ProviderID)
	}
	return nil
}

// releaseCleanups gives back the claims on cleanups that stay to be done.
func (s *Service) releaseCleanups(ctx context.Context, cleanups []Cleanup) {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	ids := make([]uuid.UUID, len(cleanups))
	for i, c := range cleanups {
		ids[i] = c.ID
	}
	if err := s.store.ReleaseCleanups(ctx, ids...); err != nil {
		s.log.WarnContext(ctx, "claims on pending deletions not given back; they run out by themselves", "error", err)
	}
}

// unregister undoes a registration whose credentials may have been written and whose
// row was not published.
func (s *Service) unregister(ctx context.Context, p Provider, op Op) {
	for _, ref := range placesOf(p) {
		note := s.cleanupOf(p.ID, ref, false, 0)
		if err := s.erase(ctx, note); err != nil && s.rememberCleanup(ctx, note) != nil {
			return // the reservation tells the sweep
		}
	}
	s.abandon(ctx, p.ID, op)
}

// placesOf returns where a registration may have written its pair.
func placesOf(p Provider) []credentials.Ref {
	if !p.Credentials.Managed {
		return nil
	}
	places := []credentials.Ref{p.Credentials}
	if p.Credentials.Backend == credentials.Internal { // where a taken place makes the pair go
		aside := p.Credentials
		aside.Key = idKey(p.ID)
		places = append(places, aside)
	}
	return places
}

// noteLost leaves the credentials of a registration to the sweep that has written them after
// it had lost its claim, as after a pause: whoever cleared the reservation away may have
// looked for them before they were there.
func (s *Service) noteLost(ctx context.Context, p Provider) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opTime())
	defer cancel()
	for _, ref := range placesOf(p) {
		note := s.cleanupOf(p.ID, ref, false, s.opTime())
		note.Claim = 0
		_ = s.rememberCleanup(ctx, note) // which logs it; nobody else can
	}
}

func (s *Service) abandon(ctx context.Context, id uuid.UUID, op Op) {
	if err := s.store.AbandonProvider(ctx, id, op); err != nil {
		s.log.WarnContext(ctx, "reservation not removed; the sweep will", "provider_id", id, "error", err)
	}
}

// errNotNoted: a deletion could not be left to the sweep. The reservation must stay,
// which tells the sweep the same.
var errNotNoted = errors.New("a deletion of credentials could not be noted")

// rememberCleanup leaves a deletion to the sweep.
func (s *Service) rememberCleanup(ctx context.Context, c Cleanup) error {
	if err := s.store.AddCleanups(ctx, c); err != nil {
		s.log.ErrorContext(ctx, "deletion of credentials not noted", "backend", c.Backend, "key", c.Key, "error", err)
		return errNotNoted
	}
	return nil
}

func (s *Service) errExternal(ref credentials.Ref, why string) *Error {
	return &Error{Code: CodeCredentialsExternal, Message: fmt.Sprintf(
		"the credentials in %s at %s are not the broker's to change: %s; change them there", ref.Backend, s.creds.Locate(ref), why)}
}

func providerData(p Provider) map[string]any {
	return map[string]any{"provider_id": p.ID.String(), "provider_name": p.Profile.Name}
}

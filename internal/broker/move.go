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

// MoveOutcome is what became of one provider's credentials.
type MoveOutcome string

// The outcomes of Migrate, VerifyMoved and Scrub. With DryRun they say what would become.
const (
	MoveCopied  MoveOutcome = "copied"  // and the provider's row names the target
	MoveAdopted MoveOutcome = "adopted" // the target holds the same values already, and they stay somebody else's
	MoveSkipped MoveOutcome = "skipped" // nothing to do; the detail says why
	// MoveConflict: the target holds other values that the broker did not write.
	MoveConflict MoveOutcome = "conflict"
	MoveFailed   MoveOutcome = "failed"
	MoveEqual    MoveOutcome = "equal"   // the source's pair is the one in use
	MoveDiffers  MoveOutcome = "differs" // it is another one
	MoveMissing  MoveOutcome = "missing" // a place holds no whole pair; the detail says which
	MoveDeleted  MoveOutcome = "deleted" // from the source
	MoveNotOurs  MoveOutcome = "not_ours"
)

// Bad reports whether the outcome is a failure that a person has to look at.
func (o MoveOutcome) Bad() bool {
	switch o {
	case MoveConflict, MoveFailed, MoveDiffers, MoveMissing, MoveNotOurs:
		return true
	}
	return false
}

// MoveOptions say what is moved.
type MoveOptions struct {
	From, To string // names of backends; Scrub needs no To
	DryRun   bool   // change nothing, claim nothing
	// IncludeExternal: credentials that somebody else keeps in From are copied too. The
	// copy is the broker's, the source stays somebody else's.
	IncludeExternal bool
	// Overwrite: values in To that the broker did not write are replaced.
	Overwrite bool
	// IncludeDiffering: Scrub deletes a source that is not equal to the pair in use, too.
	IncludeDiffering bool
	// Patience is how long to go on after the last success while something is left that
	// may succeed later; zero: two minutes, and longer than a dead process's claims.
	Patience time.Duration
	// Report is told of each provider once its outcome is final, one at a time.
	Report func(MoveResult)
	// Progress is told of the state, one call at a time; nil: nobody.
	Progress func(MoveProgress)
}

// MoveResult is the outcome for one provider. Nothing in it is a value.
type MoveResult struct {
	ProviderID uuid.UUID
	Name       string
	Outcome    MoveOutcome
	Detail     string // for a person, "" if there is nothing to say
}

// MoveProgress is the state of a move.
type MoveProgress struct {
	Done, Total int
	Bad         int // of Done
	Later       int // put off, to be tried again
	Waiting     string
}

// moveOne moves the credentials of one provider. The error is one that may pass; whatever
// is final is in the result.
func (s *Service) moveOne(ctx context.Context, p Provider, o MoveOptions) (MoveResult, error) {
	r := MoveResult{ProviderID: p.ID, Name: p.Profile.Name}
	if why := skipReason(p, o); why != "" {
		r.Outcome, r.Detail = MoveSkipped, why
		return r, nil
	}
	if o.DryRun {
		ctx, cancel := context.WithTimeout(ctx, s.opTime())
		defer cancel()
		return s.planMove(ctx, r, p, o)
	}
	ctx, cancel := s.opContext(ctx)
	defer cancel()
	p, op, err := s.claim(ctx, p.ID, OpMove, false)
	if errors.Is(err, ErrNoRow) {
		r.Outcome, r.Detail = MoveSkipped, "deleted meanwhile"
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if why := skipReason(p, o); why != "" { // somebody was faster
		s.end(ctx, p.ID, op, p.Credentials.State, p.Credentials.Generation)
		r.Outcome, r.Detail = MoveSkipped, why
		return r, nil
	}
	return s.moveClaimed(ctx, r, p, op, o)
}

// skipReason says why there is nothing to move, "" if there is.
func skipReason(p Provider, o MoveOptions) string {
	switch c := p.Credentials; {
	case c.IsZero():
		return "has no credentials"
	case c.Backend == o.To:
		return "already in " + o.To
	case c.Backend != o.From:
		return "in " + c.Backend
	case p.Deleted():
		return "deleted; its connections need the credentials where they are"
	case c.Referenced():
		return "a reference, to what is not the broker's"
	case !c.Managed && !o.IncludeExternal:
		return "external: somebody else keeps the credentials there (--include-external copies them)"
	}
	return ""
}

// moveClaimed moves the pair of p, which op has claimed: copy, read back, switch the row.
func (s *Service) moveClaimed(ctx context.Context, r MoveResult, p Provider, op Op, o MoveOptions) (MoveResult, error) {
	give := func(err error) (MoveResult, error) {
		s.end(ctx, p.ID, op, p.Credentials.State, p.Credentials.Generation)
		return s.settle(r, err)
	}
	pair, err := s.readSource(ctx, p.Credentials)
	if err != nil {
		return give(err)
	}
	c := change{before: p, after: p, reads: true, want: pair}
	c.after.Credentials = targetRef(p, o.To)
	done, err := s.movePair(ctx, &c, op)
	r.Outcome = MoveCopied
	if CodeOf(err) == CodeCredentialsExist {
		r.Outcome, done, err = s.meetExisting(ctx, &c, op, o)
	}
	if err != nil {
		return give(err)
	}
	if r.Outcome == MoveConflict {
		r.Detail = conflictDetail(o.To, s.creds.Locate(c.after.Credentials))
		return give(nil)
	}
	undo := func(err error) (MoveResult, error) {
		if done.undo != nil {
			done.undo(ctx)
		}
		return give(err)
	}
	if err := s.readBack(ctx, c); err != nil {
		return undo(err)
	}
	keep(done.add)
	err = s.store.UpdateProvider(ctx, c.after, op, done.add, done.drop, migrated(ctx, c))
	if err != nil {
		switch s.fateOf(ctx, p.ID, op, c.moved) {
		case happened:
		case notHappened:
			return undo(err)
		default:
			return r, err
		}
	}
	s.creds.Forget(p.Credentials)
	return r, nil
}

func conflictDetail(to, where string) string {
	return fmt.Sprintf("%s holds other values at %s, which the broker did not write (--overwrite replaces them)", to, where)
}

// targetRef is where the credentials of p will lie.
func targetRef(p Provider, to string) credentials.Ref {
	ref := p.Credentials
	ref.Backend, ref.Managed, ref.State = to, true, credentials.Ready
	ref.Generation++
	if ref.Key != idKey(p.ID) {
		ref.Key = keyFor(p.Profile.Name, p.ID)
	}
	return ref
}

// moved reports whether the row is as the move wants it.
func (c change) moved(p Provider) bool {
	return p.Credentials.Backend == c.after.Credentials.Backend && p.Credentials.Generation == c.after.Credentials.Generation
}

// keep makes what a move leaves behind wait for "secrets scrub".
func keep(notes []Cleanup) {
	for i := range notes {
		notes[i].Kept, notes[i].Claim = true, 0
	}
}

func migrated(ctx context.Context, c change) audit.Event {
	data := providerData(c.after)
	data["from"], data["to"] = c.before.Credentials.Backend, c.after.Credentials.Backend
	return audit.New(ctx, audit.CredentialsMigrated, uuid.Nil, data)
}

// errUnmovable: the pair is not in a state to be moved, and waiting does not help.
var errUnmovable = errors.New("cannot be moved")

// readSource reads the pair that the row names.
func (s *Service) readSource(ctx context.Context, ref credentials.Ref) (credentials.Pair, error) {
	if ref.State == credentials.Incomplete {
		return credentials.Pair{}, fmt.Errorf(
			"%w: an update of the pair was cut off, and it may not fit together: store it anew with PUT or PATCH /providers", errUnmovable)
	}
	pair, err := s.creds.Read(ctx, ref)
	if err != nil && errors.Is(err, secret.ErrNotFound) && ref.Backend == credentials.Internal {
		return pair, fmt.Errorf("%w: a part of the pair is missing in internal: store it with PATCH /providers/%s", errUnmovable, ref.ProviderID)
	}
	if err != nil {
		return pair, s.secretError(ref, CodeCredentialsNotFoundAtFlow, err)
	}
	if pair.ClientID.IsZero() && pair.ClientSecret.IsZero() {
		return pair, fmt.Errorf("%w: there is no value at %s", errUnmovable, s.creds.Locate(ref))
	}
	for key, v := range map[string]secret.Value{ref.ClientIDAt(): pair.ClientID, ref.ClientSecretAt(): pair.ClientSecret} {
		if v.IsZero() {
			continue
		}
		if err := secret.CheckValue(v.Reveal()); err != nil { // an earlier broker stored it
			return pair, fmt.Errorf("%w: %s: %w", errUnmovable, key, err)
		}
	}
	return pair, nil
}

// readBack compares what the target holds now with what was read from the source.
func (s *Service) readBack(ctx context.Context, c change) error {
	ref := c.after.Credentials
	got, err := s.creds.Read(ctx, ref)
	switch {
	case err != nil:
		return s.secretError(ref, CodeCredentialsNotFoundAtFlow, err)
	case !got.Equal(c.want):
		return fmt.Errorf("%w: what was written to %s does not read back equal", credentials.ErrChanged, s.creds.Locate(ref))
	}
	return nil
}

// meetExisting decides about a target that holds values already.
func (s *Service) meetExisting(ctx context.Context, c *change, op Op, o MoveOptions) (MoveOutcome, step, error) {
	ref := c.after.Credentials
	there, err := s.creds.Examine(ctx, ref)
	if err != nil {
		return MoveFailed, step{}, s.secretError(ref, CodeCredentialsNotFoundAtFlow, err)
	}
	ours := writtenFor(there, c.before.ID)
	left := step{}
	if c.before.Credentials.Managed {
		left.add = []Cleanup{s.cleanupOf(c.before.ID, c.before.Credentials, true, s.cleanupTime())}
	}
	switch {
	case there.Equal(c.want) && !ours:
		c.after.Credentials.Managed = false
		return MoveAdopted, left, nil
	case !o.Overwrite && !ours:
		return MoveConflict, step{}, nil
	}
	// What the write leaves if it is cut off carries the mark, and goes. What is put back
	// does not, and stays.
	note := s.cleanupOf(c.before.ID, ref, false, op.left())
	if err := s.store.AddCleanups(ctx, note); err != nil {
		return MoveFailed, step{}, err
	}
	both := ref
	both.Public = false
	if err := s.creds.Overwrite(ctx, both, ownerOf(c.before.ID, ref.Generation), there.Pair, c.want); err != nil {
		if !errors.Is(err, credentials.ErrTorn) { // the old values are back
			if e := s.store.FinishCleanup(ctx, note.ID); e != nil {
				err = errors.Join(err, e)
			}
		}
		return MoveFailed, step{}, s.secretError(ref, CodeCredentialsNotFoundAtFlow, err)
	}
	left.drop = []uuid.UUID{note.ID}
	return MoveCopied, left, nil
}

// writtenFor reports whether all that is there is the broker's, written for a provider.
func writtenFor(there credentials.Stored, id uuid.UUID) bool {
	return (there.ClientID.IsZero() || there.Marks[0].ProviderID == id) &&
		(there.ClientSecret.IsZero() || there.Marks[1].ProviderID == id)
}

// planMove says what moveOne would do.
func (s *Service) planMove(ctx context.Context, r MoveResult, p Provider, o MoveOptions) (MoveResult, error) {
	pair, err := s.readSource(ctx, p.Credentials)
	if err != nil {
		return s.settle(r, err)
	}
	ref := targetRef(p, o.To)
	there, err := s.creds.Examine(ctx, ref)
	if err != nil {
		return s.settle(r, s.secretError(ref, CodeCredentialsNotFoundAtFlow, err))
	}
	ours := writtenFor(there, p.ID)
	r.Outcome = MoveCopied
	switch {
	case there.IsEmpty(), ours, o.To == credentials.Internal:
	case there.Equal(pair):
		r.Outcome = MoveAdopted
	case o.Overwrite:
		r.Detail = "overwrites what the broker did not write"
	default:
		r.Outcome, r.Detail = MoveConflict, conflictDetail(o.To, s.creds.Locate(ref))
	}
	return r, nil
}

// settle tells a failure that is final from one that may pass, which it returns.
func (s *Service) settle(r MoveResult, err error) (MoveResult, error) {
	if err == nil {
		return r, nil
	}
	if passing(err) {
		return r, err
	}
	r.Outcome, r.Detail = MoveFailed, failureText(err)
	return r, nil
}

// passing reports whether trying again later may help.
func passing(err error) bool {
	return errors.Is(err, ErrBusy) || errors.Is(err, ErrLostOp) || errors.Is(err, credentials.ErrChanged) ||
		errors.Is(err, credentials.ErrNotAudited) || errors.Is(err, secret.ErrThrottled) || answerLost(err) ||
		CodeOf(err) == CodeInternal && !errors.Is(err, errUnmovable)
}

// failureText is an error as a report shows it: without what it wraps, if it is one that
// a caller of the API may see.
func failureText(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}

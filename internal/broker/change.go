package broker

import (
	"context"
	"errors"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

// change is an update of one provider, planned against the row as it was read.
type change struct {
	before, after Provider
	// reads: the credentials are touched, and old is what is stored, want what shall be.
	reads     bool
	old, want credentials.Pair
	// anew: what is stored cannot be read and is deleted before want is written.
	anew bool
}

// moves reports whether the credentials will lie elsewhere.
func (c change) moves() bool {
	b, a := c.before.Credentials, c.after.Credentials
	return a.Key != b.Key || a.Backend != b.Backend
}

// renames reports whether external credentials are to be found under the new name.
func (c change) renames() bool {
	b, a := c.before.Credentials, c.after.Credentials
	return c.moves() && !b.IsZero() && !a.Referenced() && !b.Referenced()
}

// writes reports whether a value will be written.
func (c change) writes() bool { return c.reads && (c.moves() || !c.old.Equal(c.want)) }

// writesBoth reports whether both values are replaced in place, so that a cut
// between the two would leave a pair that does not fit together.
func (c change) writesBoth() bool {
	return c.reads && !c.moves() && !c.after.Credentials.InRow() && (c.anew ||
		!c.old.ClientID.Equal(c.want.ClientID) && !c.old.ClientSecret.Equal(c.want.ClientSecret))
}

// planUpdate decides what an update does. It reads the stored pair only where that
// has to be compared or moved: a change of a description needs no vault.
func (s *Service) planUpdate(ctx context.Context, before Provider, in ProfileInput, g given, patch bool) (change, error) {
	c := change{before: before, after: before}
	base := Profile{}
	if patch {
		base = before.Profile
	}
	c.after.Profile = in.apply(base)
	c.after.UpdatedAt = s.now()
	if err := c.after.Profile.validate(&before.Profile); err != nil {
		return c, err
	}
	if err := s.checkName(ctx, c); err != nil {
		return c, err
	}
	switch current := before.Credentials; {
	case g.hasReferences():
		return s.planReferences(c, g)
	case current.IsZero():
		return s.planFirstPair(ctx, c, g)
	case current.Referenced():
		return s.planReferenced(ctx, c, g)
	case !current.Managed || s.creds.ReadOnly():
		return s.planExternal(c, g)
	}
	return s.planManaged(ctx, c, in, g.pair, patch)
}

// checkName finds a name that is taken before anything is copied to its place. The
// database has the last word.
func (s *Service) checkName(ctx context.Context, c change) error {
	name := c.after.Profile.Name
	if name == c.before.Profile.Name {
		return nil
	}
	found, err := s.store.ProvidersByName(ctx, name)
	if err != nil {
		return err
	}
	for _, other := range found {
		if other.ID != c.before.ID && other.Profile.Name == name {
			return errNameTaken(name)
		}
	}
	return nil
}

// planFirstPair: a provider without credentials of its own gets some, or needs none.
func (s *Service) planFirstPair(ctx context.Context, c change, g given) (change, error) {
	ref, err := s.newRef(ctx, c.before.ID, c.after.Profile, g)
	if err != nil || ref.IsZero() && c.before.Credentials.IsZero() {
		return c, err
	}
	ref.Generation = c.before.Credentials.Generation + 1
	c.after.Credentials = ref
	c.reads, c.want = ref.Managed, g.pair
	return c, nil
}

// planExternal: of credentials that are not the broker's nothing is changed; a
// rename goes where they can be read already.
func (s *Service) planExternal(c change, g given) (change, error) {
	current := c.before.Credentials
	if g.hasPair() {
		return c, s.errExternal(current, "the broker did not write them, or is read-only (SECRET_READ_ONLY)")
	}
	c.after.Credentials = s.refAfter(c)
	if current.Managed && c.moves() {
		return c, s.errExternal(current, "the broker is read-only and cannot move them to the new name")
	}
	if c.after.Credentials != current {
		c.after.Credentials.Generation++
	}
	return c, nil
}

// refAfter returns where the credentials lie, and what they are, under the new
// profile.
func (s *Service) refAfter(c change) credentials.Ref {
	ref := c.before.Credentials
	ref.Public, ref.Optional = c.after.Profile.public(), c.after.Profile.AuthType != AuthOAuth2
	onlyHere := ref.Backend == credentials.Internal && (ref.Key == idKey(c.before.ID) || ref.InRow())
	if c.after.Profile.Name != c.before.Profile.Name && !onlyHere {
		ref.Key = keyFor(c.after.Profile.Name, c.before.ID)
	}
	return ref
}

func (s *Service) planManaged(ctx context.Context, c change, in ProfileInput, given credentials.Pair, patch bool) (change, error) {
	current := c.before.Credentials
	c.after.Credentials = s.refAfter(c)
	// What an input leaves out is kept, but by a PUT where GET shows the values.
	keep := patch || current.Backend != credentials.Internal || s.creds.External()
	clears := patch && (in.ClientID.Null || in.ClientSecret.Null)
	given0 := given.ClientID.IsZero() && given.ClientSecret.IsZero()
	if keep && !clears && given0 && c.after.Credentials == current {
		return c, nil
	}

	whatever := current
	whatever.Optional = true // a missing value is what this update may repair
	old, err := s.creds.Read(ctx, whatever)
	if errors.Is(err, secret.ErrInvalid) && !given.ClientID.IsZero() && (c.after.Credentials.Public || !given.ClientSecret.IsZero()) {
		return s.planAnew(ctx, c, given)
	}
	if err != nil {
		return c, s.secretError(current, CodeCredentialsNotFoundAtFlow, err)
	}
	c.reads, c.old = true, old
	c.want = credentials.Pair{
		ClientID:     choose(in.ClientID, given.ClientID, old.ClientID, keep, patch),
		ClientSecret: choose(in.ClientSecret, given.ClientSecret, old.ClientSecret, keep, patch),
	}
	if c.after.Credentials.Public && given.ClientSecret.IsZero() {
		c.want.ClientSecret = secret.Value{} // a client that becomes public has no secret any more
	}
	if err := completePair(c.after.Credentials, c.want); err != nil {
		return c, err
	}
	if c.writes() {
		c.after.Credentials = s.writeTarget(ctx, c.after.Credentials, c.after.Profile.Name, c.before.ID)
		c.after.Credentials.Generation++
	}
	if current.State != credentials.Incomplete || !given0 || clears { // else it may not fit together at its new place either
		c.after.Credentials.State = credentials.Ready
	}
	return c, nil
}

// planAnew: what is stored cannot be read, and the caller gives a whole new pair.
func (s *Service) planAnew(ctx context.Context, c change, given credentials.Pair) (change, error) {
	if err := completePair(c.after.Credentials, given); err != nil {
		return c, err
	}
	c.reads, c.anew, c.want = true, true, given
	c.after.Credentials = s.writeTarget(ctx, c.after.Credentials, c.after.Profile.Name, c.before.ID)
	c.after.Credentials.Generation++
	c.after.Credentials.State = credentials.Ready
	return c, nil
}

// choose returns what one of the two values shall be. An empty one counts as absent.
func choose(f Field[SecretText], given, old secret.Value, keep, nullClears bool) secret.Value {
	switch {
	case !given.IsZero():
		return given
	case f.Null && nullClears, !keep:
		return secret.Value{}
	}
	return old
}

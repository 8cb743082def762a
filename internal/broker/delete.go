package broker

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

// DeleteProvider deletes a provider; one that is not there is fine. Its name is
// free at once. What happens to its credentials depends on where they lie:
//
//   - external, managed: deleted now, or by the sweep if the store is down. Stored
//     tokens are still served; nothing is refreshed any more.
//   - external, somebody else's: left alone.
//   - internal: kept for the connections that are active, and deleted when the last
//     of them ends.
func (s *Service) DeleteProvider(ctx context.Context, id uuid.UUID) error {
	ctx, cancel := s.opContext(ctx)
	defer cancel()
	p, op, err := s.begin(ctx, id, OpDelete, false)
	if CodeOf(err) == CodeProviderNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if aside, err := s.hide(ctx, p, op); err != nil {
		switch s.fateOf(ctx, id, op, Provider.Deleted) {
		case happened: // and what is noted for deletion is the sweep's
		case notHappened:
			s.stay(ctx, p, op, aside)
			return err
		default:
			return err
		}
	}
	s.creds.Forget(p.Credentials)
	return nil
}

// stay undoes a deletion that did not take place, under the claim that has just been
// prolonged for it: the copies of the pair go, and the claim ends. What an update that was
// cut off before has left is still to be found out.
func (s *Service) stay(ctx context.Context, p Provider, op Op, aside []Cleanup) {
	ctx, cancel := s.opContext(ctx)
	defer cancel()
	for _, c := range aside {
		s.cleanUpNow(ctx, c)
	}
	s.endWith(ctx, p.ID, op, step{
		state: p.Credentials.State, generation: p.Credentials.Generation, doubtful: p.Credentials.State == credentials.Incomplete,
	})
}

// hide marks the row deleted and sees to the credentials. With an error it returns the notes
// of the copies that it has made of them.
func (s *Service) hide(ctx context.Context, p Provider, op Op) (aside []Cleanup, err error) {
	before := p.Credentials
	p.DeletedAt, p.UpdatedAt = s.now(), s.now()
	event := audit.New(ctx, audit.ProviderDeleted, uuid.Nil, providerData(p))
	internal := before.Backend == credentials.Internal
	switch {
	case before.InRow(): // where it stays, for both brokers
		return nil, s.store.DeleteProvider(ctx, p, op, nil, nil, event)
	case !before.Managed || s.creds.ReadOnly():
		if !internal { // there the connections still need them
			p.Credentials = credentials.Ref{}
		}
		return nil, s.store.DeleteProvider(ctx, p, op, nil, nil, event)
	case internal:
		return s.hideInternal(ctx, p, op, event)
	}
	p.Credentials = credentials.Ref{}
	note := s.cleanupOf(p.ID, before, true, s.cleanupTime())
	if err := s.store.DeleteProvider(ctx, p, op, []Cleanup{note}, nil, event); err != nil {
		return nil, err
	}
	s.cleanUpNow(ctx, note)
	return nil, nil
}

// hideInternal moves the pair aside, to a key that no new provider can want.
func (s *Service) hideInternal(ctx context.Context, p Provider, op Op, event audit.Event) (aside []Cleanup, err error) {
	var add []Cleanup
	var drop []uuid.UUID
	if before := p.Credentials; before.Key != idKey(p.ID) {
		whatever := before
		whatever.Optional = true
		pair, err := s.creds.Read(ctx, whatever)
		switch {
		case errors.Is(err, secret.ErrInvalid): // of no use to any connection
			p.Credentials = credentials.Ref{}
		case err != nil:
			return nil, s.secretError(before, CodeCredentialsNotFoundAtFlow, err)
		default:
			p.Credentials.Key = idKey(p.ID)
			p.Credentials.Generation++
			note, err := s.copyPair(ctx, p.ID, p.Credentials, op, pair)
			if err != nil {
				return nil, err
			}
			aside = []Cleanup{note}
			drop = []uuid.UUID{note.ID}
		}
		add = []Cleanup{s.cleanupOf(p.ID, before, true, s.cleanupTime())}
	}
	if err := s.store.DeleteProvider(ctx, p, op, add, drop, event); err != nil {
		return aside, err // each stays noted for deletion
	}
	for _, left := range add {
		s.cleanUpNow(ctx, left)
	}
	s.eraseOrphans(ctx, always)
	return nil, nil
}

// DeleteProvidersByName deletes the providers with this name, without regard to
// case, and returns how many there were.
func (s *Service) DeleteProvidersByName(ctx context.Context, name string) (int, error) {
	found, err := s.store.ProvidersByName(ctx, name)
	if err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, fail(CodeProviderNotFound, "no provider has this name")
	}
	for i, p := range found {
		if err := s.DeleteProvider(ctx, p.ID); err != nil {
			return i, err
		}
	}
	return len(found), nil
}

// cleanUp deletes what a note names and removes the note.
func (s *Service) cleanUp(ctx context.Context, c Cleanup) error {
	if err := s.erase(ctx, c); err != nil {
		return err
	}
	return s.store.FinishCleanup(ctx, c.ID)
}

// erase deletes what a note names. Where the provider's row still points there the note
// is out of date. A value that cannot be proved to be ours stays where it is and is
// reported. Both end the matter.
func (s *Service) erase(ctx context.Context, c Cleanup) error {
	ctx, cancel := context.WithTimeout(ctx, s.cleanupTime())
	defer cancel()
	p, err := s.store.Provider(ctx, c.ProviderID)
	switch {
	case err != nil && !errors.Is(err, ErrNoRow):
		return err
	case err == nil && p.Credentials.Backend == c.Backend && p.Credentials.Key == c.Key:
		s.log.InfoContext(ctx, "credentials that were noted for deletion are in use", "provider_id", p.ID, "backend", c.Backend, "key", c.Key)
		return nil
	}
	err = s.creds.Erase(ctx, c.Backend, c.Key, ownerOf(c.ProviderID, c.Generation), c.Published)
	var kept *credentials.NotOursError
	if errors.As(err, &kept) {
		s.log.WarnContext(ctx, "a value was left in place: it is not proved to be the broker's",
			"backend", c.Backend, "paths", kept.Paths, "provider_id", c.ProviderID)
		return nil
	}
	return err
}

// cleanUpNow is cleanUp for one who has other things to answer for: what fails is
// left to the sweep.
func (s *Service) cleanUpNow(ctx context.Context, c Cleanup) {
	if err := s.cleanUp(ctx, c); err != nil {
		s.log.WarnContext(ctx, "credentials not deleted yet; the sweep will try again",
			"backend", c.Backend, "key", c.Key, "error", err)
		s.postpone(ctx, c, err)
	}
}

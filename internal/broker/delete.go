package broker

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
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
	if err := s.hide(ctx, p, op); err != nil {
		s.end(ctx, id, op, p.Credentials.State, p.Credentials.Generation)
		return err
	}
	s.creds.Forget(p.Credentials)
	return nil
}

// hide marks the row deleted and sees to the credentials.
func (s *Service) hide(ctx context.Context, p Provider, op Op) error {
	before := p.Credentials
	p.DeletedAt, p.UpdatedAt = s.now(), s.now()
	event := audit.New(ctx, audit.ProviderDeleted, uuid.Nil, providerData(p))
	switch {
	case before.Managed && before.Backend == credentials.Internal:
		return s.hideInternal(ctx, p, op, event)
	case !before.Managed || s.creds.ReadOnly():
		p.Credentials = credentials.Ref{}
		return s.store.DeleteProvider(ctx, p, op, nil, nil, event)
	}
	p.Credentials = credentials.Ref{}
	note := s.cleanupOf(p.ID, before, true, s.now().Add(s.opTime()))
	if err := s.store.DeleteProvider(ctx, p, op, []Cleanup{note}, nil, event); err != nil {
		return err
	}
	s.cleanUpNow(ctx, note)
	return nil
}

// hideInternal moves the pair aside, to a key that no new provider can want.
func (s *Service) hideInternal(ctx context.Context, p Provider, op Op, event audit.Event) error {
	var add []Cleanup
	var drop []uuid.UUID
	if before := p.Credentials; before.Key != idKey(p.ID) {
		whatever := before
		whatever.Optional = true
		pair, err := s.creds.Read(ctx, whatever)
		if err != nil {
			return s.secretError(before, CodeCredentialsNotFoundAtFlow, err)
		}
		p.Credentials.Key = idKey(p.ID)
		p.Credentials.Generation++
		note, err := s.copyPair(ctx, p.ID, p.Credentials, op, pair)
		if err != nil {
			return err
		}
		drop = []uuid.UUID{note.ID}
		add = []Cleanup{s.cleanupOf(p.ID, before, true, s.now().Add(s.opTime()))}
	}
	if err := s.store.DeleteProvider(ctx, p, op, add, drop, event); err != nil {
		return err // a copy that was made stays noted for deletion
	}
	for _, left := range add {
		s.cleanUpNow(ctx, left)
	}
	s.eraseOrphans(ctx)
	return nil
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

// erase deletes what a note names. A value that cannot be proved to be ours stays
// where it is and is reported; that ends the matter too.
func (s *Service) erase(ctx context.Context, c Cleanup) error {
	err := s.creds.Erase(ctx, c.Backend, c.Key, ownerOf(c.ProviderID, c.Generation), c.Published)
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

package broker

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/secret"
)

// Provider returns a provider as an administrator may see it. The client
// credentials are shown only where they lie in the broker's own database and are
// not redacted.
func (s *Service) Provider(ctx context.Context, id uuid.UUID) (ProviderView, error) {
	view, err := s.ProviderWithoutValues(ctx, id)
	ref := view.Provider.Credentials
	if err != nil || ref.IsZero() || s.hidden(ref) {
		return view, err
	}
	ref.Optional = true // a value that is missing is left out
	pair, err := s.creds.Read(ctx, ref)
	if err != nil {
		return ProviderView{}, s.secretError(ref, CodeCredentialsNotFoundAtFlow, err)
	}
	view.ClientID, view.ClientSecret = pair.ClientID, pair.ClientSecret
	return view, nil
}

// ProviderWithoutValues is Provider for who sees no client credentials: they are not
// read, so that no audit row says they were, and no failure to read them matters.
func (s *Service) ProviderWithoutValues(ctx context.Context, id uuid.UUID) (ProviderView, error) {
	p, err := s.visible(ctx, id)
	if err != nil {
		return ProviderView{}, err
	}
	view := ProviderView{Provider: p}
	if ref := p.Credentials; !ref.IsZero() {
		view.Location = s.creds.Locate(ref)
		// Of a pair that may not fit together the values do not say so.
		view.ShowCredentials = s.hidden(ref) || ref.State == credentials.Incomplete
		if !s.creds.Configured(ref.Backend) {
			view.Provider.Credentials.State = credentials.Unknown // whatever was known: nobody here can look
		}
	}
	return view, nil
}

// hidden reports whether nobody is shown the values at ref.
func (s *Service) hidden(ref credentials.Ref) bool {
	return ref.Backend != credentials.Internal || s.creds.External() || s.cfg.RedactClientSecrets
}

// ProviderIDByName returns the provider with this name, without regard to case; the
// newest if an old database holds several.
func (s *Service) ProviderIDByName(ctx context.Context, name string) (uuid.UUID, error) {
	found, err := s.store.ProvidersByName(ctx, name)
	if err != nil {
		return uuid.Nil, err
	}
	if len(found) == 0 {
		return uuid.Nil, fail(CodeProviderNotFound, "no provider has this name")
	}
	return found[0].ID, nil
}

// Providers gives the providers, newest first.
func (s *Service) Providers(ctx context.Context, page Page) Listing[Provider] {
	return s.store.Providers(ctx, page)
}

// flowPair returns the credentials for a flow of p. If they are not where p says, the
// row is read again: a rename may have moved them since, and p becomes the newer row.
func (s *Service) flowPair(ctx context.Context, p *Provider) (credentials.Pair, error) {
	pair, err := s.creds.Get(ctx, p.Credentials)
	if errors.Is(err, secret.ErrNotFound) {
		if now, rowErr := s.store.Provider(ctx, p.ID); rowErr == nil && now.Credentials != p.Credentials {
			*p = now
			pair, err = s.creds.Get(ctx, p.Credentials)
		}
	}
	if err == nil {
		return pair, nil
	}
	return credentials.Pair{}, s.noPair(ctx, *p, err)
}

// noPair turns the failure to read the credentials for a flow of p into what the
// caller sees, and notes on the provider what it tells.
func (s *Service) noPair(ctx context.Context, p Provider, err error) *Error {
	failure := s.secretError(p.Credentials, CodeCredentialsNotFoundAtFlow, err)
	switch failure.Code {
	case CodeCredentialsNotFoundAtFlow:
		s.learn(ctx, p, HealthCredentialsMissing, failure.Message)
		s.noteState(ctx, p, credentials.Missing)
	case CodeCredentialsInvalid:
		s.learn(ctx, p, HealthCredentialsMissing, failure.Message)
		s.noteState(ctx, p, credentials.Unknown)
	}
	return failure
}

// noteState stores what a flow learned of the stored pair, if it is news.
func (s *Service) noteState(ctx context.Context, p Provider, state credentials.State) {
	if p.Credentials.State == state {
		return
	}
	if err := s.store.SetCredentialsState(ctx, p.ID, p.Credentials.Generation, state); err != nil {
		s.log.WarnContext(ctx, "state of credentials not stored", "provider_id", p.ID, "error", err)
	}
}

package broker

import (
	"bytes"
	"context"
	"errors"
	"runtime/debug"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

// Refresh gets a new token from the provider and stores it. Callers of one
// connection at one time share one request, whichever replica they have asked. A
// refresh that has begun goes on to its end when its caller has gone: a rotated token
// that is not stored is lost.
func (s *Service) Refresh(ctx context.Context, id uuid.UUID) (TokenAnswer, error) {
	return s.shareRefresh(ctx, id, StoredToken{})
}

// shareRefresh is Refresh for one who has seen a stored token: if another token is
// stored by now, that is the new one. Zero for who has seen none.
func (s *Service) shareRefresh(ctx context.Context, id uuid.UUID, seen StoredToken) (TokenAnswer, error) {
	leader := false
	shared := s.refreshes.DoChan(id.String(), func() (_ any, err error) {
		leader = true
		defer func() { // there is no request here whose handler would recover
			if r := recover(); r != nil {
				s.log.ErrorContext(ctx, "panic during a refresh", "connection_id", id, "err", PanicText(r), "stack", string(debug.Stack()))
				err = &Error{Code: CodeInternal, Message: "the refresh failed"}
			}
		}()
		release, err := s.hold()
		if err != nil {
			return nil, err
		}
		defer release()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeTime)
		defer cancel()
		return s.refresh(ctx, id, seen)
	})
	s.metrics.RefreshWaiting(1)
	defer s.metrics.RefreshWaiting(-1)
	select {
	case <-ctx.Done():
		return TokenAnswer{}, ctx.Err()
	case r := <-shared:
		if r.Err != nil {
			return TokenAnswer{}, r.Err
		}
		if !leader { // the leader's audit row came with the token
			e := audit.New(ctx, audit.TokenRetrieved, id, map[string]any{"via": "refresh"})
			if err := s.store.Record(ctx, e); err != nil {
				return TokenAnswer{}, err
			}
		}
		return r.Val.(TokenAnswer), nil
	}
}

// refresh takes the lease on the connection's refresh and makes the request, or waits
// for the replica that does. Whatever refresh ends after this one has looked is as good
// as its own, also one that fails.
func (s *Service) refresh(ctx context.Context, id uuid.UUID, looked StoredToken) (TokenAnswer, error) {
	before, err := s.store.RefreshState(ctx, id)
	if err != nil {
		return TokenAnswer{}, err
	}
	view, current, err := s.refreshable(ctx, id)
	if err != nil {
		return TokenAnswer{}, err
	}
	if looked.Sealed != "" && !s.sameToken(id, looked, view.Token) {
		return s.newer(ctx, id)
	}
	seen := RefreshSeen{Sealed: view.Token.Sealed, Ended: before.Ended}
	for {
		lease, err := s.store.ClaimRefresh(ctx, id, seen, s.leaseTime())
		switch {
		case err == nil:
			answer, err := s.refreshUnder(ctx, lease, view, current)
			if !errors.Is(err, errLostLease) {
				return answer, err
			}
			// Whoever has the lease now makes the request: it is waited for.
		case errors.Is(err, ErrBusy):
			outcome, ended, lapsed, err := s.awaitRefresh(ctx, lease)
			switch {
			case err != nil:
				return TokenAnswer{}, err
			case !ended:
				seen.Lapsed = lapsed
			case outcome != nil:
				return TokenAnswer{}, outcome
			default:
				return s.newer(ctx, id)
			}
		case errors.Is(err, ErrStale):
			now, err := s.store.Token(ctx, id)
			if err != nil && !errors.Is(err, ErrNoRow) {
				return TokenAnswer{}, err
			}
			if !s.resealed(view, now) {
				return s.newer(ctx, id)
			}
			view, seen.Sealed = now, now.Token.Sealed
		default:
			return TokenAnswer{}, err
		}
	}
}

// refreshWith asks the provider for a token and stores it. begin is called right
// before each request is sent.
func (s *Service) refreshWith(
	ctx context.Context, view TokenView, current oauth.TokenSet, begin func() error,
) (TokenAnswer, error) {
	p, err := s.store.Provider(ctx, view.ProviderID)
	if errors.Is(err, ErrNoRow) || err == nil && p.Deleted() && p.Credentials.IsZero() {
		return TokenAnswer{}, fail(CodeProviderNotFound, "the provider of this connection has been deleted")
	}
	if err != nil {
		return TokenAnswer{}, err
	}
	fresh, err := s.askForToken(ctx, p, view, current, begin)
	if errors.Is(err, errLostLease) {
		return TokenAnswer{}, err
	}
	if err != nil {
		s.metrics.Refresh("error")
		return s.refreshFailed(ctx, view, err)
	}
	s.metrics.Refresh("success")
	return s.storeRefreshed(ctx, p, view, current, fresh)
}

// refreshable returns a connection whose token can be refreshed, and the token.
func (s *Service) refreshable(ctx context.Context, id uuid.UUID) (TokenView, oauth.TokenSet, error) {
	view, err := s.store.Token(ctx, id)
	switch {
	case errors.Is(err, ErrNoRow):
		return view, oauth.TokenSet{}, errNoConnection()
	case err != nil:
		return view, oauth.TokenSet{}, err
	case view.Status != StatusActive:
		return view, oauth.TokenSet{}, fail(CodeConnectionNotFound, "the connection is not active")
	case view.AuthType != AuthOAuth2:
		return view, oauth.TokenSet{}, fail(CodeStaticToken, "static credentials are not refreshed")
	case view.Token.Sealed == "":
		return view, oauth.TokenSet{}, fail(CodeTokenNotFound, "the connection has no token")
	}
	current, err := s.openToken(id, view.Token)
	if err == nil && current.Text("refresh_token").IsZero() {
		return view, current, fail(CodeNoRefreshToken, "the provider gave no refresh token")
	}
	return view, current, err
}

func (s *Service) askForToken(
	ctx context.Context, p Provider, view TokenView, current oauth.TokenSet, begin func() error,
) (oauth.TokenSet, error) {
	endpoints, err := s.endpoints(ctx, p, view.Scopes)
	if err != nil {
		return oauth.TokenSet{}, err
	}
	return s.withPair(ctx, p, func(pair credentials.Pair) (oauth.TokenSet, error) {
		if err := begin(); err != nil {
			return oauth.TokenSet{}, err
		}
		return s.oauth.Refresh(ctx, oauth.Refresh{
			TokenRequest: oauth.TokenRequest{
				Endpoint: endpoints.TokenEndpoint, Auth: p.Profile.clientAuth(pair),
				JSON: p.Profile.Params.jsonTokenRequest(),
			},
			RefreshToken: current.Text("refresh_token"),
		})
	})
}

// refreshFailed decides what a failure means for the connection: only
// invalid_grant ends it, and that only if the token that was refused is still the
// one that is stored.
func (s *Service) refreshFailed(ctx context.Context, view TokenView, err error) (TokenAnswer, error) {
	var known *Error
	if errors.As(err, &known) {
		return TokenAnswer{}, known
	}
	code := oauthCode(err)
	s.log.WarnContext(ctx, "refresh failed", "connection_id", view.ConnectionID, "error", err)
	if code != "invalid_grant" {
		upstream := &Error{Code: CodeUpstreamError, Err: err, Message: "the provider did not refresh the token; try again later"}
		if code != "" {
			upstream.Details = map[string]any{"provider_error": code}
		}
		var e *oauth.Error
		if errors.As(err, &e) {
			upstream.RetryAfter = e.RetryAfter
		}
		return TokenAnswer{}, upstream
	}
	event := audit.New(ctx, audit.TokenRefreshFatal, view.ConnectionID, map[string]any{"provider_error": code})
	_, err = s.changeToken(ctx, view, func(ctx context.Context, sealed string) error {
		return s.store.Attention(ctx, view.ConnectionID, sealed, s.now(), event)
	})
	if errors.Is(err, ErrStale) {
		return s.newer(ctx, view.ConnectionID)
	}
	if err != nil {
		return TokenAnswer{}, err
	}
	return TokenAnswer{}, errAttention()
}

// storeRefreshed stores a refreshed token. What it replaces must be the token that
// was refreshed: a slower, older refresh never overwrites a newer token. If the
// connection has been revoked meanwhile the token is of no use any more, and the
// provider is told so.
func (s *Service) storeRefreshed(ctx context.Context, p Provider, view TokenView, current, fresh oauth.TokenSet) (TokenAnswer, error) {
	received := s.now()
	merged := current.Merge(fresh)
	stored, err := s.sealToken(ctx, view.ConnectionID, merged, received)
	if err != nil {
		return TokenAnswer{}, err
	}
	event := audit.New(ctx, audit.TokenRefreshed, view.ConnectionID, nil)
	now, err := s.changeToken(ctx, view, func(ctx context.Context, sealed string) error {
		return s.store.ReplaceToken(ctx, view.ConnectionID, sealed, stored, s.now(), event)
	})
	if errors.Is(err, ErrStale) {
		if now.Status == StatusRevoked {
			s.revokeAtProvider(ctx, p, view.ConnectionID, view.Scopes, merged)
		}
		return s.newer(ctx, view.ConnectionID)
	}
	if err != nil {
		s.note(ctx, audit.New(ctx, audit.TokenStorageFailed, view.ConnectionID, nil))
		return TokenAnswer{}, err
	}
	view.Token = stored
	return s.answer(view)
}

// changeToken calls change with the sealed token of view, which the row must still
// hold, until it succeeds. It goes on where the row has changed only in how the same
// token is sealed: a rotation of the encryption key must neither cost a token nor save
// one that the provider has refused. Else it returns ErrStale and what the row holds.
func (s *Service) changeToken(
	ctx context.Context, view TokenView, change func(ctx context.Context, sealed string) error,
) (TokenView, error) {
	for {
		err := s.persist(ctx, func(ctx context.Context) error { return change(ctx, view.Token.Sealed) })
		if !errors.Is(err, ErrStale) {
			return view, err
		}
		now, readErr := s.tokenAfter(ctx, view.ConnectionID)
		switch {
		case readErr != nil && !errors.Is(readErr, ErrNoRow):
			return now, readErr
		case !s.resealed(view, now):
			return now, err
		}
		view = now
	}
}

// tokenAfter returns what a connection holds after a token for it was not stored. What to
// do with that one depends on it: it is looked up like it was to be stored, however long
// that takes.
func (s *Service) tokenAfter(ctx context.Context, id uuid.UUID) (now TokenView, err error) {
	err = s.persist(ctx, func(ctx context.Context) (err error) {
		now, err = s.store.Token(ctx, id)
		return err
	})
	return now, err
}

// resealed reports whether a connection is active and still has the token that it had.
func (s *Service) resealed(before, now TokenView) bool {
	return now.Status == StatusActive && s.sameToken(before.ConnectionID, before.Token, now.Token)
}

// sameToken reports whether two envelopes hold the same token of a connection, or the
// same credentials that a user has entered: every member of it. They differ without a
// refresh where the encryption key is being rotated.
func (s *Service) sameToken(id uuid.UUID, a, b StoredToken) bool {
	if a.Sealed == b.Sealed {
		return true
	}
	first, err := s.keyring.Open(TokenPurpose(id), a.Sealed)
	if err != nil {
		return false
	}
	second, err := s.keyring.Open(TokenPurpose(id), b.Sealed)
	return err == nil && bytes.Equal(first, second)
}

// newer hands out the token that somebody else has stored meanwhile.
func (s *Service) newer(ctx context.Context, id uuid.UUID) (TokenAnswer, error) {
	e := audit.New(ctx, audit.TokenRetrieved, id, map[string]any{"via": "refresh"})
	view, err := s.store.ReadToken(ctx, id, e)
	if errors.Is(err, ErrNoRow) {
		return TokenAnswer{}, errNoConnection()
	}
	if err == nil {
		err = usable(view)
	}
	if err != nil {
		return TokenAnswer{}, err
	}
	return s.answer(view)
}

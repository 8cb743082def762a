package broker

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// Token hands out the stored token of a connection. It needs the database and
// nothing else: no vault, no provider. The audit row is durable before it returns.
func (s *Service) Token(ctx context.Context, id uuid.UUID) (TokenAnswer, error) {
	view, err := s.store.ReadToken(ctx, id, audit.New(ctx, audit.TokenRetrieved, id, nil))
	if err == nil {
		err = usable(view)
	}
	if errors.Is(err, ErrNoRow) {
		err = errNoConnection()
	}
	var answer TokenAnswer
	if err == nil {
		answer, err = s.answer(view)
	}
	if err != nil {
		s.noteRefusal(ctx, id, view, err)
		return TokenAnswer{}, err
	}
	s.metrics.TokenGet(view.ProviderID.String(), answer.Token.Has("id_token"))
	return answer, nil
}

// TokenLasting is Token for a caller who needs the token for a while: if it expires
// sooner and can be refreshed, it is refreshed first, together with everybody else who
// asks for that. A provider may give tokens that do not last so long; the newest is
// handed out all the same. So is the stored token, as long as it has not expired, if
// the refresh fails for a reason that does not end the connection.
func (s *Service) TokenLasting(ctx context.Context, id uuid.UUID, atLeast time.Duration) (TokenAnswer, error) {
	view, err := s.store.Token(ctx, id)
	if err != nil || !s.refreshFirst(view, atLeast) {
		return s.Token(ctx, id) // which has the words and the audit event for every refusal
	}
	answer, err := s.shareRefresh(ctx, id, view.Token)
	switch {
	case err == nil:
		s.metrics.TokenGet(view.ProviderID.String(), answer.Token.Has("id_token"))
		return answer, nil
	case ctx.Err() != nil || !s.now().Before(view.Token.ExpiresAt):
		s.noteRefusal(ctx, id, view, err)
		return TokenAnswer{}, err
	}
	s.log.InfoContext(ctx, "a token that has not expired yet is handed out: its refresh failed", "connection_id", id, "error", err)
	return s.Token(ctx, id)
}

// refreshFirst reports whether a token should and can be refreshed to last so long.
func (s *Service) refreshFirst(v TokenView, atLeast time.Duration) bool {
	if usable(v) != nil || v.AuthType != AuthOAuth2 || v.Token.ExpiresAt.IsZero() || v.Token.ExpiresAt.Sub(s.now()) >= atLeast {
		return false
	}
	current, err := s.openToken(v.ConnectionID, v.Token)
	return err == nil && !current.Text("refresh_token").IsZero()
}

func errNoConnection() *Error { return fail(CodeConnectionNotFound, "no connection has this id") }

// usable checks that a connection has a token to give.
func usable(v TokenView) error {
	switch {
	case v.Status == StatusAttention:
		return errAttention()
	case v.Status == StatusRevoked:
		return errRevoked()
	case v.Status != StatusActive:
		return fail(CodeConnectionNotActive, "the connection is not active")
	case v.Token.Sealed == "":
		return fail(CodeTokenNotFound, "the connection has no token")
	}
	return nil
}

func errRevoked() *Error { return fail(CodeConnectionRevoked, "the connection has been revoked") }

func errAttention() *Error {
	return fail(CodeAttentionRequired, "the user must consent again: the provider has ended the authorization")
}

func (s *Service) noteRefusal(ctx context.Context, id uuid.UUID, v TokenView, why error) {
	data := map[string]any{"reason": string(CodeOf(why))}
	known := v.ConnectionID
	if known == uuid.Nil { // a row that does not exist cannot be referred to
		data["connection_id"] = id.String()
	}
	s.note(ctx, audit.New(ctx, audit.TokenRetrievalFailed, known, data))
}

// answer opens a stored token.
func (s *Service) answer(v TokenView) (TokenAnswer, error) {
	tokens, err := s.openToken(v.ConnectionID, v.Token)
	if err != nil {
		return TokenAnswer{}, err
	}
	return TokenAnswer{
		AuthType: v.AuthType, Strategy: v.Params.strategy(v.AuthType), Token: tokens,
		ExpiresAt: v.Token.ExpiresAt,
		Expired:   !v.Token.ExpiresAt.IsZero() && !s.now().Before(v.Token.ExpiresAt),
	}, nil
}

func (s *Service) openToken(id uuid.UUID, t StoredToken) (oauth.TokenSet, error) {
	plain, err := s.keyring.Open(TokenPurpose(id), t.Sealed)
	switch {
	case errors.Is(err, seal.ErrOpen):
		return oauth.TokenSet{}, &Error{Code: CodeInternal, Err: err,
			Message: "the stored token does not open with this broker's ENCRYPTION_KEY; its operator must add the key that it was sealed under"}
	case err != nil:
		return oauth.TokenSet{}, err
	}
	return oauth.DecodeTokenSet(plain)
}

// sealToken returns what is stored of a token that was received at now.
func (s *Service) sealToken(ctx context.Context, id uuid.UUID, t oauth.TokenSet, now time.Time) (StoredToken, error) {
	plain, err := t.Encode()
	if err != nil {
		return StoredToken{}, err
	}
	stored := StoredToken{Sealed: s.sealed(ctx, id, plain)}
	if lifetime, ok := t.ExpiresIn(); ok {
		stored.ExpiresAt = now.Add(lifetime)
	}
	return stored, nil
}

// storeTime is how long a single attempt to store something may take.
const storeTime = 10 * time.Second

// persist stores what would be lost otherwise: it tries again, while the process
// lives, until store succeeds or fails for a reason that another try cannot change. The
// first attempts are short, since a connection to the database may have vanished without
// a word; a database that is merely slow gets more time with each.
func (s *Service) persist(ctx context.Context, store func(context.Context) error) error {
	ctx = context.WithoutCancel(ctx)
	waits := backoff.NewExponentialBackOff()
	waits.MaxInterval = s.leaseTime() / 3 // half as much again with jitter: before the lease of a refresh is taken over
	waits.InitialInterval = min(waits.InitialInterval, waits.MaxInterval)
	for limit := s.renewalTime(); ; limit = min(2*limit, storeTime) {
		err := tryStore(ctx, limit, store)
		if err == nil || errors.Is(err, ErrNoRow) || errors.Is(err, ErrStale) || errors.Is(err, ErrNoProvider) {
			return err
		}
		s.log.ErrorContext(ctx, "a token could not be stored; trying again", "error", err)
		select {
		case <-s.closing:
			return tryStore(ctx, storeTime, store)
		case <-time.After(waits.NextBackOff()):
		}
	}
}

func tryStore(ctx context.Context, limit time.Duration, store func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return store(ctx)
}

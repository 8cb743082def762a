package broker

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/secret"
)

// maxReason is how much of a reason is kept, in characters.
const maxReason = 1000

// Connections gives the connections of a workspace that are not pending, newest first.
func (s *Service) Connections(ctx context.Context, workspaceID string, page Page) Listing[ConnectionSummary] {
	if workspaceID == "" {
		return func(yield func(ConnectionSummary, error) bool) {
			yield(ConnectionSummary{}, fail(CodeMissingWorkspaceID, "the parameter workspace_id is required"))
		}
	}
	return s.store.Connections(ctx, workspaceID, page)
}

// Revoke ends a connection for good. First its token is deleted, which needs the
// database and nothing else; then the provider is asked to make it void (RFC 7009).
// What comes of that is told, and changes nothing of the first. A connection that has
// been revoked is no error: nothing is deleted then, and nobody asked. So the provider is
// asked once or never: a revocation goes on to its end when its caller has gone, and is
// not begun by a broker that is shutting down.
func (s *Service) Revoke(ctx context.Context, r RevokeRequest) (Revocation, error) {
	release, err := s.hold()
	if err != nil {
		return Revocation{}, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revocationTime)
	defer cancel()
	reason := clipText(r.Reason)
	event := audit.New(ctx, audit.ConnectionRevoked, r.ConnectionID, map[string]any{"reason": reason})
	revoked, err := s.store.RevokeConnection(ctx, r.ConnectionID, r.WorkspaceID, reason, s.now(), event)
	if errors.Is(err, ErrNoRow) {
		return Revocation{}, errNoConnection()
	}
	if err != nil {
		return Revocation{}, unstorable(err, CodeConnectionNotFound)
	}
	done := Revocation{ConnectionID: r.ConnectionID, RevokedAt: revoked.RevokedAt, TokenDeleted: revoked.Token.Sealed != ""}
	p, err := s.store.Provider(ctx, revoked.ProviderID)
	if err != nil { // the connection is revoked all the same
		s.log.ErrorContext(ctx, "the provider of a revoked connection could not be read", "connection_id", r.ConnectionID, "error", err)
		return done, nil
	}
	done.ProviderName = p.Profile.Name
	if !done.TokenDeleted {
		return done, nil
	}
	tokens, err := s.openToken(r.ConnectionID, revoked.Token)
	if err != nil {
		s.log.ErrorContext(ctx, "a deleted token cannot be revoked at the provider", "connection_id", r.ConnectionID, "error", err)
		return done, nil
	}
	done.ProviderRevoked = s.revokeAtProvider(ctx, p, r.ConnectionID, revoked.Scopes, tokens)
	return done, nil
}

// clipText bounds a text of a caller's that is kept.
func clipText(s string) string {
	if runes := []rune(s); len(runes) > maxReason {
		return string(runes[:maxReason])
	}
	return s
}

// What came of asking a provider to make a token void, as the audit log has it.
const (
	revocationDone        = "revoked"
	revocationUnsupported = "unsupported" // the provider has no endpoint for it
	revocationFailed      = "failed"
)

// revokeAtProvider asks the provider to make the tokens void and reports whether it
// did. It is not stopped by a caller who goes away, and has a time limit of its own. The
// caller keeps Close waiting.
func (s *Service) revokeAtProvider(ctx context.Context, p Provider, connection uuid.UUID, scopes []string, tokens oauth.TokenSet) bool {
	if p.Profile.AuthType != AuthOAuth2 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revocationTime)
	defer cancel()
	result, why := s.tellProvider(ctx, p, scopes, tokens)
	data := map[string]any{"result": result, "provider_error": oauthCode(why)}
	if why != nil {
		s.log.WarnContext(ctx, "the provider did not revoke a token", "connection_id", connection, "provider_id", p.ID, "error", why)
		if code := CodeOf(why); code != CodeInternal {
			data["reason"] = string(code)
		}
	}
	s.note(ctx, audit.New(ctx, audit.ProviderRevocation, connection, data))
	return result == revocationDone
}

// revocationTime bounds the local revocation, and after it the one at the provider, with
// all they take.
const revocationTime = 30 * time.Second

// tellProvider returns what came of it, and why not all of the tokens are void.
func (s *Service) tellProvider(ctx context.Context, p Provider, scopes []string, tokens oauth.TokenSet) (result string, err error) {
	if p.Deleted() && p.Credentials.IsZero() {
		return revocationUnsupported, nil // there is nothing left to authenticate with
	}
	endpoints, err := s.endpoints(ctx, p, scopes)
	switch {
	case err != nil:
		return revocationFailed, err
	case endpoints.RevocationEndpoint == "" && endpoints.Outage:
		return revocationFailed, fail(CodeUpstreamError, "the provider's OIDC discovery does not answer")
	case endpoints.RevocationEndpoint == "":
		return revocationUnsupported, nil
	}
	// The refresh token first: without it the access token is worth little, and with it
	// most providers end the whole grant (RFC 7009 §2.1). A provider may take the one kind
	// of tokens and not the other (§2.2.1).
	result, failure := revocationUnsupported, error(nil)
	for _, hint := range []string{oauth.RefreshTokenHint, oauth.AccessTokenHint} {
		token := tokens.Text(hint)
		if token.IsZero() {
			continue
		}
		err := s.revokeToken(ctx, p, endpoints.RevocationEndpoint, token, hint)
		switch {
		case err == nil:
			result = revocationDone
		case result == revocationDone: // the grant is ended; many providers do not take access tokens
			s.log.InfoContext(ctx, "the provider did not revoke the access token", "provider_id", p.ID, "error", err)
		case oauthCode(err) == "unsupported_token_type":
			result, failure = revocationFailed, err
		default:
			return revocationFailed, err
		}
	}
	return result, failure
}

func (s *Service) revokeToken(ctx context.Context, p Provider, endpoint string, token secret.Value, hint string) error {
	_, err := s.withPair(ctx, p, func(pair credentials.Pair) (oauth.TokenSet, error) {
		return oauth.TokenSet{}, s.oauth.Revoke(ctx, oauth.Revocation{
			Endpoint: endpoint, Auth: p.Profile.clientAuth(pair), Token: token, Hint: hint,
		})
	})
	return err
}

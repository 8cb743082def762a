package broker

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/secret"
)

// exchangeTime bounds an exchange or a refresh with all it takes.
const exchangeTime = 60 * time.Second

// Complete ends a consent with what the provider's redirect carried: it exchanges
// the code for tokens, stores them and says where the browser goes. After a valid
// state every *Error has a ReturnURL.
func (s *Service) Complete(ctx context.Context, cb Callback) (Redirect, error) {
	conn, err := s.consentOf(ctx, cb)
	if err != nil {
		return Redirect{}, s.withReturnURL(err, conn, cb)
	}
	// From here on a code is spent: what follows is not for the browser to interrupt.
	release, err := s.hold()
	if err != nil {
		return Redirect{}, s.withReturnURL(err, conn, cb)
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exchangeTime)
	defer cancel()
	p, err := s.exchange(ctx, conn, cb)
	if err != nil {
		return Redirect{}, s.withReturnURL(err, conn, cb)
	}
	return Redirect{URL: withQuery(conn.ReturnURL,
		"status", "success", "connection_id", conn.ID.String(), "provider", p.Profile.Name)}, nil
}

// consentOf returns the pending connection that a callback is for. With an error it
// returns the connection where the state at least was valid.
func (s *Service) consentOf(ctx context.Context, cb Callback) (Connection, error) {
	if cb.Error != "" {
		conn, _ := s.verifiedConnection(ctx, cb.State)
		s.note(ctx, audit.New(ctx, audit.OAuthError, conn.ID, map[string]any{"error": oauth.RegisteredErrorCode(cb.Error)}))
		return conn, fail(CodeOAuthError, "the provider answered with an error instead of a code")
	}
	if cb.Code.IsZero() || cb.State == "" {
		return Connection{}, fail(CodeMissingParams, "code and state are required")
	}
	conn, err := s.verifiedConnection(ctx, cb.State)
	if err != nil {
		return conn, err
	}
	return conn, s.pending(ctx, conn)
}

// verifiedConnection returns the connection that a signed state names.
func (s *Service) verifiedConnection(ctx context.Context, signed string) (Connection, error) {
	st, id, err := verifyState(s.cfg.StateKey, signed, s.now())
	if err != nil {
		s.note(ctx, audit.New(ctx, audit.StateVerificationFailed, uuid.Nil, nil))
		return Connection{}, &Error{Code: CodeInvalidState, Err: err, Message: "the state is not valid or has expired; begin again"}
	}
	conn, err := s.store.Consent(ctx, id, st.IssuedAt)
	switch {
	case errors.Is(err, ErrNoRow):
		s.note(ctx, audit.New(ctx, audit.ConnectionNotFound, uuid.Nil, map[string]any{"connection_id": id.String()}))
		return Connection{}, errConnectionGone()
	case err != nil:
		return Connection{}, err
	case conn.ProviderID.String() != st.ProviderID || conn.WorkspaceID != st.WorkspaceID:
		s.note(ctx, audit.New(ctx, audit.StateVerificationFailed, conn.ID, nil))
		return Connection{}, fail(CodeInvalidState, "the state is for another connection")
	}
	if err := s.cfg.checkReturnURL(conn.ReturnURL); err != nil { // the rules may be newer than the row
		s.note(ctx, audit.New(ctx, audit.InvalidReturnURL, conn.ID, map[string]any{"reason": err.Message}))
		return Connection{}, err
	}
	return conn, nil
}

func errConnectionGone() *Error {
	return fail(CodeConnectionNotFound, "the consent is unknown, has expired or has been used; begin again")
}

// pending checks that a connection still waits for its consent.
func (s *Service) pending(ctx context.Context, conn Connection) error {
	waiting := conn.Status == StatusPending || !conn.Reconsent.IsZero() && conn.Status != StatusRevoked
	if waiting && s.now().Before(conn.ExpiresAt) {
		return nil
	}
	return s.gone(ctx, conn)
}

// gone notes that a consent cannot be completed any more and returns why.
func (s *Service) gone(ctx context.Context, conn Connection) error {
	s.note(ctx, audit.New(ctx, audit.ConnectionNotFound, conn.ID, map[string]any{"status": string(conn.Status)}))
	return errConnectionGone()
}

// providerGone notes that the provider of a consent has been deleted and returns that.
func (s *Service) providerGone(ctx context.Context, conn Connection) error {
	s.note(ctx, audit.New(ctx, audit.ProviderNotFound, conn.ID, map[string]any{"provider_id": conn.ProviderID.String()}))
	return fail(CodeProviderNotFound, "the provider has been deleted")
}

// withReturnURL completes the error of a callback with where a browser goes.
func (s *Service) withReturnURL(err error, conn Connection, cb Callback) error {
	var e *Error
	if conn.ReturnURL == "" {
		return err
	}
	if !errors.As(err, &e) {
		e = &Error{Code: CodeInternal, Message: "the consent could not be completed", Err: err}
		if errors.Is(err, ErrDatabaseDown) {
			e.Code, e.Message = CodeDatabaseUnavailable, "the broker's database does not answer; try again"
		}
	}
	providerError := oauthCode(err)
	if cb.Error != "" {
		providerError = oauth.RegisteredErrorCode(cb.Error)
	}
	sent := *e
	sent.ReturnURL = withQuery(conn.ReturnURL, "status", "error", "error", e.WireCode(),
		"connection_id", conn.ID.String(), "provider_error", providerError)
	return &sent
}

// exchange takes a pending connection through the code exchange.
func (s *Service) exchange(ctx context.Context, conn Connection, cb Callback) (Provider, error) {
	p, err := s.visible(ctx, conn.ProviderID)
	if err != nil {
		if CodeOf(err) == CodeProviderNotFound {
			err = s.providerGone(ctx, conn)
		}
		return p, err
	}
	if p.Profile.AuthType != AuthOAuth2 {
		return p, fail(CodeInvalidState, "this state is for a form, not for an authorization at the provider")
	}
	// The credentials are looked at before the state is used up: an outage of the
	// vault leaves the consent as it is, for another try.
	if _, err := s.flowPair(ctx, &p); err != nil {
		return p, err
	}
	endpoints, err := s.endpoints(ctx, p, conn.Scopes)
	if err != nil {
		return p, err
	}
	if err := s.canVerify(ctx, p, conn.Scopes, endpoints); err != nil {
		return p, err
	}
	if cb.Issuer != "" && !endpoints.MatchesIssuer(cb.Issuer) {
		s.note(ctx, audit.New(ctx, audit.OAuthError, conn.ID, map[string]any{"reason": "issuer mismatch"}))
		return p, fail(CodeOAuthError, "the answer comes from another issuer than the one that was asked (RFC 9207)")
	}
	claimed, err := s.store.ClaimConsent(ctx, conn.ID, conn.Reconsent, s.now())
	switch {
	case errors.Is(err, ErrNoRow):
		return p, s.gone(ctx, conn) // another callback with this state was faster
	case errors.Is(err, ErrNoProvider): // deleted since it was read: the code is not spent
		return p, s.providerGone(ctx, conn)
	case err != nil:
		return p, err
	}
	return p, s.redeem(ctx, p, claimed, endpoints, cb)
}

// redeem spends the code of a claimed consent and stores the tokens.
func (s *Service) redeem(ctx context.Context, p Provider, conn Connection, endpoints oauth.Metadata, cb Callback) error {
	verifier, err := s.openVerifier(ctx, conn)
	if err != nil {
		return s.failConsent(ctx, conn, audit.TokenExchangeFailed, nil,
			&Error{Code: CodeTokenExchangeFailed, Err: err, Message: "the consent cannot be completed; begin again"})
	}
	x := oauth.Exchange{Code: cb.Code, CodeVerifier: secret.NewValue(string(verifier)), RedirectURI: s.redirectURI()}
	x.Endpoint, x.JSON = endpoints.TokenEndpoint, p.Profile.Params.jsonTokenRequest()
	if !p.Profile.Params.isTrue(paramSkipScopeOnExchange) {
		x.Scopes = conn.Scopes
	}
	var used credentials.Pair
	began := s.clock()
	tokens, err := s.withPair(ctx, p, func(pair credentials.Pair) (oauth.TokenSet, error) {
		used, x.Auth = pair, p.Profile.clientAuth(pair)
		return s.oauth.Exchange(ctx, x)
	})
	s.metrics.TokenExchange(outcome(err), s.clock().Sub(began))
	var known *Error
	switch {
	case errors.As(err, &known): // the credentials' fault: the user may try again
		if err := s.release(ctx, conn); err != nil {
			s.log.ErrorContext(ctx, "consent not released", "connection_id", conn.ID, "error", err)
		}
		return known
	case err != nil:
		s.log.WarnContext(ctx, "token exchange failed", "connection_id", conn.ID, "provider_id", p.ID, "error", err)
		return s.failConsent(ctx, conn, audit.TokenExchangeFailed, map[string]any{"provider_error": oauthCode(err)},
			&Error{Code: CodeTokenExchangeFailed, Err: err, Message: "the provider did not exchange the code for a token"})
	}
	if err := s.checkIDToken(ctx, p, conn, endpoints, used, cb.State, tokens); err != nil {
		return err
	}
	return s.activate(ctx, p, conn, tokens, audit.New(ctx, audit.OAuthFlowCompleted, conn.ID, completedData(p, conn)))
}

// completedData is what is recorded of a consent that has succeeded.
func completedData(p Provider, conn Connection) map[string]any {
	data := providerData(p)
	if !conn.Reconsent.IsZero() {
		data["reconsent"] = true
	}
	return data
}

func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "success"
}

// checkIDToken verifies the ID token of a consent that asked for one. Its nonce is
// the state that was signed for the consent.
func (s *Service) checkIDToken(
	ctx context.Context, p Provider, conn Connection, endpoints oauth.Metadata, pair credentials.Pair, nonce string, tokens oauth.TokenSet,
) error {
	raw := tokens.Text("id_token")
	if raw.IsZero() {
		return nil
	}
	s.metrics.IDTokenReturned()
	if !p.Profile.asksOpenID(conn.Scopes) {
		return nil
	}
	began := s.clock()
	err := s.oauth.VerifyIDToken(ctx, raw, oauth.IDTokenCheck{Metadata: endpoints, ClientID: pair.ClientID, Nonce: nonce})
	s.metrics.Verification(outcome(err), s.clock().Sub(began))
	if err == nil {
		return nil
	}
	s.log.WarnContext(ctx, "ID token refused", "connection_id", conn.ID, "error", err)
	return s.failConsent(ctx, conn, audit.IDTokenVerificationFailed, nil,
		&Error{Code: CodeInvalidIDToken, Err: err, Message: "the provider's ID token could not be verified"})
}

// failConsent ends a consent for good and returns why.
func (s *Service) failConsent(ctx context.Context, conn Connection, t audit.Type, data map[string]any, why *Error) error {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	err := s.store.FailConsent(ctx, conn, s.now(), audit.New(ctx, t, conn.ID, data))
	if err != nil {
		s.log.ErrorContext(ctx, "connection not marked as failed", "connection_id", conn.ID, "error", err)
		s.note(ctx, audit.New(ctx, audit.StatusUpdateFailed, conn.ID, nil))
	}
	return why
}

// release gives a claimed consent back, so that the user can try again. Its code
// verifier was out of the database while it was claimed: it comes back sealed under the
// first key, or a rotation of the encryption key would have missed it. One that the
// existing broker can read comes back as it was.
func (s *Service) release(ctx context.Context, conn Connection) error {
	if seal.Sealed(conn.CodeVerifier) && !s.keyring.Current(conn.CodeVerifier) {
		verifier, err := s.keyring.Open(VerifierPurpose(conn.ID), conn.CodeVerifier)
		if err != nil {
			return err
		}
		conn.CodeVerifier = s.keyring.Seal(VerifierPurpose(conn.ID), verifier)
	}
	ctx, cancel := afterwards(ctx)
	defer cancel()
	return s.withVerifier(conn, func(c Connection) error { return s.store.ReleaseConsent(ctx, c) })
}

// afterwards returns a context for what has to be noted at the end of an exchange,
// also of one that has used up its time.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
}

// activate stores the tokens of a consent and makes its connection active. If the
// connection has been revoked meanwhile the tokens are of no use, and the provider is
// told so.
func (s *Service) activate(ctx context.Context, p Provider, conn Connection, tokens oauth.TokenSet, event audit.Event) error {
	stored, err := s.sealToken(ctx, conn.ID, tokens, s.now())
	if err != nil {
		return err
	}
	unsure := false // a try has failed that may have taken place
	err = s.persist(ctx, func(ctx context.Context) error {
		err := s.store.CompleteConnection(ctx, conn, stored, s.now(), event)
		unsure = unsure || err != nil && !errors.Is(err, ErrNoRow)
		return err
	})
	switch {
	case errors.Is(err, ErrNoRow):
		now, err := s.tokenAfter(ctx, conn.ID)
		switch {
		case err != nil && !errors.Is(err, ErrNoRow):
			return err // what has become of it is not known
		case unsure && s.sameToken(conn.ID, stored, now.Token):
			return nil // it was stored the first time, and the answer was lost
		case now.Status == StatusRevoked:
			s.revokeAtProvider(ctx, p, conn.ID, conn.Scopes, tokens)
		}
		return errConnectionGone()
	case errors.Is(err, ErrNoProvider): // deleted while captured credentials were tried out
		return s.providerGone(ctx, conn)
	case err != nil:
		s.note(ctx, audit.New(ctx, audit.TokenStorageFailed, conn.ID, nil))
	}
	return err
}

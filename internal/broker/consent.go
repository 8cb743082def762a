package broker

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

const capturePath = "/auth/capture-schema"

// Begin creates a pending connection, or begins a new consent to one that is there,
// and says where the user shall go: to the provider's authorization endpoint, or for
// static credentials to our own form.
func (s *Service) Begin(ctx context.Context, r ConsentRequest) (Consent, error) {
	if r.WorkspaceID == "" || r.ProviderID == "" || r.ReturnURL == "" {
		return Consent{}, fail(CodeMissingFields, "workspace_id, provider_id and return_url are required")
	}
	if err := s.checkConsent(ctx, r); err != nil {
		return Consent{}, err
	}
	p, err := s.consentProvider(ctx, r.ProviderID)
	if err != nil {
		return Consent{}, err
	}
	now := s.now()
	c := Connection{
		ID: uuid.New(), WorkspaceID: r.WorkspaceID, ProviderID: p.ID, Status: StatusPending,
		Scopes: r.Scopes, ReturnURL: r.ReturnURL,
		CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(consentTTL),
	}
	if r.ConnectionID != uuid.Nil {
		c.ID, c.Reconsent = r.ConnectionID, now
	}
	signed, err := state{WorkspaceID: r.WorkspaceID, ProviderID: p.ID.String(), Nonce: c.ID.String(), IssuedAt: now}.sign(s.cfg.StateKey)
	if err != nil {
		return Consent{}, err
	}
	authURL, err := s.authURL(ctx, p, &c, signed)
	if err != nil {
		return Consent{}, err
	}
	if err := s.storeConsent(ctx, c); err != nil {
		return Consent{}, err
	}
	s.metrics.ConsentCreated(p.Profile.asksOpenID(r.Scopes))
	return Consent{AuthURL: authURL, State: signed, Scopes: r.Scopes, ProviderID: p.ID}, nil
}

func (s *Service) storeConsent(ctx context.Context, c Connection) error {
	if c.Reconsent.IsZero() {
		err := s.withVerifier(c, func(c Connection) error { return s.store.CreateConnection(ctx, c) })
		if errors.Is(err, ErrNoRow) {
			return fail(CodeProviderNotFound, "no provider has this id")
		}
		return unstorable(err, CodeMissingFields)
	}
	err := s.store.BeginReconsent(ctx, c)
	switch {
	case errors.Is(err, ErrRevoked):
		return errRevoked()
	case errors.Is(err, ErrNoRow):
		return fail(CodeConnectionNotFound, "no connection of this workspace and provider that a user has consented to has this id")
	}
	return unstorable(err, CodeMissingFields)
}

// What a column and a URL can hold.
const (
	maxWorkspace = 255 // characters
	maxURLBytes  = 8 * 1024
)

func (s *Service) checkConsent(ctx context.Context, r ConsentRequest) error {
	if err := s.cfg.checkReturnURL(r.ReturnURL); err != nil {
		s.note(ctx, audit.New(ctx, audit.InvalidReturnURL, uuid.Nil, map[string]any{
			"workspace_id": clip(r.WorkspaceID), "reason": err.Message}))
		return err
	}
	texts := append([]string{r.WorkspaceID}, r.Scopes...)
	switch {
	case utf8.RuneCountInString(r.WorkspaceID) > maxWorkspace || len(r.ReturnURL) > maxURLBytes:
		return fail(CodeMissingFields, "workspace_id has at most 255 characters and return_url 8192")
	case slices.ContainsFunc(texts, hasControl):
		return fail(CodeMissingFields, "workspace_id and scopes must not contain control characters")
	}
	return nil
}

func (s *Service) consentProvider(ctx context.Context, id string) (Provider, error) {
	notFound := func() error {
		s.note(ctx, audit.New(ctx, audit.ProviderNotFound, uuid.Nil, map[string]any{"provider_id": clip(id)}))
		return fail(CodeProviderNotFound, "no provider has this id")
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		return Provider{}, notFound()
	}
	p, err := s.visible(ctx, parsed)
	if CodeOf(err) == CodeProviderNotFound {
		return p, notFound()
	}
	return p, err
}

// authURL returns where the user goes, and gives the connection its code verifier.
func (s *Service) authURL(ctx context.Context, p Provider, c *Connection, signed string) (string, error) {
	switch {
	case p.Profile.AuthType == AuthOAuth2:
		return s.authorizationURL(ctx, p, c, signed)
	case slices.Contains(authTypes, p.Profile.AuthType):
		u := s.cfg.BaseURL.JoinPath(capturePath)
		u.RawQuery = url.Values{"state": {signed}}.Encode()
		return u.String(), nil
	}
	return "", fail(CodeUnsupportedAuthType, "this provider's auth_type has no consent flow")
}

func (s *Service) authorizationURL(ctx context.Context, p Provider, c *Connection, signed string) (string, error) {
	pair, err := s.flowPair(ctx, &p)
	if err != nil {
		return "", err
	}
	endpoints, err := s.endpoints(ctx, p, c.Scopes)
	if err != nil {
		return "", err
	}
	verifier := oauth.NewCodeVerifier()
	c.CodeVerifier = s.storedVerifier(ctx, *c, verifier.Reveal())
	r := oauth.AuthRequest{
		Endpoint: endpoints.AuthorizationEndpoint, ClientID: pair.ClientID, RedirectURI: s.redirectURI(),
		Scopes: c.Scopes, SkipScope: p.Profile.Params.isTrue(paramSkipScopeOnAuth),
		State: signed, CodeChallenge: oauth.CodeChallenge(verifier), Extra: p.Profile.Params.authorization(),
	}
	if p.Profile.asksOpenID(c.Scopes) {
		r.Nonce = signed
	}
	authURL, err := oauth.AuthorizationURL(r)
	if err != nil {
		return "", &Error{Code: CodeUpstreamError, Err: err, Message: "the provider's authorization endpoint is not a usable URL"}
	}
	return authURL, nil
}

// redirectURI is BASE_URL followed by REDIRECT_PATH.
func (s *Service) redirectURI() string { return s.cfg.BaseURL.JoinPath(s.cfg.RedirectPath).String() }

func hasControl(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return true
		}
	}
	return false
}

// clip bounds what a caller sent for the audit log.
func clip(s string) string {
	const limit = 100
	if len(s) > limit {
		return s[:limit]
	}
	return s
}

package oauthtest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// token is the token endpoint (RFC 6749 §3.2).
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	params, err := parameters(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	client, ok := s.authenticate(w, r, params)
	if !ok {
		return
	}
	switch params.Get("grant_type") {
	case "authorization_code":
		s.redeemCode(w, client, params)
	case "refresh_token":
		s.redeemRefreshToken(w, client, params)
	default:
		refuse(w, http.StatusBadRequest, "unsupported_grant_type", "")
	}
}

// authenticate finds the client and checks its secret, presented in exactly one way
// (RFC 6749 §2.3). It writes the refusal.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request, params url.Values) (Client, bool) {
	method, id, secret := NoClientAuth, params.Get("client_id"), ""
	header := r.Header.Get("Authorization")
	switch {
	case header != "" && params.Has("client_secret"):
		refuse(w, http.StatusBadRequest, "invalid_request", "two ways of client authentication")
		return Client{}, false
	case header != "":
		method = ClientSecretBasic
		var ok bool
		if id, secret, ok = basicCredentials(header); !ok {
			unauthorized(w, "the Basic credentials are not form-encoded")
			return Client{}, false
		}
	case params.Has("client_secret"):
		method, secret = ClientSecretPost, params.Get("client_secret")
	}
	c, known := s.clients[id]
	allowed := method == c.Auth || c.Auth == "" && method != NoClientAuth
	if !known || !allowed || subtle.ConstantTimeCompare([]byte(secret), []byte(c.Secret)) != 1 {
		unauthorized(w, "client authentication failed")
		return Client{}, false
	}
	return c, true
}

func unauthorized(w http.ResponseWriter, description string) {
	w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
	refuse(w, http.StatusUnauthorized, "invalid_client", description)
}

// formEncoded matches what application/x-www-form-urlencoded leaves of any text.
var formEncoded = regexp.MustCompile(`^([A-Za-z0-9*._~+-]|%[0-9A-Fa-f]{2})*$`)

// basicCredentials reads a Basic header whose parts are form-encoded (RFC 6749 §2.3.1).
func basicCredentials(header string) (id, secret string, ok bool) {
	encoded, ok := strings.CutPrefix(header, "Basic ")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	user, password, colon := strings.Cut(string(raw), ":")
	if !ok || err != nil || !colon || !formEncoded.MatchString(user) || !formEncoded.MatchString(password) {
		return "", "", false
	}
	id, idErr := url.QueryUnescape(user)
	secret, secretErr := url.QueryUnescape(password)
	return id, secret, idErr == nil && secretErr == nil
}

// redeemCode is the code grant (RFC 6749 §4.1.3, RFC 7636 §4.6). A code that comes
// a second time ends what the first was given.
func (s *Server) redeemCode(w http.ResponseWriter, c Client, params url.Values) {
	g := s.codes[params.Get("code")]
	switch {
	case g == nil || g.clientID != c.ID:
		refuse(w, http.StatusBadRequest, "invalid_grant", "unknown code")
	case g.used:
		g.ended = true
		refuse(w, http.StatusBadRequest, "invalid_grant", "the code has been used")
	case !s.opts.Now().Before(g.expires):
		refuse(w, http.StatusBadRequest, "invalid_grant", "the code has expired")
	case params.Get("redirect_uri") != g.redirectURI:
		refuse(w, http.StatusBadRequest, "invalid_grant", "another redirect_uri")
	case !provesChallenge(params.Get("code_verifier"), g.challenge):
		refuse(w, http.StatusBadRequest, "invalid_grant", "the code_verifier does not match")
	default:
		g.used = true
		s.issue(w, g, s.newRefreshToken(g), g.nonce)
	}
}

var codeVerifier = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

func provesChallenge(verifier, challenge string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return codeVerifier.MatchString(verifier) && base64.RawURLEncoding.EncodeToString(sum[:]) == challenge
}

// redeemRefreshToken is the refresh token grant (RFC 6749 §6, RFC 9700 §4.14.2).
func (s *Server) redeemRefreshToken(w http.ResponseWriter, c Client, params url.Values) {
	t := s.refresh[params.Get("refresh_token")]
	switch {
	case t == nil || t.grant.clientID != c.ID || t.grant.ended:
		refuse(w, http.StatusBadRequest, "invalid_grant", "unknown or ended")
	case t.used:
		t.grant.ended = true
		refuse(w, http.StatusBadRequest, "invalid_grant", "the refresh token has been used: the grant is ended")
	case !within(params.Get("scope"), t.grant.scope):
		refuse(w, http.StatusBadRequest, "invalid_scope", "more than was granted")
	case s.opts.StaticRefreshTokens:
		s.issue(w, t.grant, "", "")
	default:
		t.used = true
		s.issue(w, t.grant, s.newRefreshToken(t.grant), "")
	}
}

func within(asked, granted string) bool {
	have := map[string]bool{}
	for _, scope := range strings.Fields(granted) {
		have[scope] = true
	}
	for _, scope := range strings.Fields(asked) {
		if !have[scope] {
			return false
		}
	}
	return true
}

func (s *Server) newRefreshToken(g *grant) string {
	token := s.newToken("rt")
	s.refresh[token] = &refreshToken{grant: g}
	return token
}

// issue answers with tokens.
func (s *Server) issue(w http.ResponseWriter, g *grant, refresh, nonce string) {
	access := s.newToken("at")
	s.access[access] = &accessToken{grant: g, expires: s.opts.Now().Add(s.opts.AccessTokenTTL)}
	fields := map[string]any{
		"access_token": access,
		"token_type":   "Bearer",
		"expires_in":   int(s.opts.AccessTokenTTL / time.Second),
		"scope":        g.scope,
	}
	if refresh != "" {
		fields["refresh_token"] = refresh
	}
	if within("openid", g.scope) {
		fields["id_token"] = s.idToken(g, nonce)
	}
	writeJSON(w, http.StatusOK, fields)
}

// revoke is the revocation endpoint (RFC 7009): a token of either kind ends its grant.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	params, err := parameters(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	client, ok := s.authenticate(w, r, params)
	if !ok {
		return
	}
	token := params.Get("token")
	if t := s.refresh[token]; t != nil && t.grant.clientID == client.ID {
		t.grant.ended = true
	}
	if t := s.access[token]; t != nil && t.grant.clientID == client.ID {
		t.grant.ended = true
	}
	w.WriteHeader(http.StatusOK)
}

// userInfo is the UserInfo endpoint (OpenID Connect Core §5.3).
func (s *Server) userInfo(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	t := s.access[token]
	valid := t != nil && !t.grant.ended && s.opts.Now().Before(t.expires)
	s.mu.Unlock()
	if !valid {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		refuse(w, http.StatusUnauthorized, "invalid_token", "")
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"sub": t.grant.subject, "email": t.grant.subject + "@example.test"})
}

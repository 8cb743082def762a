package oauthtest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"time"
)

const idTokenTTL = time.Hour

// issuer is what ID tokens and the iss parameter state.
func (s *Server) issuer() string {
	if s.opts.Tenant != "" {
		return s.url + "/" + s.opts.Tenant + "/v2.0"
	}
	return s.url
}

// discovery serves the metadata (OpenID Connect Discovery 1.0 §3).
func (s *Server) discovery(w http.ResponseWriter, _ *http.Request) {
	issuer := s.url
	if s.opts.Tenant != "" {
		issuer = s.url + "/{tenantid}/v2.0"
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                         issuer,
		"authorization_endpoint":                         s.URL(Authorization),
		"token_endpoint":                                 s.URL(Token),
		"revocation_endpoint":                            s.URL(Revocation),
		"userinfo_endpoint":                              s.URL(UserInfo),
		"jwks_uri":                                       s.URL(Keys),
		"response_types_supported":                       []string{"code"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{"RS256"},
		"token_endpoint_auth_methods_supported":          []string{ClientSecretBasic, ClientSecretPost, NoClientAuth},
		"code_challenge_methods_supported":               []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
	})
}

// keys serves the JWK set (RFC 7517).
func (s *Server) keys(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	k := s.signingKey()
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": k.id,
		"n": base64.RawURLEncoding.EncodeToString(k.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.E)).Bytes()),
	}}})
}

// signingKey returns the key, making one at its first use: that takes a moment, and
// many tests need none. s.mu is held.
func (s *Server) signingKey() *signingKey {
	if s.key == nil {
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic("oauthtest: no randomness: " + err.Error())
		}
		s.key = &signingKey{PrivateKey: private, id: s.newToken("key")}
	}
	return s.key
}

// RotateSigningKey replaces the key that signs ID tokens; the old one is no longer
// published.
func (s *Server) RotateSigningKey() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = nil
}

// EditClaims lets edit change the claims of every ID token from now on; nil ends it.
// edit must not call the server.
func (s *Server) EditClaims(edit func(claims map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims = edit
}

// SignIDToken returns claims as a JWT signed with the server's key.
func (s *Server) SignIDToken(claims map[string]any) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sign(claims)
}

// idToken returns an ID token (OpenID Connect Core §2). s.mu is held.
func (s *Server) idToken(g *grant, nonce string) string {
	now := s.opts.Now()
	claims := map[string]any{
		"iss": s.issuer(), "sub": g.subject, "aud": g.clientID,
		"iat": now.Unix(), "exp": now.Add(idTokenTTL).Unix(),
		"email": g.subject + "@example.test",
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if s.opts.Tenant != "" {
		claims["tid"] = s.opts.Tenant
	}
	if s.claims != nil {
		s.claims(claims)
	}
	return s.sign(claims)
}

// sign makes a JWS in compact form with RS256 (RFC 7515 §3.1). s.mu is held.
func (s *Server) sign(claims map[string]any) string {
	k := s.signingKey()
	input := segment(map[string]any{"alg": "RS256", "typ": "JWT", "kid": k.id}) + "." + segment(claims)
	sum := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(rand.Reader, k.PrivateKey, crypto.SHA256, sum[:])
	if err != nil {
		panic("oauthtest: signing: " + err.Error())
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segment(v map[string]any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("oauthtest: claims that are not JSON: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

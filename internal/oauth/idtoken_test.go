package oauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/secret"
)

// verified is a provider, a client that has discovered it, and what to check.
type verified struct {
	provider *oauthtest.Server
	client   *oauth.Client
	clock    *clock
	check    oauth.IDTokenCheck
}

func verification(t *testing.T, o oauthtest.Options) verified {
	t.Helper()
	v := verified{provider: oauthtest.Start(t, o), clock: newClock()}
	h := oauth.NewHTTPClient(oauth.HTTPOptions{AllowPrivate: true})
	t.Cleanup(h.CloseIdleConnections)
	v.client = oauth.New(oauth.Options{HTTP: h, Now: v.clock.Now})
	m, err := v.client.Discover(t.Context(), v.provider.Issuer())
	require.NoError(t, err)
	v.check = oauth.IDTokenCheck{Metadata: m, ClientID: testAuth.ID, Nonce: "nonce"}
	return v
}

func (v verified) verify(t *testing.T, raw string) error {
	t.Helper()
	return v.client.VerifyIDToken(t.Context(), secret.NewValue(raw), v.check)
}

// claims are in order; edit breaks them.
func (v verified) claims(edit func(map[string]any)) map[string]any {
	now := v.clock.Now()
	claims := map[string]any{
		"iss": v.provider.Issuer(), "aud": "test-client", "sub": "alice", "nonce": "nonce",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	edit(claims)
	return claims
}

func TestIDTokenOfAFlow(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	tokens, err := v.client.Exchange(t.Context(), anExchange(t, v.provider))
	require.NoError(t, err)
	require.NoError(t, v.client.VerifyIDToken(t.Context(), tokens.Text("id_token"), v.check))
}

func TestIDTokenClaims(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	now := v.clock.Now()
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}
	for name, c := range map[string]struct {
		edit   func(map[string]any)
		reason string // "" for a token that is in order
	}{
		"as it should be":         {func(map[string]any) {}, ""},
		"audience in an array":    {set("aud", []string{"test-client"}), ""},
		"several audiences":       {func(c map[string]any) { c["aud"], c["azp"] = []string{"api", "test-client"}, "test-client" }, ""},
		"clock 2 minutes behind":  {set("iat", now.Add(119*time.Second).Unix()), ""},
		"dates with fractions":    {set("iat", float64(now.Unix())+0.5), ""},
		"another issuer":          {set("iss", "https://evil.example"), "iss"},
		"issuer with a slash":     {set("iss", v.provider.Issuer()+"/"), "iss"},
		"no issuer":               {func(c map[string]any) { delete(c, "iss") }, "iss"},
		"another audience":        {set("aud", "somebody-else"), "aud"},
		"no audience":             {func(c map[string]any) { delete(c, "aud") }, "aud"},
		"empty audience":          {set("aud", []string{}), "aud"},
		"audiences without azp":   {set("aud", []string{"test-client", "api"}), "azp"},
		"audiences, another azp":  {func(c map[string]any) { c["aud"], c["azp"] = []string{"test-client", "api"}, "api" }, "azp"},
		"one audience, other azp": {set("azp", "api"), "azp"},
		"expired":                 {set("exp", now.Add(-time.Second).Unix()), "exp"},
		"no expiry":               {func(c map[string]any) { delete(c, "exp") }, "exp"},
		"issued in the future":    {set("iat", now.Add(3*time.Minute).Unix()), "iat"},
		"clock 5 minutes behind":  {set("iat", now.Add(5*time.Minute).Unix()), "clocks"},
		"never issued":            {func(c map[string]any) { delete(c, "iat") }, "iat"},
		"not valid yet":           {set("nbf", now.Add(time.Hour).Unix()), "nbf"},
		"nobody":                  {set("sub", ""), "sub"},
		"another nonce":           {set("nonce", "replayed"), "nonce"},
		"no nonce":                {func(c map[string]any) { delete(c, "nonce") }, "nonce"},
		"nonce of a number":       {set("nonce", 1), "malformed"},
		"claims of another type":  {set("aud", 42), "malformed"},
		"claims in capitals":      {func(c map[string]any) { c["NONCE"] = c["nonce"]; delete(c, "nonce") }, "nonce"},
	} {
		t.Run(name, func(t *testing.T) {
			err := v.verify(t, v.provider.SignIDToken(v.claims(c.edit)))
			if c.reason == "" {
				require.NoError(t, err)
				return
			}
			var e *oauth.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, e.Reason, c.reason)
			require.NotContains(t, err.Error(), "evil")
		})
	}
	require.Equal(t, 1, v.provider.Count(oauthtest.Keys), "the keys are kept, whatever the claims")
}

func TestIDTokenExpiresAsTimeGoesBy(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	raw := v.provider.SignIDToken(v.claims(func(map[string]any) {}))
	v.clock.advance(59 * time.Minute)
	require.NoError(t, v.verify(t, raw))
	v.clock.advance(time.Minute)
	require.Error(t, v.verify(t, raw))
}

func TestNonceIsCheckedOnlyIfOneWasSent(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	v.check.Nonce = ""
	require.NoError(t, v.verify(t, v.provider.SignIDToken(v.claims(func(map[string]any) {}))))
}

func TestMultiTenantIssuer(t *testing.T) {
	const tenant, other = "f8cdef31-a31e-4b4a-93e4-5f571e91255a", "11111111-a31e-4b4a-93e4-5f571e91255a"
	v := verification(t, oauthtest.Options{Tenant: tenant})
	tokens, err := v.client.Exchange(t.Context(), anExchange(t, v.provider))
	require.NoError(t, err)
	require.NoError(t, v.client.VerifyIDToken(t.Context(), tokens.Text("id_token"), v.check))

	issuerOf := func(tid string) string { return strings.Replace(v.check.Metadata.Issuer, "{tenantid}", tid, 1) }
	for name, edit := range map[string]func(map[string]any){
		"tid of another tenant": func(c map[string]any) { c["iss"], c["tid"] = issuerOf(tenant), other },
		"no tid":                func(c map[string]any) { c["iss"] = issuerOf(tenant) },
		"the template itself":   func(c map[string]any) { c["iss"], c["tid"] = v.check.Metadata.Issuer, "{tenantid}" },
		"tid that is a path":    func(c map[string]any) { c["iss"], c["tid"] = issuerOf("a/b"), "a/b" },
		"another host":          func(c map[string]any) { c["iss"], c["tid"] = "https://evil.example/"+tenant+"/v2.0", tenant },
	} {
		require.Error(t, v.verify(t, v.provider.SignIDToken(v.claims(edit))), name)
	}
}

func TestGooglesTwoIssuers(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	v.check.Metadata.Issuer = "https://accounts.google.com"
	for iss, ok := range map[string]bool{"https://accounts.google.com": true, "accounts.google.com": true, "http://accounts.google.com": false} {
		err := v.verify(t, v.provider.SignIDToken(v.claims(func(c map[string]any) { c["iss"] = iss })))
		require.Equal(t, ok, err == nil, iss)
	}
}

// publishing returns a provider that publishes these keys, and a way to check a token.
func publishing(t *testing.T, algs []string, keys ...jose.JSONWebKey) func(raw string) error {
	t.Helper()
	document, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	require.NoError(t, err)
	c := answering(func(*http.Request) (*http.Response, error) {
		return response(200, "application/json", string(document)), nil
	})
	return func(raw string) error {
		return c.VerifyIDToken(context.Background(), secret.NewValue(raw), oauth.IDTokenCheck{
			Metadata: oauth.Metadata{Issuer: "https://idp.example", JWKSURI: "https://idp.example/keys", SigningAlgs: algs},
			ClientID: secret.NewValue("client"),
		})
	}
}

func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	require.NoError(t, err)
	jws, err := signer.Sign(plainClaims(t))
	require.NoError(t, err)
	raw, err := jws.CompactSerialize()
	require.NoError(t, err)
	return raw
}

func plainClaims(t *testing.T) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"iss": "https://idp.example", "aud": "client", "sub": "alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	require.NoError(t, err)
	return b
}

func TestIDTokenSignatures(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	strangers, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	shared := []byte("0123456789abcdef0123456789abcdef")
	public := []jose.JSONWebKey{
		{Key: rsaKey.Public(), KeyID: "rsa", Use: "sig"},
		{Key: ecKey.Public(), KeyID: "ec", Algorithm: "ES256"},
		{Key: shared, KeyID: "shared"},
		{Key: strangers.Public(), KeyID: "encryption", Use: "enc"},
	}
	verify := publishing(t, []string{"RS256", "ES256", "HS256", "none"}, public...)

	require.NoError(t, verify(signed(t, jose.RS256, rsaKey, "rsa")))
	require.NoError(t, verify(signed(t, jose.ES256, ecKey, "ec")))
	require.NoError(t, verify(signed(t, jose.RS256, rsaKey, "")), "without a key id every key is tried")

	require.Error(t, verify(signed(t, jose.RS256, strangers, "rsa")), "another's key")
	require.Error(t, verify(signed(t, jose.RS256, rsaKey, "ec")), "the key id of another key")
	require.Error(t, verify(signed(t, jose.RS256, strangers, "encryption")), "an encryption key")
	require.Error(t, verify(signed(t, jose.RS512, rsaKey, "rsa")), "an algorithm that is not announced")
	require.Error(t, verify(signed(t, jose.HS256, shared, "shared")), "a shared key that is published")

	pemKey := publicPEM(t, rsaKey)
	require.Error(t, verify(signed(t, jose.HS256, pemKey, "rsa")), "an HMAC with the public key")

	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	unsigned := header + "." + base64.RawURLEncoding.EncodeToString(plainClaims(t)) + "."
	require.Error(t, verify(unsigned), "alg none")

	good := signed(t, jose.RS256, rsaKey, "rsa")
	for _, raw := range []string{"", "a.b.c", "..", good + "x", good[:len(good)-4], strings.Replace(good, ".", ".e30", 1)} {
		err := verify(raw)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "eyJ")
	}

	bound := publishing(t, []string{"RS256", "RS512"}, jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "rsa", Algorithm: "RS256"})
	require.NoError(t, bound(good))
	require.Error(t, bound(signed(t, jose.RS512, rsaKey, "rsa")), "a key for another algorithm (RFC 8725 §3.1)")

	verify = publishing(t, nil, public...)
	require.NoError(t, verify(good), "RS256 if the metadata names none")
	require.Error(t, verify(signed(t, jose.ES256, ecKey, "ec")))
	require.Error(t, publishing(t, []string{"HS256"}, public...)(good), "and not if it names others only")
}

func publicPEM(t *testing.T, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestNoClientIDNoToken(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	v.check.ClientID = secret.Value{}
	require.Error(t, v.verify(t, v.provider.SignIDToken(v.claims(func(c map[string]any) { c["aud"] = "" }))))
	v.check.ClientID, v.check.Metadata.Issuer = testAuth.ID, ""
	require.Error(t, v.verify(t, v.provider.SignIDToken(v.claims(func(c map[string]any) { c["iss"] = "" }))))
}

func TestSigningKeyRotation(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	token := func() string { return v.provider.SignIDToken(v.claims(func(map[string]any) {})) }
	require.NoError(t, v.verify(t, token()))
	v.provider.RotateSigningKey()

	rotated := token()
	require.Error(t, v.verify(t, rotated), "the keys were fetched a moment ago")
	require.Equal(t, 1, v.provider.Count(oauthtest.Keys))
	v.clock.advance(6 * time.Second)
	require.NoError(t, v.verify(t, rotated), "an unknown key id has the keys fetched anew")
	require.Equal(t, 2, v.provider.Count(oauthtest.Keys))

	v.clock.advance(6 * time.Second)
	forged := rotated[:len(rotated)-8] + "AAAAAAAA"
	for range 20 {
		require.Error(t, v.verify(t, forged))
	}
	require.Equal(t, 3, v.provider.Count(oauthtest.Keys), "forged tokens do not hammer the provider")

	v.clock.advance(time.Hour)
	require.NoError(t, v.verify(t, token()))
	require.Equal(t, 4, v.provider.Count(oauthtest.Keys), "after an hour they are fetched anyway")
}

func TestKeysThatCannotBeHad(t *testing.T) {
	for name, answer := range map[string]oauthtest.Answer{
		"HTML":     oauthtest.HTML(200),
		"500":      oauthtest.Refuse(500, "server_error"),
		"no keys":  oauthtest.Respond(200, "application/json", `{"keys":[]}`),
		"not keys": oauthtest.Respond(200, "application/json", `{"keys":"canary"}`),
		"huge":     oauthtest.Huge(2 << 20),
		"shared":   oauthtest.Respond(200, "application/json", `{"keys":[{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			v := verification(t, oauthtest.Options{})
			v.provider.Next(oauthtest.Keys, answer)
			raw := v.provider.SignIDToken(v.claims(func(map[string]any) {}))
			err := v.verify(t, raw)
			require.ErrorContains(t, err, "signing keys")
			require.NotContains(t, err.Error(), "canary")
			require.NoError(t, v.verify(t, raw), "a failure is not kept")
		})
	}
	v := verification(t, oauthtest.Options{})
	v.check.Metadata.JWKSURI = ""
	require.Error(t, v.verify(t, v.provider.SignIDToken(v.claims(func(map[string]any) {}))))
}

func TestUnusableKeysArePassedOver(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	v.provider.Next(oauthtest.Keys, oauthtest.Edit(func(fields map[string]any) {
		odd := []any{
			map[string]any{"kty": "OKP", "crv": "Ed448", "x": "AAAA", "kid": "1"}, map[string]any{"kty": "RSA", "kid": "2"}, "canary", nil,
		}
		fields["keys"] = append(odd, fields["keys"].([]any)...)
	}))
	require.NoError(t, v.verify(t, v.provider.SignIDToken(v.claims(func(map[string]any) {}))))
}

func TestIDTokenErrorsQuoteNothing(t *testing.T) {
	v := verification(t, oauthtest.Options{})
	raw := v.provider.SignIDToken(v.claims(func(c map[string]any) { c["iss"], c["aud"], c["nonce"] = "canary", "canary", "canary" }))
	err := v.verify(t, raw)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), "canary")
	require.NotContains(t, fmt.Sprintf("%#v", err), raw)
}

package oauth_test

import (
	"errors"
	"net/url"
	"regexp"
	"testing"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

// ours matches the text of an error that holds nothing foreign: words, and a
// registered code in parentheses.
var ours = regexp.MustCompile(`^(exchange|discovery) failed( with status \d+)?( \([a-z_]+\))?(: [A-Za-z0-9_' ,/:.-]+)?$`)

func checkError(t *testing.T, err error) {
	t.Helper()
	var e *oauth.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *oauth.Error", err)
	}
	if e.Code != "" && oauth.RegisteredErrorCode(e.Code) == "" {
		t.Fatalf("%q is no registered code", e.Code)
	}
	if !ours.MatchString(err.Error()) {
		t.Fatalf("foreign text in %q", err.Error())
	}
}

func FuzzTokenAnswer(f *testing.F) {
	for _, body := range []string{
		`{"access_token":"a","expires_in":3600,"refresh_token":"r"}`, `{"error":"invalid_grant","error_description":"gone"}`,
		`access_token=a&expires_in=5&scope=x%20y`, `error=bad_verification_code`, `<html>`, ``, `null`, `{"error":{"code":1}}`, "\xef\xbb\xbf{}", `{"access_token":1}`,
	} {
		f.Add(200, "application/json", []byte(body))
		f.Add(400, "text/html; charset=utf-8", []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		if status < 200 || status > 999 || status == 301 || status == 302 || status == 303 || status == 307 || status == 308 {
			return // what http.Client deals with by itself
		}
		tokens, err := exchangeWith(t, status, contentType, body)
		if err != nil {
			checkError(t, err)
			if len(tokens.Fields()) != 0 {
				t.Fatal("tokens with an error")
			}
			return
		}
		if status > 299 || tokens.Text("access_token").IsZero() {
			t.Fatalf("status %d is taken for a success", status)
		}
		encoded, err := tokens.Encode()
		if err != nil {
			t.Fatalf("cannot be stored: %v", err)
		}
		if _, err := oauth.DecodeTokenSet(encoded); err != nil {
			t.Fatalf("cannot be read back: %v", err)
		}
	})
}

func FuzzDiscoveryDocument(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://idp.example","authorization_endpoint":"https://idp.example/a","token_endpoint":"https://idp.example/t","jwks_uri":"https://idp.example/k","id_token_signing_alg_values_supported":["RS256","none"]}`))
	f.Add([]byte(`{"issuer":"https://idp.example/","revocation_endpoint":"http://idp.example/"}`))
	f.Add([]byte(`{"issuer":"https://idp.example","token_endpoint":"https://a:b@idp.example/#x"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, document []byte) {
		m, err := discoverDocument(t, "https://idp.example", 200, string(document))
		if err != nil {
			checkError(t, err)
			return
		}
		if m.Issuer != "https://idp.example" && m.Issuer != "https://idp.example/" {
			t.Fatalf("issuer %q", m.Issuer)
		}
		for _, endpoint := range []string{m.AuthorizationEndpoint, m.TokenEndpoint, m.JWKSURI, m.RevocationEndpoint} {
			if endpoint == "" {
				continue
			}
			u, err := url.Parse(endpoint)
			if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
				t.Fatalf("endpoint %q", endpoint)
			}
		}
	})
}

package servers

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestOIDC(t *testing.T) {
	s := OIDC(t, OIDCOptions{})
	status := func(secret string) int {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, s.Issuer+"/token", strings.NewReader("grant_type=refresh_token&refresh_token=none"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("basic", url.QueryEscape(secret))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := status("s3cr3t/+:% x"); got != http.StatusBadRequest {
		t.Errorf("the right secret and no such refresh token: %d", got)
	}
	s.SetSecret(t, "basic", "another")
	if got := status("s3cr3t/+:% x"); got != http.StatusUnauthorized {
		t.Errorf("the old secret: %d", got)
	}
	if got := status("another"); got != http.StatusBadRequest {
		t.Errorf("the new secret: %d", got)
	}
	if got := s.TokenRequests(t, "refresh_token"); got != 3 {
		t.Errorf("%d token requests counted, not 3", got)
	}
	s.SetRedirectURIs(t, "post", "http://127.0.0.1/elsewhere")
	resp, err := http.Get(s.Issuer + "/auth?client_id=post&response_type=code&redirect_uri=http%3A%2F%2F127.0.0.1%2Fauth%2Fcallback")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a redirect URI that is registered no more: %d", resp.StatusCode)
	}
}

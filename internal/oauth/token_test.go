package oauth_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/secret"
)

func TestExchangeAndRefresh(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	c := newClient(t, oauth.HTTPOptions{})

	first, err := c.Exchange(t.Context(), anExchange(t, p))
	require.NoError(t, err)
	lifetime, ok := first.ExpiresIn()
	require.True(t, ok)
	require.Equal(t, time.Hour, lifetime)
	request := p.LastRequest(oauthtest.Token)
	require.Equal(t, "application/json", request.Header.Get("Accept"))
	require.Equal(t, "nexus-broker", request.Header.Get("User-Agent"))
	require.Equal(t, "authorization_code", request.Params.Get("grant_type"))
	require.NotContains(t, request.Params, "scope")

	r := oauth.Refresh{
		TokenRequest: oauth.TokenRequest{Endpoint: p.URL(oauthtest.Token), Auth: testAuth, Scopes: []string{"openid", "email"}},
		RefreshToken: first.Text("refresh_token"),
	}
	second, err := c.Refresh(t.Context(), r)
	require.NoError(t, err)
	require.NotEqual(t, first.Text("access_token").Reveal(), second.Text("access_token").Reveal())
	require.Equal(t, "openid email", p.LastRequest(oauthtest.Token).Params.Get("scope"))

	_, err = c.Refresh(t.Context(), r)
	require.Equal(t, "invalid_grant", codeOf(t, err), "the refresh token was rotated")
}

func TestRefreshAnswerWithoutRefreshToken(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{StaticRefreshTokens: true})
	c := newClient(t, oauth.HTTPOptions{})
	first, err := c.Exchange(t.Context(), anExchange(t, p))
	require.NoError(t, err)
	answer, err := c.Refresh(t.Context(), oauth.Refresh{
		TokenRequest: oauth.TokenRequest{Endpoint: p.URL(oauthtest.Token), Auth: testAuth},
		RefreshToken: first.Text("refresh_token"),
	})
	require.NoError(t, err)
	require.False(t, answer.Has("refresh_token"))
	require.Equal(t, first.Text("refresh_token"), first.Merge(answer).Text("refresh_token"))
}

// TestClientAuthentication has secrets whose characters mean something in a form, in
// Basic credentials, or in JSON.
func TestClientAuthentication(t *testing.T) {
	const id, awkward = "id:with/+% ü", "s3cr3t/+:% x&=\"\\é~*"
	for _, style := range []oauth.AuthStyle{oauth.ClientSecretBasic, oauth.ClientSecretPost, oauth.NoClientAuth} {
		for _, asJSON := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s json=%t", style, asJSON), func(t *testing.T) {
				client := oauthtest.Client{ID: id, Secret: awkward, Auth: string(style)}
				auth := oauth.ClientAuth{Style: style, ID: secret.NewValue(id), Secret: secret.NewValue(awkward)}
				if style == oauth.NoClientAuth {
					client.Secret = ""
				}
				p := oauthtest.Start(t, oauthtest.Options{Clients: []oauthtest.Client{client}})
				f := authorize(t, oauth.AuthRequest{Endpoint: p.URL(oauthtest.Authorization), ClientID: auth.ID, State: "s"})
				e := exchangeOf(f, p.URL(oauthtest.Token), auth)
				e.JSON = asJSON
				_, err := newClient(t, oauth.HTTPOptions{}).Exchange(t.Context(), e)
				require.NoError(t, err)

				request := p.LastRequest(oauthtest.Token)
				wantType := "application/x-www-form-urlencoded"
				if asJSON {
					wantType = "application/json"
				}
				require.Equal(t, wantType, request.Header.Get("Content-Type"))
				require.Equal(t, style == oauth.ClientSecretPost, request.Params.Has("client_secret"))
				require.Equal(t, style != oauth.ClientSecretBasic, request.Params.Has("client_id"))
				require.Equal(t, style == oauth.ClientSecretBasic, request.Header.Get("Authorization") != "")
			})
		}
	}
}

func TestBasicCredentialsAreFormEncoded(t *testing.T) {
	var header string
	c := answering(func(r *http.Request) (*http.Response, error) {
		header = r.Header.Get("Authorization")
		return response(200, "application/json", `{"access_token":"a"}`), nil
	})
	_, err := c.Refresh(t.Context(), oauth.Refresh{TokenRequest: oauth.TokenRequest{
		Endpoint: "https://provider.example/token",
		Auth:     oauth.ClientAuth{Style: oauth.ClientSecretBasic, ID: secret.NewValue("a:b"), Secret: secret.NewValue("c d+e%")},
	}})
	require.NoError(t, err)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(header, "Basic "))
	require.NoError(t, err)
	require.Equal(t, "a%3Ab:c+d%2Be%25", string(raw))
}

// answering returns a client whose requests f answers.
func answering(f roundTripper) *oauth.Client {
	return oauth.New(oauth.Options{HTTP: &http.Client{Transport: f}})
}

func response(status int, contentType, body string) *http.Response {
	return &http.Response{
		StatusCode: status, ContentLength: -1, Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"Content-Type": {contentType}},
	}
}

// exchangeWith lets a token endpoint answer an exchange with this.
func exchangeWith(t testing.TB, status int, contentType string, body []byte) (oauth.TokenSet, error) {
	t.Helper()
	c := answering(func(*http.Request) (*http.Response, error) { return response(status, contentType, string(body)), nil })
	return c.Exchange(t.Context(), oauth.Exchange{TokenRequest: oauth.TokenRequest{Endpoint: "https://provider.example/token", Auth: testAuth}})
}

func codeOf(t *testing.T, err error) string {
	t.Helper()
	var e *oauth.Error
	require.ErrorAs(t, err, &e)
	return e.Code
}

func TestTokenAnswersThatAreUnderstood(t *testing.T) {
	const form = "access_token=a%2Fb&token_type=bearer&scope=repo%2Cuser&expires_in=28800&refresh_token=r&refresh_token_expires_in=15897600"
	for name, a := range map[string]struct{ contentType, body, want string }{
		"JSON":                      {"application/json; charset=utf-8", `{"access_token":"a","expires_in":3600.0,"x":{"y":[1]}}`, `{"access_token":"a","expires_in":3600.0,"x":{"y":[1]}}`},
		"JSON with a byte order":    {"application/json", "\xef\xbb\xbf {\"access_token\":\"a\"}\n", `{"access_token":"a"}`},
		"JSON said to be text":      {"text/plain", `{"access_token":"a"}`, `{"access_token":"a"}`},
		"JSON said to be HTML":      {"text/html", `{"access_token":"a"}`, `{"access_token":"a"}`},
		"JSON said to be a form":    {"application/x-www-form-urlencoded", `{"access_token":"a"}`, `{"access_token":"a"}`},
		"JSON without a type":       {"", `{"access_token":"a"}`, `{"access_token":"a"}`},
		"an error that is none":     {"application/json", `{"access_token":"a","error":null}`, `{"access_token":"a","error":null}`},
		"an error that is empty":    {"application/json", `{"access_token":"a","error":""}`, `{"access_token":"a","error":""}`},
		"expires_in in a string":    {"application/json", `{"access_token":"a","expires_in":"3600"}`, `{"access_token":"a","expires_in":"3600"}`},
		"a form":                    {"application/x-www-form-urlencoded", form, `{"access_token":"a/b","token_type":"bearer","scope":"repo,user","expires_in":28800,"refresh_token":"r","refresh_token_expires_in":15897600}`},
		"a form said to be text":    {"text/plain; charset=utf-8", "access_token=a&expires=5108", `{"access_token":"a","expires":"5108"}`},
		"a form with odd numbers":   {"text/plain", "access_token=1&expires_in=-1", `{"access_token":"1","expires_in":"-1"}`},
		"a form with leading zeros": {"text/plain", "access_token=a&expires_in=007", `{"access_token":"a","expires_in":7}`},
	} {
		t.Run(name, func(t *testing.T) {
			tokens, err := exchangeWith(t, http.StatusOK, a.contentType, []byte(a.body))
			require.NoError(t, err)
			got, err := tokens.Encode()
			require.NoError(t, err)
			require.JSONEq(t, a.want, string(got))
		})
	}
}

func TestTokenAnswersThatAreFailures(t *testing.T) {
	for name, a := range map[string]struct {
		status            int
		contentType, body string
		code              string
	}{
		"an error with 400":            {400, "application/json", `{"error":"invalid_grant","error_description":"canary"}`, "invalid_grant"},
		"invalid_client with 400":      {400, "application/json", `{"error":"invalid_client"}`, "invalid_client"},
		"invalid_client with 401":      {401, "application/json", `{"error":"invalid_client"}`, "invalid_client"},
		"invalid_client with 200":      {200, "application/json", `{"error":"invalid_client"}`, "invalid_client"},
		"an error with 200":            {200, "application/json", `{"error":"invalid_grant","access_token":"canary"}`, "invalid_grant"},
		"an error in a form with 200":  {200, "application/x-www-form-urlencoded", `error=invalid_scope&error_description=canary`, "invalid_scope"},
		"temporarily_unavailable":      {503, "application/json", `{"error":"temporarily_unavailable"}`, "temporarily_unavailable"},
		"GitHub's rejected secret":     {200, "application/json", `{"error":"incorrect_client_credentials"}`, "invalid_client"},
		"GitHub's dead refresh token":  {200, "application/json", `{"error":"bad_refresh_token"}`, "invalid_grant"},
		"Slack's rejected secret":      {200, "application/json", `{"ok":false,"error":"bad_client_secret"}`, "invalid_client"},
		"Salesforce's rejected id":     {400, "application/json", `{"error":"invalid_client_id"}`, "invalid_client"},
		"an unregistered code":         {400, "application/json", `{"error":"canary"}`, ""},
		"an unregistered code, 200":    {200, "application/json", `{"error":"canary","access_token":"canary"}`, ""},
		"a code in capitals":           {400, "application/json", `{"error":"INVALID_GRANT"}`, ""},
		"an error that is an object":   {400, "application/json", `{"error":{"code":190,"message":"canary"}}`, ""},
		"an error object with 200":     {200, "application/json", `{"access_token":"canary","error":{"code":190}}`, ""},
		"an error that is true":        {200, "application/json", `{"access_token":"canary","error":true}`, ""},
		"a status without a code":      {500, "application/json", `{"message":"canary"}`, ""},
		"a token with a 500":           {500, "application/json", `{"access_token":"canary"}`, ""},
		"no access token":              {200, "application/json", `{"id_token":"canary"}`, ""},
		"an empty access token":        {200, "application/json", `{"access_token":""}`, ""},
		"an access token of a number":  {200, "application/json", `{"access_token":42}`, ""},
		"nothing":                      {200, "application/json", ``, ""},
		"no content":                   {204, "", ``, ""},
		"an array":                     {200, "application/json", `[{"access_token":"canary"}]`, ""},
		"null":                         {200, "application/json", `null`, ""},
		"broken JSON":                  {200, "application/json", `{"access_token":"canary"`, ""},
		"JSON and more":                {200, "application/json", `{"access_token":"canary"} canary`, ""},
		"a page":                       {200, "text/html", `<html>access_token=canary`, ""},
		"a page said to be JSON":       {200, "application/json", `<html>canary</html>`, ""},
		"a form said to be a page":     {200, "text/html", `access_token=canary`, ""},
		"text":                         {200, "text/plain", `canary`, ""},
		"a page with 502":              {502, "text/html", `<html>canary</html>`, ""},
		"a redirect with a token":      {302, "application/json", `{"access_token":"canary"}`, ""},
		"a malformed form":             {200, "application/x-www-form-urlencoded", `access_token=canary&x=%zz`, ""},
		"a form without access_token":  {200, "application/x-www-form-urlencoded", `foo=canary`, ""},
		"an error member twice deep":   {400, "application/json", `{"data":{"error":"canary"}}`, ""},
		"a code with something behind": {400, "application/json", `{"error":"invalid_grant\ncanary"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tokens, err := exchangeWith(t, a.status, a.contentType, []byte(a.body))
			require.Error(t, err)
			require.Empty(t, tokens.Fields())
			var e *oauth.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, a.code, e.Code)
			require.Equal(t, a.status, e.Status)
			require.NotContains(t, err.Error(), "canary")
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"7": 7 * time.Second, "0": 0, "-3": 0, "soon": 0, "": 0, "99999999999999999999": 0, "86401": 0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		for status, counts := range map[int]bool{429: true, 503: true, 500: false, 400: false} {
			resp := response(status, "text/plain", "slow down")
			resp.Header.Set("Retry-After", value)
			c := oauth.New(oauth.Options{
				HTTP: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return resp, nil })},
				Now:  func() time.Time { return now },
			})
			_, err := c.Refresh(t.Context(), oauth.Refresh{TokenRequest: oauth.TokenRequest{Endpoint: "https://provider.example/token"}})
			var e *oauth.Error
			require.ErrorAs(t, err, &e)
			if counts {
				require.Equal(t, want, e.RetryAfter, "%d %q", status, value)
			} else {
				require.Zero(t, e.RetryAfter, "%d %q", status, value)
			}
		}
	}
}

func TestTokenEndpointIsChecked(t *testing.T) {
	c := answering(func(*http.Request) (*http.Response, error) {
		t.Error("a request was sent")
		return nil, errors.New("no")
	})
	for _, endpoint := range []string{
		"", "token", "file:///etc/passwd", "https://", "https://user:hunter2@provider.example/token", "https://provider.example/token#hunter2", "https://hunter2\n/",
	} {
		_, err := c.Exchange(t.Context(), oauth.Exchange{TokenRequest: oauth.TokenRequest{Endpoint: endpoint, Auth: testAuth}})
		require.Error(t, err, endpoint)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestNothingShowsACredential(t *testing.T) {
	e := oauth.Exchange{
		TokenRequest: oauth.TokenRequest{
			Endpoint: "http://127.0.0.1:1/token?hunter2=query",
			Auth:     oauth.ClientAuth{Style: oauth.ClientSecretBasic, ID: secret.NewValue("id"), Secret: secret.NewValue("hunter2")},
		},
		Code: secret.NewValue("hunter2"), CodeVerifier: secret.NewValue("hunter2"),
	}
	_, err := newClient(t, oauth.HTTPOptions{}).Exchange(t.Context(), e)
	require.Error(t, err, "nobody listens there")
	r := oauth.Refresh{TokenRequest: e.TokenRequest, RefreshToken: secret.NewValue("hunter2")}
	r.Endpoint, e.Endpoint = "", ""
	shown := fmt.Sprintf("%v %+v %#v %v %+v %v %#v", e, e, e, r, r, err, err)
	b, jsonErr := json.Marshal([]any{e, r, err})
	require.NoError(t, jsonErr)
	require.NotContains(t, shown+string(b), "hunter2")
}

func TestFormEncodedAnswerOfAProvider(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	e := anExchange(t, p)
	p.Next(oauthtest.Token, oauthtest.FormEncoded())
	tokens, err := newClient(t, oauth.HTTPOptions{}).Exchange(t.Context(), e)
	require.NoError(t, err)
	require.Equal(t, json.RawMessage("3600"), tokens.Fields()["expires_in"])
	require.Equal(t, "openid email", tokens.Text("scope").Reveal())
}

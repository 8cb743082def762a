package oauthtest_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

const (
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	callback = "http://127.0.0.1:9/cb?app=1"
)

// browser does not follow redirects.
var browser = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func authQuery() url.Values {
	return url.Values{
		"client_id": {"test-client"}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid email"},
		"state": {"the state"}, "nonce": {"n"}, "code_challenge": {challenge()}, "code_challenge_method": {"S256"},
	}
}

func get(t *testing.T, target string) *http.Response {
	t.Helper()
	resp, err := browser.Get(target)
	require.NoError(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// redirect returns the query that the user is sent back with.
func redirect(t *testing.T, resp *http.Response) url.Values {
	t.Helper()
	require.Equal(t, http.StatusFound, resp.StatusCode)
	to, err := resp.Location()
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(to.String(), callback+"&"), to.String())
	return to.Query()
}

func newCode(t *testing.T, s *oauthtest.Server, edit func(url.Values)) string {
	t.Helper()
	q := authQuery()
	edit(q)
	back := redirect(t, get(t, s.URL(oauthtest.Authorization)+"?"+q.Encode()))
	require.Equal(t, "the state", back.Get("state"))
	require.Equal(t, "1", back.Get("app"))
	return back.Get("code")
}

func same(url.Values) {}

// post sends a token request of the default client and returns status and members.
func post(t *testing.T, s *oauthtest.Server, form url.Values) (int, map[string]any) {
	t.Helper()
	form = clone(form)
	if !form.Has("client_id") {
		form.Set("client_id", "test-client")
		form.Set("client_secret", "test-secret")
	}
	resp, err := browser.PostForm(s.URL(oauthtest.Token), form)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var fields map[string]any
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&fields))
	return resp.StatusCode, fields
}

func clone(v url.Values) url.Values {
	c := url.Values{}
	for name := range v {
		c.Set(name, v.Get(name))
	}
	return c
}

func codeGrant(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier}}
}

func refreshGrant(token any) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.(string)}}
}

func TestAuthorizationRequestsAreChecked(t *testing.T) {
	s := oauthtest.Start(t, oauthtest.Options{Clients: []oauthtest.Client{
		{ID: "test-client", Secret: "x", RedirectURIs: []string{callback}}, {ID: "any", Secret: "x"},
	}})
	for name, c := range map[string]struct {
		edit func(url.Values)
		want string // the error that is sent back; "" for a refusal on the spot
	}{
		"unknown client":     {func(q url.Values) { q.Set("client_id", "nobody") }, ""},
		"other redirect URI": {func(q url.Values) { q.Set("redirect_uri", callback+"2") }, ""},
		"not loopback":       {func(q url.Values) { q.Set("client_id", "any"); q.Set("redirect_uri", "https://evil.example/") }, ""},
		"a parameter twice":  {func(q url.Values) { q.Add("state", "2") }, ""},
		"implicit flow":      {func(q url.Values) { q.Set("response_type", "token") }, "unsupported_response_type"},
		"no PKCE":            {func(q url.Values) { q.Del("code_challenge") }, "invalid_request"},
		"plain PKCE":         {func(q url.Values) { q.Set("code_challenge_method", "plain") }, "invalid_request"},
		"the user refuses":   {func(q url.Values) { q.Set("login_hint", "deny") }, "access_denied"},
	} {
		t.Run(name, func(t *testing.T) {
			q := authQuery()
			c.edit(q)
			resp := get(t, s.URL(oauthtest.Authorization)+"?"+q.Encode())
			if c.want == "" {
				require.Equal(t, http.StatusBadRequest, resp.StatusCode)
				return
			}
			back := redirect(t, resp)
			require.Equal(t, c.want, back.Get("error"))
			require.Equal(t, "the state", back.Get("state"))
			require.Equal(t, s.Issuer(), back.Get("iss"))
			require.Empty(t, back.Get("code"))
		})
	}
}

func TestCodesAreChecked(t *testing.T) {
	now := time.Now()
	s := oauthtest.Start(t, oauthtest.Options{
		Clients: []oauthtest.Client{{ID: "test-client", Secret: "test-secret"}, {ID: "other", Secret: "o"}},
		Now:     func() time.Time { return now },
	})
	for name, edit := range map[string]func(url.Values){
		"made up":             func(f url.Values) { f.Set("code", "made up") },
		"another client's":    func(f url.Values) { f.Set("client_id", "other"); f.Set("client_secret", "o") },
		"other redirect URI":  func(f url.Values) { f.Set("redirect_uri", callback+"2") },
		"no redirect URI":     func(f url.Values) { f.Del("redirect_uri") },
		"no verifier":         func(f url.Values) { f.Del("code_verifier") },
		"another verifier":    func(f url.Values) { f.Set("code_verifier", strings.Repeat("a", 43)) },
		"a verifier too long": func(f url.Values) { f.Set("code_verifier", strings.Repeat("a", 129)) },
	} {
		form := codeGrant(newCode(t, s, same))
		edit(form)
		status, fields := post(t, s, form)
		require.Equal(t, http.StatusBadRequest, status, name)
		require.Equal(t, "invalid_grant", fields["error"], name)
	}
	form := codeGrant(newCode(t, s, same))
	now = now.Add(2 * time.Minute)
	_, fields := post(t, s, form)
	require.Equal(t, "invalid_grant", fields["error"], "expired")
}

func TestCodeReplayEndsTheGrant(t *testing.T) {
	s := oauthtest.Start(t, oauthtest.Options{})
	form := codeGrant(newCode(t, s, same))
	status, tokens := post(t, s, form)
	require.Equal(t, http.StatusOK, status)
	_, fields := post(t, s, form)
	require.Equal(t, "invalid_grant", fields["error"])
	_, fields = post(t, s, refreshGrant(tokens["refresh_token"]))
	require.Equal(t, "invalid_grant", fields["error"])
	require.Equal(t, 2, s.CountGrant("authorization_code"))
	require.Equal(t, 1, s.CountGrant("refresh_token"))
}

func TestRefreshTokenReuseEndsTheGrant(t *testing.T) {
	s := oauthtest.Start(t, oauthtest.Options{TokenPrefix: "canary-"})
	_, first := post(t, s, codeGrant(newCode(t, s, same)))
	status, second := post(t, s, refreshGrant(first["refresh_token"]))
	require.Equal(t, http.StatusOK, status)
	for _, name := range []string{"access_token", "refresh_token"} {
		require.NotEqual(t, first[name], second[name])
		require.True(t, strings.HasPrefix(second[name].(string), "canary-"))
	}
	_, fields := post(t, s, refreshGrant(first["refresh_token"]))
	require.Equal(t, "invalid_grant", fields["error"])
	_, fields = post(t, s, refreshGrant(second["refresh_token"]))
	require.Equal(t, "invalid_grant", fields["error"], "the winner's token is dead too")
	require.Equal(t, http.StatusUnauthorized, userInfo(t, s, second["access_token"]))
}

func userInfo(t *testing.T, s *oauthtest.Server, token any) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.URL(oauthtest.UserInfo), nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token.(string))
	resp, err := browser.Do(req)
	require.NoError(t, err)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func TestRevocationAndEndGrants(t *testing.T) {
	s := oauthtest.Start(t, oauthtest.Options{StaticRefreshTokens: true})
	_, tokens := post(t, s, codeGrant(newCode(t, s, same)))
	_, answer := post(t, s, refreshGrant(tokens["refresh_token"]))
	require.NotContains(t, answer, "refresh_token")
	require.Equal(t, http.StatusOK, userInfo(t, s, tokens["access_token"]))

	resp, err := browser.PostForm(s.URL(oauthtest.Revocation), url.Values{
		"token": {tokens["refresh_token"].(string)}, "client_id": {"test-client"}, "client_secret": {"test-secret"},
	})
	require.NoError(t, err)
	_ = resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, http.StatusUnauthorized, userInfo(t, s, tokens["access_token"]))

	_, tokens = post(t, s, codeGrant(newCode(t, s, same)))
	s.EndGrants()
	_, fields := post(t, s, refreshGrant(tokens["refresh_token"]))
	require.Equal(t, "invalid_grant", fields["error"])
}

func TestClientAuthenticationIsStrict(t *testing.T) {
	s := oauthtest.Start(t, oauthtest.Options{Clients: []oauthtest.Client{
		{ID: "basic", Secret: "a b", Auth: oauthtest.ClientSecretBasic},
		{ID: "post", Secret: "a b", Auth: oauthtest.ClientSecretPost},
		{ID: "public", Auth: oauthtest.NoClientAuth},
	}})
	for name, c := range map[string]struct {
		user, password, id, secret string
		want                       string
	}{
		"basic":                    {"basic", "a+b", "", "", "invalid_grant"},
		"basic, percent":           {"basic", "a%20b", "", "", "invalid_grant"},
		"basic, not form-encoded":  {"basic", "a b", "", "", "invalid_client"},
		"basic, wrong":             {"basic", "a+c", "", "", "invalid_client"},
		"basic client posts":       {"", "", "basic", "a b", "invalid_client"},
		"post":                     {"", "", "post", "a b", "invalid_grant"},
		"post, wrong":              {"", "", "post", "x", "invalid_client"},
		"post client sends basic":  {"post", "a+b", "", "", "invalid_client"},
		"both at once":             {"basic", "a+b", "basic", "a b", "invalid_request"},
		"public":                   {"", "", "public", "", "invalid_grant"},
		"a secret is left out":     {"", "", "post", "", "invalid_client"},
		"nobody":                   {"", "", "", "", "invalid_client"},
		"public client with basic": {"public", "", "", "", "invalid_client"},
	} {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"none"}}
		if c.id != "" {
			form.Set("client_id", c.id)
		}
		if c.secret != "" {
			form.Set("client_secret", c.secret)
		}
		req, err := http.NewRequest(http.MethodPost, s.URL(oauthtest.Token), strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if c.user != "" {
			req.SetBasicAuth(c.user, c.password)
		}
		resp, err := browser.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_ = resp.Body.Close()
		require.Contains(t, string(body), `"`+c.want+`"`, name)
	}
	s.SetSecret("post", "new")
	_, fields := post(t, s, url.Values{"client_id": {"post"}, "client_secret": {"new"}, "grant_type": {"refresh_token"}})
	require.Equal(t, "invalid_grant", fields["error"], "the new secret is taken")
	_, fields = post(t, s, url.Values{"client_id": {"post"}, "client_secret": {"a b"}, "grant_type": {"refresh_token"}})
	require.Equal(t, "invalid_client", fields["error"], "the old one is not")
}

func TestScriptedAnswers(t *testing.T) {
	s := oauthtest.Start(t, oauthtest.Options{})
	form := refreshGrant("none")
	s.Always(oauthtest.Token, oauthtest.Refuse(503, "temporarily_unavailable"))
	s.Next(oauthtest.Token, oauthtest.Refuse(200, "invalid_grant"), oauthtest.Ordinary())
	for _, want := range []string{"invalid_grant", "invalid_grant", "temporarily_unavailable", "temporarily_unavailable"} {
		_, fields := post(t, s, form)
		require.Equal(t, want, fields["error"])
	}
	s.Always(oauthtest.Token, nil)
	status, _ := post(t, s, form)
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, 5, s.Count(oauthtest.Token))
	require.Len(t, s.Requests(oauthtest.Token), 5)
	require.Equal(t, "none", s.LastRequest(oauthtest.Token).Params.Get("refresh_token"))

	s.Next(oauthtest.Token, oauthtest.Without("refresh_token"), oauthtest.After(time.Millisecond, oauthtest.Ordinary()))
	_, fields := post(t, s, codeGrant(newCode(t, s, same)))
	require.Contains(t, fields, "access_token")
	require.NotContains(t, fields, "refresh_token")
	_, fields = post(t, s, codeGrant(newCode(t, s, same)))
	require.Contains(t, fields, "refresh_token")
}

func TestConsentPage(t *testing.T) {
	s := oauthtest.Start(t, oauthtest.Options{AskUser: true, Clients: []oauthtest.Client{{ID: "<i>client</i>", Secret: "x"}}})
	decide := func(decision string) url.Values {
		t.Helper()
		q := authQuery()
		q.Set("client_id", "<i>client</i>")
		page, err := io.ReadAll(get(t, s.URL(oauthtest.Authorization)+"?"+q.Encode()).Body)
		require.NoError(t, err)
		require.NotContains(t, string(page), "<i>")
		id := regexp.MustCompile(`name="request" value="([^"]+)"`).FindStringSubmatch(string(page))
		require.Len(t, id, 2)
		origin := strings.TrimSuffix(s.URL(oauthtest.Authorization), "/authorize")
		form := url.Values{"request": {id[1]}, "decision": {decision}}
		resp, err := browser.PostForm(origin+"/decision", form)
		require.NoError(t, err)
		_ = resp.Body.Close()
		again, err := browser.PostForm(origin+"/decision", form)
		require.NoError(t, err)
		_ = again.Body.Close()
		require.Equal(t, http.StatusBadRequest, again.StatusCode)
		return redirect(t, resp)
	}
	require.NotEmpty(t, decide("approve").Get("code"))
	require.Equal(t, "access_denied", decide("deny").Get("error"))
	require.Equal(t, "access_denied", decide("").Get("error"))
}

func TestCloseEndsHangingRequests(t *testing.T) {
	s, err := oauthtest.New(oauthtest.Options{})
	require.NoError(t, err)
	s.Always(oauthtest.Discovery, oauthtest.Hang())
	done := make(chan error, 1)
	go func() {
		_, err := browser.Get(s.URL(oauthtest.Discovery))
		done <- err
	}()
	require.Eventually(t, func() bool { return s.Count(oauthtest.Discovery) == 1 }, 5*time.Second, time.Millisecond)
	require.NoError(t, s.Close())
	require.Error(t, <-done)
}

package oauth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// Exchange exchanges an authorization code for tokens (RFC 6749 §4.1.3, RFC 7636
// §4.5). The answer has an access_token. Every error is an *Error.
func (c *Client) Exchange(ctx context.Context, e Exchange) (TokenSet, error) {
	return c.requestToken(ctx, "exchange", e.TokenRequest, map[string]string{
		"grant_type":    "authorization_code",
		"code":          e.Code.Reveal(),
		"code_verifier": e.CodeVerifier.Reveal(),
		"redirect_uri":  e.RedirectURI,
	})
}

// Refresh asks for a new access token (RFC 6749 §6). The answer has an access_token,
// and a refresh_token only if the provider sent one: see TokenSet.Merge. Every error
// is an *Error.
func (c *Client) Refresh(ctx context.Context, r Refresh) (TokenSet, error) {
	return c.requestToken(ctx, "refresh", r.TokenRequest, map[string]string{
		"grant_type":    "refresh_token",
		"refresh_token": r.RefreshToken.Reveal(),
	})
}

// requestToken sends one request to a token endpoint, whose redirects are not
// followed, and never a second: a code and a rotating refresh token work once.
func (c *Client) requestToken(ctx context.Context, op string, r TokenRequest, params map[string]string) (TokenSet, error) {
	if len(r.Scopes) > 0 {
		params["scope"] = strings.Join(r.Scopes, " ")
	}
	a, err := c.post(ctx, op, "token endpoint", r, params)
	if err != nil {
		return TokenSet{}, err
	}
	return c.readTokenAnswer(op, a)
}

// post sends params to an endpoint at which the client authenticates; what names the
// endpoint in an error.
func (c *Client) post(ctx context.Context, op, what string, r TokenRequest, params map[string]string) (answer, error) {
	u, reason := endpointURL(r.Endpoint)
	if reason != "" {
		return answer{}, &Error{Op: op, Reason: "the " + what + " " + reason}
	}
	if r.Auth.Style != ClientSecretBasic {
		params["client_id"] = r.Auth.ID.Reveal()
	}
	if r.Auth.Style == ClientSecretPost {
		params["client_secret"] = r.Auth.Secret.Reveal()
	}
	body, contentType := encodeForm(params), "application/x-www-form-urlencoded"
	if r.JSON {
		body, contentType = encodeJSON(params), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, &Error{Op: op, Reason: "the " + what + " is not valid"}
	}
	req.Header.Set("Content-Type", contentType)
	if r.Auth.Style == ClientSecretBasic {
		req.Header.Set("Authorization", basicAuth(r.Auth))
	}
	return c.send(op, req)
}

func encodeForm(params map[string]string) []byte {
	form := url.Values{}
	for name, value := range params {
		form.Set(name, value)
	}
	return []byte(form.Encode())
}

func encodeJSON(params map[string]string) []byte {
	b, _ := json.Marshal(params) // a map of strings cannot fail
	return b
}

// basicAuth returns the Authorization header. Id and secret are form-encoded before
// they are joined (RFC 6749 §2.3.1): a colon in the id, and "+", "%" or anything
// that is not ASCII in the secret, arrive as they are.
func basicAuth(a ClientAuth) string {
	pair := url.QueryEscape(a.ID.Reveal()) + ":" + url.QueryEscape(a.Secret.Reveal())
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
}

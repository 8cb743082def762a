package oauth

import (
	"context"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The kinds of tokens that can be revoked (RFC 7009 §2.1, token_type_hint).
const (
	RefreshTokenHint = "refresh_token"
	AccessTokenHint  = "access_token"
)

// Revocation asks a provider to make a token void (RFC 7009 §2.1).
type Revocation struct {
	Endpoint string
	Auth     ClientAuth
	Token    secret.Value
	Hint     string // RefreshTokenHint or AccessTokenHint
}

// Revoke sends one revocation request, as a form whatever token requests look like,
// with the client authentication of a token request. It returns nil when the token is
// void: the provider says so with a success, also of a token that it does not know
// (RFC 7009 §2.2), or with "invalid_token", which Google answers in that case. Every
// error is an *Error.
func (c *Client) Revoke(ctx context.Context, r Revocation) error {
	const op = "revocation"
	a, err := c.post(ctx, op, "revocation endpoint", TokenRequest{Endpoint: r.Endpoint, Auth: r.Auth},
		map[string]string{"token": r.Token.Reveal(), "token_type_hint": r.Hint})
	if err != nil {
		return err
	}
	failure := &Error{Op: op, Status: a.status, RetryAfter: c.retryAfter(a)}
	switch {
	case a.status >= 200 && a.status < 300:
		return nil
	case a.status >= 300 && a.status < 400:
		failure.Reason = "the revocation endpoint redirects, which is not followed"
		return failure
	}
	answered, reason := decodeTokenAnswer(a)
	if reason != "" {
		failure.Reason = reason
		return failure
	}
	code, _ := errorMember(answered)
	if failure.Code = tokenErrorCode(code); failure.Code == "" {
		failure.Reason = "the answer has no error code that is registered"
	}
	if failure.Code == "invalid_token" {
		return nil
	}
	return failure
}

package oauth_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/oauth"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

func TestOneRequestForOneCall(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	c := newClient(t, oauth.HTTPOptions{})
	first, err := c.Exchange(t.Context(), anExchange(t, p))
	require.NoError(t, err)
	p.Next(oauthtest.Token, oauthtest.CutOff())
	_, err = c.Refresh(t.Context(), oauth.Refresh{
		TokenRequest: oauth.TokenRequest{Endpoint: p.URL(oauthtest.Token), Auth: testAuth},
		RefreshToken: first.Text("refresh_token"),
	})
	var e *oauth.Error
	require.ErrorAs(t, err, &e)
	require.Zero(t, e.Status)
	require.Equal(t, 1, p.CountGrant("refresh_token"), "a second would be the reuse of a rotated token")
}

func TestProviderFaults(t *testing.T) {
	elsewhere := oauthtest.Start(t, oauthtest.Options{})
	for name, f := range map[string]struct {
		answer oauthtest.Answer
		check  func(*testing.T, *oauth.Error)
	}{
		"500":            {oauthtest.Refuse(500, "server_error"), func(t *testing.T, e *oauth.Error) { require.Equal(t, "server_error", e.Code) }},
		"HTML":           {oauthtest.HTML(200), func(t *testing.T, e *oauth.Error) { require.Contains(t, e.Reason, "HTML") }},
		"HTML 503":       {oauthtest.HTML(503), func(t *testing.T, e *oauth.Error) { require.Equal(t, 503, e.Status) }},
		"200 with error": {oauthtest.Refuse(200, "invalid_grant"), func(t *testing.T, e *oauth.Error) { require.Equal(t, "invalid_grant", e.Code) }},
		"rate limited":   {oauthtest.RateLimited(7 * time.Second), func(t *testing.T, e *oauth.Error) { require.Equal(t, 7*time.Second, e.RetryAfter) }},
		"100 MB":         {oauthtest.Huge(100 << 20), func(t *testing.T, e *oauth.Error) { require.Contains(t, e.Reason, "larger than 1 MiB") }},
		"redirect":       {oauthtest.RedirectTo(elsewhere.URL(oauthtest.Token)), func(t *testing.T, e *oauth.Error) { require.Contains(t, e.Reason, "redirect") }},
		"cut off":        {oauthtest.CutOff(), func(t *testing.T, e *oauth.Error) { require.ErrorIs(t, e, io.ErrUnexpectedEOF) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := oauthtest.Start(t, oauthtest.Options{})
			e := anExchange(t, p)
			p.Next(oauthtest.Token, f.answer)
			begin := time.Now()
			tokens, err := newClient(t, oauth.HTTPOptions{}).Exchange(t.Context(), e)
			require.Less(t, time.Since(begin), soon)
			require.Empty(t, tokens.Fields())
			var failure *oauth.Error
			require.ErrorAs(t, err, &failure)
			f.check(t, failure)
			require.NotContains(t, err.Error(), "as the test has asked for")
		})
	}
	require.Zero(t, elsewhere.Count(oauthtest.Token), "credentials followed a redirect")
}

func TestRedirectsOfATokenRequestAreNotFollowedAtHomeEither(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	e := anExchange(t, p)
	p.Next(oauthtest.Token, oauthtest.RedirectTo(p.URL(oauthtest.Token)))
	_, err := newClient(t, oauth.HTTPOptions{}).Exchange(t.Context(), e)
	require.ErrorContains(t, err, "redirect")
	require.Equal(t, 1, p.Count(oauthtest.Token))
}

// endless is a body that never ends, and counts what was read of it.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	e.read += len(b)
	if e.read > 64<<20 {
		return 0, errors.New("nobody stops")
	}
	return len(b), nil
}

func (e *endless) Close() error { return nil }

func TestNoMoreIsReadThanTheLimit(t *testing.T) {
	body := &endless{}
	c := answering(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, ContentLength: -1, Body: body, Header: http.Header{}}, nil
	})
	_, err := c.Refresh(t.Context(), oauth.Refresh{TokenRequest: oauth.TokenRequest{Endpoint: "https://provider.example/token"}})
	require.ErrorContains(t, err, "larger than 1 MiB")
	require.Less(t, body.read, 4<<20)
}

func TestAnswersThatDoNotEnd(t *testing.T) {
	for name, answer := range map[string]oauthtest.Answer{
		"hang": oauthtest.Hang(),
		"drip": oauthtest.Drip(20 * time.Millisecond), // some 400 bytes: 8 seconds
	} {
		t.Run(name, func(t *testing.T) {
			p := oauthtest.Start(t, oauthtest.Options{})
			e := anExchange(t, p)
			p.Next(oauthtest.Token, answer)
			_, err := newClient(t, oauth.HTTPOptions{Timeout: 200 * time.Millisecond}).Exchange(t.Context(), e)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Contains(t, err.Error(), "no complete answer in time")
		})
	}
}

func TestCancellationEndsTheCall(t *testing.T) {
	p := oauthtest.Start(t, oauthtest.Options{})
	e := anExchange(t, p)
	p.Next(oauthtest.Token, oauthtest.Hang())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := newClient(t, oauth.HTTPOptions{}).Exchange(ctx, e)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAnswerWithManyNestedValuesIsRefusedNotFatal(t *testing.T) {
	body := bytes.Repeat([]byte(`{"a":`), 200_000)
	_, err := exchangeWith(t, 200, "application/json", body)
	require.Error(t, err)
}

package oauth

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// readTokenAnswer reads a token endpoint's answer (RFC 6749 §5.1, §5.2). An answer
// with an "error" is a failure whatever its status: GitHub and Slack send 200.
func (c *Client) readTokenAnswer(op string, a answer) (TokenSet, error) {
	failure := &Error{Op: op, Status: a.status, RetryAfter: c.retryAfter(a)}
	if a.status >= 300 && a.status < 400 {
		failure.Reason = "the token endpoint redirects, which is not followed"
		return TokenSet{}, failure
	}
	tokens, reason := decodeTokenAnswer(a)
	if reason != "" {
		failure.Reason = reason
		return TokenSet{}, failure
	}
	code, refused := errorMember(tokens)
	switch {
	case refused:
		failure.Code = tokenErrorCode(code)
		if failure.Code == "" {
			failure.Reason = "the provider's error code is not a registered one"
		}
		return TokenSet{}, failure
	case a.status < 200 || a.status > 299:
		failure.Reason = "the answer has no error code"
		return TokenSet{}, failure
	case tokens.Text("access_token").IsZero():
		failure.Reason = "the answer has no access_token"
		return TokenSet{}, failure
	}
	return tokens, nil
}

// decodeTokenAnswer reads JSON, or the form encoding that some providers answer with
// whatever they were asked for. What the body is, counts for more than what the
// Content-Type says, which is often wrong. The reason quotes nothing of the body.
func decodeTokenAnswer(a answer) (tokens TokenSet, reason string) {
	body := bytes.TrimSpace(bytes.TrimPrefix(a.body, []byte("\xef\xbb\xbf")))
	mediaType, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
	switch {
	case len(body) == 0:
		return TokenSet{}, "the answer is empty"
	case body[0] == '{':
		tokens, err := DecodeTokenSet(body)
		if err != nil {
			return TokenSet{}, "the answer is not valid JSON"
		}
		return tokens, ""
	case body[0] == '<' || mediaType == "text/html":
		return TokenSet{}, "the answer is an HTML page"
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || !form.Has("access_token") && !form.Has("error") {
		return TokenSet{}, "the answer is neither a JSON object nor a form"
	}
	return formTokens(form), ""
}

// formTokens returns the members of a form-encoded answer: strings, but for
// lifetimes in seconds, which are numbers in JSON.
func formTokens(form url.Values) TokenSet {
	fields := make(map[string]json.RawMessage, len(form))
	for name := range form {
		value := form.Get(name)
		if n, err := strconv.ParseUint(value, 10, 63); err == nil && strings.HasSuffix(name, "expires_in") {
			fields[name] = strconv.AppendUint(nil, n, 10)
			continue
		}
		fields[name], _ = json.Marshal(value) // a string cannot fail
	}
	return NewTokenSet(fields)
}

// errorMember returns the answer's "error". Some APIs send it with every answer,
// empty where there is none; some send an object, of which no code can be had.
func errorMember(tokens TokenSet) (code string, refused bool) {
	raw := tokens.all()["error"]
	switch string(raw) {
	case "", "null", "false", "0", `""`:
		return "", false
	}
	return tokens.Text("error").Reveal(), true
}

// retryAfter returns how long a 429 or 503 asks to wait, in seconds or until a date
// (RFC 9110 §10.2.3); zero if it does not say, or says more than a day.
func (c *Client) retryAfter(a answer) time.Duration {
	if a.status != http.StatusTooManyRequests && a.status != http.StatusServiceUnavailable {
		return 0
	}
	const longest = 24 * time.Hour
	value := a.header.Get("Retry-After")
	wait := time.Duration(0)
	if seconds, err := strconv.Atoi(value); err == nil && seconds <= int(longest/time.Second) {
		wait = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(c.now())
	}
	if wait < 0 || wait > longest {
		return 0
	}
	return wait
}

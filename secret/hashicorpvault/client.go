package hashicorpvault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/nexus-broker/nexus-broker/secret"
)

// conn sends requests with the vendor's client and reads the answers strictly.
type conn struct {
	secrets *api.Client // without a token, in the namespace of the secrets
	login   *api.Client // without a token, in the namespace of the login
	http    *http.Client
	idle    *transport
	timeout time.Duration
}

func newConn(cfg Config, timeout time.Duration) (*conn, error) {
	httpClient, idle, err := newHTTPClient(cfg.TLS)
	if err != nil {
		return nil, err
	}
	c := &api.Config{
		Address:    strings.TrimRight(cfg.Address, "/"),
		HttpClient: httpClient,
		// The retries are for one case only: see retryStale. A server that is sealed or
		// throttles is reported at once.
		MaxRetries: 4, MinRetryWait: 50 * time.Millisecond, MaxRetryWait: 200 * time.Millisecond,
		CheckRetry: retryStale, ReadYourWrites: true,
		// newHTTPClient follows redirects; the vendor's way of doing it sends an empty
		// body to the new place, with the old Host, whatever that place is.
		DisableRedirects: true,
	}
	client, err := api.NewClient(c)
	if err != nil {
		return nil, environmentError(err)
	}
	// NewClient has taken a token, a namespace and headers from the environment.
	client.ClearToken()
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	client.SetWrappingLookupFunc(func(string, string) string { return "" })

	loginNamespace := cfg.AuthNamespace
	if loginNamespace == "" {
		loginNamespace = cfg.Namespace
	}
	return &conn{
		secrets: client.WithNamespace(cfg.Namespace),
		login:   client.WithNamespace(loginNamespace),
		http:    httpClient, idle: idle, timeout: timeout,
	}, nil
}

// environmentError reports that the vendor's client does not even start because of a
// VAULT_* variable that it cannot parse.
func environmentError(err error) error {
	var u *url.Error
	if errors.As(err, &u) { // quotes the URL, a proxy's password included
		err = errors.New("an address in it cannot be parsed")
	}
	return fmt.Errorf("the client library refuses the environment, unset the VAULT_* variable in question: %w", err)
}

// retryStale retries 412 alone: the answer of a performance standby that has not
// seen our last write yet (https://developer.hashicorp.com/vault/docs/enterprise/consistency).
func retryStale(ctx context.Context, resp *http.Response, err error) (bool, error) {
	return err == nil && resp.StatusCode == http.StatusPreconditionFailed, ctx.Err()
}

// withToken returns client with a token. The two share connections.
func withToken(client *api.Client, token secret.Value) *api.Client {
	c := client.WithNamespace(client.Namespace())
	c.SetToken(token.Reveal())
	return c
}

// request is one request to Vault.
type request struct {
	method string
	path   string // behind /v1/
	query  url.Values
	body   any  // of a write
	self   bool // about the token: sent in the namespace of the login
}

// answer is what Vault said.
type answer struct {
	status     int
	retryAfter time.Duration
	fromVault  bool // it has Vault's form; else nothing below is set
	errors     []string
	warnings   []string
	data       json.RawMessage
	auth       json.RawMessage
}

// errNetwork is the failure to get an answer. Its text is ours: the network's own
// may quote what the other end has sent.
type errNetwork struct{ reason string }

func (e errNetwork) Error() string { return e.reason }

// send makes the request. The error is that of ctx, or an errNetwork.
func (c *conn) send(ctx context.Context, client *api.Client, r request) (*answer, error) {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := raw(bounded, client.Logical(), r)
	if resp != nil {
		defer resp.Body.Close()
	}
	var refused *api.ResponseError
	if err == nil || errors.As(err, &refused) {
		var body []byte
		if body, err = io.ReadAll(resp.Body); err == nil {
			return newAnswer(resp, body), nil
		}
	}
	if ctxErr := ended(ctx); ctxErr != nil {
		return nil, ctxErr
	}
	return nil, errNetwork{reason(err)}
}

func raw(ctx context.Context, l *api.Logical, r request) (*api.Response, error) {
	switch r.method {
	case http.MethodGet:
		return l.ReadRawWithDataWithContext(ctx, r.path, r.query)
	case http.MethodDelete:
		return l.DeleteRawWithContext(ctx, r.path)
	default:
		body, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		return l.WriteRawWithContext(ctx, r.path, body)
	}
}

// ended returns the error of a ctx that has ended or is just about to: a dialer may
// notice the deadline first.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return nil
}

func newAnswer(resp *api.Response, body []byte) *answer {
	a := &answer{status: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	if a.status == http.StatusNoContent {
		a.fromVault = true
		return a
	}
	var form struct {
		RequestID *string          `json:"request_id"`
		Errors    *[]string        `json:"errors"`
		Warnings  []string         `json:"warnings"`
		Data      json.RawMessage  `json:"data"`
		Auth      *json.RawMessage `json:"auth"`
	}
	if body = bytes.TrimSpace(body); !bytes.HasPrefix(body, []byte("{")) || json.Unmarshal(body, &form) != nil {
		return a
	}
	if form.Errors == nil && (form.RequestID == nil || a.status >= 400 && isNull(form.Data) && len(form.Warnings) == 0) {
		return a
	}
	a.fromVault, a.warnings = true, form.Warnings
	if form.Errors != nil {
		a.errors = *form.Errors
	}
	if !isNull(form.Data) {
		a.data = form.Data
	}
	if form.Auth != nil {
		a.auth = *form.Auth
	}
	return a
}

func isNull(m json.RawMessage) bool { return len(m) == 0 || string(m) == "null" }

func (a *answer) ok() bool { return a.fromVault && a.status >= 200 && a.status < 300 }

// denied: the policy does not allow the request, or the token is not valid.
func (a *answer) denied() bool {
	return a.fromVault && (a.status == http.StatusForbidden ||
		a.status == http.StatusBadRequest && a.says("missing client token"))
}

// invalidToken tells, for a denied request that needs no policy, the two reasons
// apart: a token that is not valid is refused before policies are looked at, with
// the bare text or, from Vault 1.15 on, by name.
func (a *answer) invalidToken() bool {
	return a.says("invalid token") || a.says("missing client token") ||
		len(a.errors) == 1 && strings.TrimSpace(a.errors[0]) == "permission denied"
}

// missing: there is nothing at the path. Any other 404 is not about the secret.
func (a *answer) missing() bool {
	return a.fromVault && a.status == http.StatusNotFound && len(a.errors) == 0 && a.data == nil && len(a.warnings) == 0
}

// says reports whether one of Vault's error texts contains s.
func (a *answer) says(s string) bool {
	for _, e := range a.errors {
		if strings.Contains(e, s) {
			return true
		}
	}
	return false
}

// retryAfter reads the header (RFC 9110 §10.2.3); zero if it says nothing usable.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 && seconds <= 24*3600 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

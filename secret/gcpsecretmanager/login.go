package gcpsecretmanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/credentials/impersonate"
	"cloud.google.com/go/compute/metadata"

	"github.com/nexus-broker/nexus-broker/secret"
)

const scope = "https://www.googleapis.com/auth/cloud-platform"

// login finds the credentials when they are first needed and keeps the token that they
// give. The library's own client does it when it is made, asks the metadata server for
// that, and remembers for the life of the process that it was not there.
type login struct {
	account string // to impersonate
	client  *http.Client
	log     *slog.Logger

	mu    sync.Mutex
	creds *auth.Credentials
	since time.Time
}

// token returns a valid access token; the credentials fetch a new one ahead of its end.
func (l *login) token(ctx context.Context) (*auth.Token, error) {
	type result struct {
		token *auth.Token
		err   error
	}
	done := make(chan result, 1)
	go func() { // the library does not watch ctx everywhere
		creds, err := l.credentials()
		if err != nil {
			done <- result{nil, err}
			return
		}
		token, err := creds.Token(ctx)
		done <- result{token, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		if r.err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if r.err != nil {
			return nil, l.fault(r.err)
		}
		return r.token, nil
	}
}

// quotaProject is whom the requests are charged to, "" if the credentials do not say.
func (l *login) quotaProject(ctx context.Context) string {
	l.mu.Lock()
	creds := l.creds
	l.mu.Unlock()
	if creds == nil {
		return ""
	}
	project, _ := creds.QuotaProjectID(ctx) // optional
	return project
}

// forget makes the next call log in anew, after Google has refused a token. A token that
// was refused as soon as it was there will not become better.
func (l *login) forget() {
	const patience = time.Minute
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.creds != nil && time.Since(l.since) > patience {
		l.creds = nil
	}
}

func (l *login) credentials() (*auth.Credentials, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.creds != nil {
		return l.creds, nil
	}
	creds, err := credentials.DetectDefault(&credentials.DetectOptions{
		Scopes: []string{scope}, Client: l.client, Logger: slog.New(slog.DiscardHandler),
	})
	switch {
	case err == nil:
	case !strings.Contains(err.Error(), "could not find default credentials"): // a file that cannot be used
		return nil, errCredentials
	default: // the library believes that there is no metadata server, and will not ask again
		creds = auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: auth.NewCachedTokenProvider(metadataServer{}, nil)})
	}
	if l.account != "" {
		creds, err = impersonate.NewCredentials(&impersonate.CredentialsOptions{
			TargetPrincipal: l.account, Scopes: []string{scope}, Credentials: creds, Client: l.impersonator(creds), Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return nil, errCredentials
		}
	}
	l.creds, l.since = creds, time.Now()
	l.log.Info("using Google credentials", "impersonate", l.account)
	return creds, nil
}

// impersonator returns the client that asks for the tokens of another account.
func (l *login) impersonator(creds *auth.Credentials) *http.Client {
	c := http.Client{Timeout: DefaultTimeout}
	if l.client != nil {
		c = *l.client
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	c.Transport = bearer{creds, c.Transport}
	return &c
}

// bearer adds the token of creds to each request, and makes an error of a refusal: the
// library makes a text of it.
type bearer struct {
	creds *auth.Credentials
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := b.creds.Token(r.Context())
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token.Value)
	resp, err := b.next.RoundTrip(r)
	if err == nil && refusal(resp.StatusCode) {
		_ = resp.Body.Close()
		return nil, errRefused
	}
	return resp, err
}

// refusal reports whether a status says no, and not later.
func refusal(status int) bool {
	return status >= 400 && status < 500 && status != http.StatusTooManyRequests
}

// errRefused: the account may not be impersonated.
var errRefused = errors.New("the token was refused")

// errNoMetadata: there are no credentials but those of a metadata server, and it does
// not answer.
var errNoMetadata = errors.New("no metadata server")

// errCredentials: there are credentials, and they cannot be used.
var errCredentials = fmt.Errorf("%w: %w: the Application Default Credentials cannot be read: check the file that GOOGLE_APPLICATION_CREDENTIALS names, "+
	"or that gcloud auth application-default login has written", secret.ErrDenied, secret.ErrLogin)

// metadataServer gets tokens from the metadata server of Compute Engine, GKE and Cloud Run
// (https://cloud.google.com/compute/docs/access/authenticate-workloads#applications).
// It stands in for the library where that believes that there is none.
type metadataServer struct{}

// Token implements auth.TokenProvider.
func (metadataServer) Token(ctx context.Context) (*auth.Token, error) {
	text, err := metadata.GetWithContext(ctx, "instance/service-accounts/default/token")
	var refused *metadata.Error
	var undefined metadata.NotDefinedError
	switch {
	case errors.As(err, &refused), errors.As(err, &undefined):
		return nil, err
	case err != nil:
		return nil, errNoMetadata
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
		TokenType   string `json:"token_type"`
	}
	if json.Unmarshal([]byte(text), &answer) != nil || answer.AccessToken == "" || answer.ExpiresIn <= 0 {
		return nil, errNoMetadata
	}
	return &auth.Token{Value: answer.AccessToken, Type: answer.TokenType, Expiry: time.Now().Add(time.Duration(answer.ExpiresIn) * time.Second)}, nil
}

// fault maps a failed login to the sentinels. It quotes nothing of an answer.
func (l *login) fault(err error) error {
	var answered *auth.Error
	var refused *metadata.Error
	switch {
	case errors.Is(err, secret.ErrDenied):
		return err
	case errors.Is(err, errNoMetadata):
		return fmt.Errorf("%w: there are no Application Default Credentials and no metadata server answers: "+
			"set GOOGLE_APPLICATION_CREDENTIALS, or wait if this runs on Google Cloud", secret.ErrUnavailable)
	case errors.Is(err, errRefused),
		errors.As(err, &answered) && answered.Response != nil && refusal(answered.Response.StatusCode),
		errors.As(err, &refused) && refusal(refused.Code):
		return fmt.Errorf("%w: %w: %s", secret.ErrDenied, secret.ErrLogin, l.remedy())
	default:
		return fmt.Errorf("%w: Google's token service does not answer: check the network and the proxy", secret.ErrUnavailable)
	}
}

func (l *login) remedy() string {
	if l.account != "" {
		return fmt.Sprintf("no token for %s: check the Application Default Credentials, and that they have the role "+
			"roles/iam.serviceAccountTokenCreator on that account", l.account)
	}
	return "Google refuses the Application Default Credentials: the key, the federation's set-up or the account may have been removed"
}

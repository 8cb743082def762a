package gcpsecretmanager

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	secretmanager "cloud.google.com/go/secretmanager/apiv1"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/nexus-broker/nexus-broker/secret"
)

// conn sends the requests. It connects when it is first used.
type conn struct {
	client  *secretmanager.Client
	grpc    *grpc.ClientConn
	login   *login // nil: no credentials
	timeout time.Duration
}

// maxAnswer bounds an answer: a secret has at most 64 KiB, a list of versions is paged.
const maxAnswer = 4 << 20

// newConn makes the connection ourselves and hands it to the library, which would look
// for credentials at once.
func newConn(cfg Config, opts Options, l *login) (*conn, error) {
	transport := grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: opts.RootCAs, MinVersion: tls.VersionTLS12}))
	if cfg.EmulatorHost != "" {
		transport, l = grpc.WithTransportCredentials(insecure.NewCredentials()), nil
	}
	g, err := grpc.NewClient("dns:///"+endpoint(cfg, opts), transport,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		// After an outage the next attempt to connect shall not be a minute away.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("the endpoint is not host:port")
	}
	client, err := secretmanager.NewClient(context.Background(), option.WithGRPCConn(g))
	if err != nil {
		_ = g.Close()
		return nil, fmt.Errorf("the client cannot be made")
	}
	// Without the library's own retries and limits: a repetition after two seconds is
	// longer than most callers wait.
	client.CallOptions = &secretmanager.CallOptions{}
	return &conn{client: client, grpc: g, login: l, timeout: opts.Timeout}, nil
}

// endpoint returns the host and port of the service. Regional secrets have one of
// their own (https://cloud.google.com/secret-manager/regional-secrets/endpoints).
func endpoint(cfg Config, opts Options) string {
	switch {
	case cfg.EmulatorHost != "":
		return cfg.EmulatorHost
	case opts.Endpoint != "":
		return opts.Endpoint
	case cfg.Location != "":
		return "secretmanager." + cfg.Location + ".rep.googleapis.com:443"
	default:
		return "secretmanager.googleapis.com:443"
	}
}

// call sends one request with a valid token and within the limit of time. permission is
// what IAM has to grant for it. The error is ready but for its action.
func call[Answer any](ctx context.Context, c *conn, permission string, send func(context.Context) (Answer, error)) (Answer, error) {
	var none Answer
	if err := ctx.Err(); err != nil {
		return none, err
	}
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	authorized, err := c.authorize(limited)
	if err != nil {
		if end := endOf(ctx); end != nil {
			return none, end
		}
		if limited.Err() != nil {
			return none, &rpcError{code: codes.DeadlineExceeded, err: fmt.Errorf("%w: no access token in time: check the network, and the metadata or token service",
				secret.ErrUnavailable)}
		}
		return none, err
	}
	c.reconnect(limited)
	answer, err := send(authorized)
	if err == nil {
		return answer, nil
	}
	err = fault(ctx, err, permission)
	if c.login != nil && is(err, codes.Unauthenticated) {
		c.login.forget()
	}
	return none, err
}

// reconnect tries a connection that has failed anew, instead of failing until its next
// attempt is due: who asks now is to be answered as the service is now. A connection
// that is being made is waited for by the request itself.
func (c *conn) reconnect(ctx context.Context) {
	if c.grpc.GetState() != connectivity.TransientFailure {
		return
	}
	moment, cancel := context.WithTimeout(ctx, 250*time.Millisecond)
	defer cancel()
	c.grpc.ResetConnectBackoff()
	c.grpc.WaitForStateChange(moment, connectivity.TransientFailure)
}

// authorize adds the access token to ctx.
func (c *conn) authorize(ctx context.Context) (context.Context, error) {
	if c.login == nil {
		return ctx, nil
	}
	token, err := c.login.token(ctx)
	if err != nil {
		return nil, err
	}
	pairs := []string{"authorization", "Bearer " + token.Value}
	if project := c.login.quotaProject(ctx); project != "" {
		pairs = append(pairs, "x-goog-user-project", project)
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...), nil
}

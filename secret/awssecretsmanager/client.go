package awssecretsmanager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"github.com/nexus-broker/nexus-broker/secret"
)

// How a request is repeated that met throttling or a passing failure.
const (
	maxAttempts = 4
	maxBackoff  = time.Second
	// reloginPause is the time between two attempts to replace credentials that were
	// refused.
	reloginPause = 10 * time.Second
)

// maxBody bounds an answer. The largest legal one is a batch of values of 64 KiB, escaped.
const maxBody = 8 << 20

// sessionName is what the sessions of an assumed role are called in AWS's logs.
const sessionName = "nexus-broker"

// connect makes the SDK's client. Nothing is sent.
func (b *AWSBackend) connect(ctx context.Context, cfg Config, opts Options) error {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxResponseHeaderBytes = 64 << 10
		t.MaxIdleConnsPerHost = 64
		if opts.RootCAs != nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: opts.RootCAs}
		}
	})
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client), // buildable: AWS_CA_BUNDLE can be added to it
		config.WithLogger(logging.Nop{}),
	}
	if cfg.Region != "" {
		load = append(load, config.WithRegion(cfg.Region))
	}
	if opts.Credentials != nil {
		load = append(load, config.WithCredentialsProvider(opts.Credentials))
	}
	found, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		// Its text may quote a line of a credentials file.
		return errors.New("the SDK cannot read its configuration: check the AWS_* variables, AWS_PROFILE and the files that they name")
	}
	if found.Region == "" {
		return errors.New("no region: set AWS_REGION")
	}
	b.region = found.Region
	b.assume(&found, cfg)
	b.config, b.creds = found, found.Credentials
	b.retryer = newRetryer()
	b.sdk = secretsmanager.NewFromConfig(found, func(o *secretsmanager.Options) {
		o.HTTPClient = strictClient{found.HTTPClient}
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
	})
	return nil
}

// assume makes the credentials those of the role, if there is one.
func (b *AWSBackend) assume(found *aws.Config, cfg Config) {
	b.renew, _ = found.Credentials.(*aws.CredentialsCache)
	found.Credentials = credentials{found.Credentials, "the credentials"}
	if cfg.RoleARN == "" {
		return
	}
	service := sts.NewFromConfig(*found, func(o *sts.Options) {
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.Endpoint)
		}
	})
	role := stscreds.NewAssumeRoleProvider(service, cfg.RoleARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = sessionName
		if cfg.ExternalID != "" {
			o.ExternalID = aws.String(cfg.ExternalID)
		}
	})
	cached := aws.NewCredentialsCache(role, func(o *aws.CredentialsCacheOptions) {
		o.ExpiryWindow, o.ExpiryWindowJitterFrac = 2*time.Minute, 0.5
	})
	b.renew = cached
	found.Credentials = credentials{cached, "the role " + cfg.RoleARN}
}

// credentials marks the errors of a provider, so that they can be told from those of
// the request that needed it.
type credentials struct {
	aws.CredentialsProvider
	what string
}

// Retrieve implements aws.CredentialsProvider.
func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.CredentialsProvider.Retrieve(ctx)
	var inner *credentialsError
	if err != nil && !errors.As(err, &inner) {
		err = &credentialsError{c.what, err}
	}
	return found, err
}

// credentialsError: there are no credentials to be had.
type credentialsError struct {
	what string
	err  error
}

func (e *credentialsError) Error() string { return "retrieving " + e.what }
func (e *credentialsError) Unwrap() error { return e.err }

// newRetryer returns the SDK's standard retryer. Its adaptive one would go on holding
// calls back after throttling that has passed: it allows no more than twice what it has
// measured, and a broker reads little for hours and then much at once. To the SDK
// LimitExceededException is throttling; to Secrets Manager it is a quota.
func newRetryer() aws.RetryerV2 {
	codes := map[string]struct{}{}
	for code := range retry.DefaultThrottleErrorCodes {
		if code != "LimitExceededException" {
			codes[code] = struct{}{}
		}
	}
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff
		// A budget that many callers share would make one of them fail for the others.
		o.RateLimiter = ratelimit.None
		o.Throttles = []retry.IsErrorThrottle{retry.ThrottleErrorCode{Codes: codes}}
		o.Retryables = []retry.IsErrorRetryable{
			retry.NoRetryCanceledError{}, retry.RetryableError{}, retry.RetryableConnectionError{},
			retry.RetryableHTTPStatusCode{Codes: retry.DefaultRetryableHTTPStatusCodes},
			retry.RetryableErrorCode{Codes: retry.DefaultRetryableErrorCodes},
			retry.RetryableErrorCode{Codes: codes},
		}
	})
}

// attempts is the retryer of one call. It leaves time for an attempt after each wait,
// and of a wait that is cut short it knows the reason, so that this is reported and not
// the deadline.
type attempts struct {
	aws.RetryerV2
	deadline time.Time
	reason   error // why the last attempt has failed; nil while one is under way
}

// attemptTime is what is left for an attempt after a wait, or half of what there is.
const attemptTime = 500 * time.Millisecond

// GetAttemptToken implements aws.RetryerV2.
func (a *attempts) GetAttemptToken(ctx context.Context) (func(error) error, error) {
	a.reason = nil
	return a.RetryerV2.GetAttemptToken(ctx)
}

// IsErrorRetryable implements aws.Retryer.
func (a *attempts) IsErrorRetryable(err error) bool {
	if !a.RetryerV2.IsErrorRetryable(err) {
		return false
	}
	a.reason = err
	wait, _ := retryAfter(err)
	return time.Until(a.deadline) > wait+attemptTime/2
}

// RetryDelay implements aws.Retryer.
func (a *attempts) RetryDelay(attempt int, err error) (time.Duration, error) {
	wait, err := a.RetryerV2.RetryDelay(attempt, err)
	left := time.Until(a.deadline)
	return min(wait, left-min(left/2, attemptTime)), err
}

// request is a method of the SDK's client.
type request[In, Out any] func(context.Context, *In, ...func(*secretsmanager.Options)) (*Out, error)

// call makes one request, with the SDK's retries, and once more with new credentials if
// AWS does not accept those that it was made with. ctx has a deadline (see run). The
// error is a *failure, or wraps errEnded, with the *failure that was being waited out if
// no attempt was under way.
func call[In, Out any](ctx context.Context, b *AWSBackend, do request[In, Out], in *In) (*Out, error) {
	out, err := callOnce(ctx, b, do, in)
	if errors.Is(err, secret.ErrLogin) && b.dropCredentials(err) {
		return callOnce(ctx, b, do, in)
	}
	return out, err
}

func callOnce[In, Out any](ctx context.Context, b *AWSBackend, do request[In, Out], in *In) (*Out, error) {
	if ended(ctx) != nil {
		return nil, errEnded
	}
	deadline, _ := ctx.Deadline()
	a := &attempts{RetryerV2: b.retryer, deadline: deadline}
	out, err := do(ctx, in, func(o *secretsmanager.Options) { o.Retryer = a })
	switch {
	case err == nil:
		return out, nil
	case ended(ctx) != nil && a.reason != nil:
		return nil, errors.Join(errEnded, failed(a.reason, b))
	case ended(ctx) != nil:
		return nil, errEnded
	}
	return nil, failed(err, b)
}

// dropCredentials makes the SDK get new credentials where AWS has refused those in use,
// which it may have ended before their time. It does so once in reloginPause: where all
// are refused it is no login for each read.
func (b *AWSBackend) dropCredentials(err error) bool {
	var f *failure
	if b.renew == nil || !errors.As(err, &f) || f.code == "" || signatureCodes[f.code] {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.renewed) < reloginPause {
		return false
	}
	b.renewed = time.Now()
	b.renew.Invalidate()
	return true
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

// strictClient refuses answers that are not the service's: a proxy's page with status
// 200 would be taken for the empty answer that some actions have.
type strictClient struct{ aws.HTTPClient }

// Do implements aws.HTTPClient.
func (c strictClient) Do(req *http.Request) (*http.Response, error) {
	resp, err := c.HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	kind := resp.Header.Get("Content-Type")
	if !strings.HasPrefix(kind, "application/x-amz-json") && !(kind == "" && resp.ContentLength == 0) {
		_ = resp.Body.Close()
		return nil, &notAWS{resp.StatusCode}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody), resp.Body}
	return resp, nil
}

// notAWS: something else has answered.
type notAWS struct{ status int }

func (e *notAWS) Error() string {
	return fmt.Sprintf("an answer with status %d that is not AWS's", e.status)
}

// RetryableError tells the SDK that a proxy's failure may pass.
func (e *notAWS) RetryableError() bool { return e.status >= http.StatusInternalServerError }

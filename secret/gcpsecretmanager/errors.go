package gcpsecretmanager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nexus-broker/nexus-broker/secret"
)

// action is what an error message begins with: the operation and the place.
type action struct{ op, place string }

func (a action) wrap(err error) error {
	return fmt.Errorf("%s: %s %s: %w", Name, a.op, a.place, err)
}

// rpcError is a request that failed: its code, and the error for a person. It keeps
// nothing of the answer's text.
type rpcError struct {
	code       codes.Code
	notEnabled bool // the version is disabled or destroyed
	err        error
}

func (e *rpcError) Error() string { return e.err.Error() }
func (e *rpcError) Unwrap() error { return e.err }

// is reports whether a request was answered with code.
func is(err error, code codes.Code) bool {
	var e *rpcError
	return errors.As(err, &e) && e.code == code
}

// notEnabled reports whether the answer said that the version is disabled or destroyed.
func notEnabled(err error) bool {
	var e *rpcError
	return errors.As(err, &e) && e.notEnabled
}

// fault maps a failed request to the sentinels. permission is what IAM has to grant for it.
func fault(ctx context.Context, err error, permission string) error {
	if ended := endOf(ctx); ended != nil {
		return ended
	}
	s, ok := status.FromError(err)
	if !ok {
		return &rpcError{code: codes.Unknown, err: fmt.Errorf("%w: the request failed: check the network", secret.ErrUnavailable)}
	}
	e := &rpcError{code: s.Code()}
	if !fromGoogle(s) {
		e.code = codes.Unavailable
		e.err = fmt.Errorf("%w: the answer is not Secret Manager's: check the endpoint and the proxies in front of it", secret.ErrUnavailable)
		return e
	}
	e.notEnabled = s.Code() == codes.FailedPrecondition &&
		(strings.Contains(s.Message(), "is in DISABLED state") || strings.Contains(s.Message(), "is in DESTROYED state"))
	e.err = classify(s, permission)
	return e
}

// endOf returns ctx's error if it has ended, or is about to: the server that was told
// of a deadline may say that it has passed a moment before ctx does.
func endOf(ctx context.Context) error {
	const moment = 100 * time.Millisecond
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < moment && ctx.Err() == nil {
		<-ctx.Done()
	}
	return ctx.Err()
}

// fromGoogle is false for an answer that has no gRPC status of its own: what grpc-go
// makes of a proxy's HTML page.
func fromGoogle(s *status.Status) bool {
	return !strings.Contains(s.Message(), "unexpected HTTP status code received from server") &&
		!strings.Contains(s.Message(), "unexpected content-type") &&
		!strings.Contains(s.Message(), "malformed header")
}

// classify gives the sentinel and the advice for a status.
func classify(s *status.Status, permission string) error {
	switch s.Code() {
	case codes.NotFound:
		return fmt.Errorf("%w: there is no such secret, or it has no version", secret.ErrNotFound)
	case codes.PermissionDenied:
		return denied(s, permission)
	case codes.Unauthenticated:
		return fmt.Errorf("%w: %w: Google does not accept the access token: check the credentials and the clock", secret.ErrDenied, secret.ErrLogin)
	case codes.ResourceExhausted:
		return throttled(s)
	case codes.InvalidArgument, codes.OutOfRange:
		return fmt.Errorf("%w: Secret Manager rejects the request: check the project, the locations and the KMS key", secret.ErrInvalid)
	case codes.FailedPrecondition:
		return fmt.Errorf("%w: the state of the secret does not allow it: if it is encrypted with a KMS key, see that the key is enabled "+
			"and that Secret Manager's service agent may use it", secret.ErrUnavailable)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w: no answer in time: check the network and Google's status page", secret.ErrUnavailable)
	case codes.Unavailable:
		return fmt.Errorf("%w: Secret Manager cannot be reached: check the network, the proxy and Google's status page", secret.ErrUnavailable)
	case codes.Unimplemented:
		return fmt.Errorf("%w: the server does not know the request: check the endpoint and the location", secret.ErrUnavailable)
	default:
		return fmt.Errorf("%w: Secret Manager answers with code %s: try again, and see Google's status page", secret.ErrUnavailable, s.Code())
	}
}

// denied says what IAM lacks. GCP gives the same answer where a principal without any
// right to a secret asks for one that does not exist.
func denied(s *status.Status, permission string) error {
	for _, d := range s.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok {
			continue
		}
		switch info.GetReason() {
		case "SERVICE_DISABLED":
			return fmt.Errorf("%w: the Secret Manager API is not enabled in the project: gcloud services enable secretmanager.googleapis.com", secret.ErrDenied)
		case "BILLING_DISABLED":
			return fmt.Errorf("%w: the project has no billing account: Secret Manager needs one", secret.ErrDenied)
		}
	}
	return fmt.Errorf("%w: IAM does not grant %s here, or the secret does not exist: GCP answers both in the same way. "+
		"Ask the project's administrator for the role (a new grant takes minutes to work)", secret.ErrDenied, permission)
}

func throttled(s *status.Status) error {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay().AsDuration() > 0 {
			wait := info.GetRetryDelay().AsDuration()
			return secret.Throttled(fmt.Sprintf("%s: wait %s, or raise the project's quota of Secret Manager", secret.ErrThrottled, wait), wait)
		}
	}
	return secret.Throttled(fmt.Sprintf("%s: wait, or raise the project's quota of Secret Manager", secret.ErrThrottled), 0)
}

package awssecretsmanager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/nexus-broker/nexus-broker/secret"
)

// action is what an error message begins with: the operation and the name.
type action struct{ op, place string }

// action is op on key, for the error messages.
func (b *AWSBackend) action(op, key string) action { return action{op, b.name(key)} }

func (a action) wrap(err error) error { return fmt.Errorf("%s: %s %s: %w", Name, a.op, a.place, err) }

// invalid reports arguments that are refused before anything is sent. An illegal key is
// quoted by err itself.
func (b *AWSBackend) invalid(op, key string, err error) error {
	if secret.CheckKey(key) != nil {
		return fmt.Errorf("%s: %s: %w", Name, op, err)
	}
	return b.action(op, key).wrap(err)
}

// errEnded: the ctx of the operation has ended; run says why.
var errEnded = errors.New("the operation's context has ended")

// run runs an operation within the backend's timeout and completes its error.
func (b *AWSBackend) run(ctx context.Context, act action, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	err := f(bounded)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errEnded):
		if outer := ended(ctx); outer != nil {
			return act.wrap(outer)
		}
		if reason := (*failure)(nil); errors.As(err, &reason) {
			return act.wrap(reason)
		}
		return act.wrap(fmt.Errorf("%w: no answer within %s: check the network and the endpoint", secret.ErrUnavailable, b.timeout))
	}
	return act.wrap(err)
}

// failure is a request that has failed, in our words.
type failure struct {
	error        // wraps a sentinel
	code  string // AWS's name for the error; "" if the answer was not AWS's
	// deletion: the secret is scheduled for deletion, or being deleted.
	deletion bool
}

func (f *failure) Unwrap() error { return f.error }

func fail(sentinel error, advice string, args ...any) error {
	return fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(advice, args...))
}

// refused returns the error of a login that was refused.
func refused(advice string, args ...any) error {
	return fmt.Errorf("%w: %w: %s", secret.ErrDenied, secret.ErrLogin, fmt.Sprintf(advice, args...))
}

func throttledText(wait time.Duration) string {
	if wait > 0 {
		return fmt.Sprintf("%s: wait %s, or ask AWS for a higher rate", secret.ErrThrottled, wait)
	}
	return fmt.Sprintf("%s: wait, or ask AWS for a higher rate", secret.ErrThrottled)
}

// is reports whether err is a failure with one of the codes.
func is(err error, codes ...string) bool {
	var f *failure
	if !errors.As(err, &f) {
		return false
	}
	for _, c := range codes {
		if f.code == c {
			return true
		}
	}
	return false
}

// deletionUnderWay reports whether err says that the secret is scheduled for deletion.
func deletionUnderWay(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.deletion
}

// failed maps the error of a request to the sentinels. It quotes nothing of an answer.
func failed(err error, b *AWSBackend) error {
	var (
		login *credentialsError
		other *notAWS
		api   smithy.APIError
		resp  *smithyhttp.ResponseError
	)
	switch {
	case errors.As(err, &login):
		return &failure{error: loginFailed(login)}
	case errors.As(err, &other):
		return &failure{error: fail(secret.ErrUnavailable, "the answer, with status %d, is not AWS's: check the endpoint and the proxies in front of it", other.status)}
	case errors.As(err, &api):
		status := 0
		if errors.As(err, &resp) {
			status = resp.HTTPStatusCode()
		}
		wait, _ := retryAfter(err)
		return classify(api.ErrorCode(), api.ErrorMessage(), status, wait)
	case errors.As(err, &resp):
		return &failure{error: fail(secret.ErrUnavailable, "the answer, with status %d, cannot be read: check the endpoint and the proxies in front of it", resp.HTTPStatusCode())}
	}
	return &failure{error: fail(secret.ErrUnavailable, "%s", reason(err, b.region))}
}

// The names that AWS has for an error, by what it means.
var (
	throttleCodes = newSet("ThrottlingException", "Throttling", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded",
		"RequestThrottled", "RequestThrottledException", "SlowDown", "BandwidthLimitExceeded", "PriorRequestNotComplete", "EC2ThrottledException")
	loginCodes = newSet("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "MissingAuthenticationToken",
		"MissingAuthenticationTokenException", "AuthFailure", "OptInRequired", "SubscriptionRequiredException", "AccountProblem")
	expiredCodes   = newSet("ExpiredTokenException", "ExpiredToken", "RequestExpired", "TokenRefreshRequired")
	signatureCodes = newSet("InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "IncompleteSignatureException",
		"RequestTimeTooSkewed", "InvalidSignature")
	deniedCodes = newSet("AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized", "UnauthorizedException")
	kmsCodes    = newSet("DecryptionFailure", "EncryptionFailure", "KMSAccessDeniedException", "KMSDisabledException",
		"KMSInvalidStateException", "KMSNotFoundException")
	invalidCodes = newSet("InvalidParameterException", "ValidationException", "MalformedPolicyDocumentException", "PreconditionNotMetException",
		"PublicPolicyException", "SerializationException", "UnknownOperationException")
)

func newSet(codes ...string) map[string]bool {
	set := map[string]bool{}
	for _, c := range codes {
		set[c] = true
	}
	return set
}

// classify maps AWS's own refusal. Of its text only the meaning is used, and only where
// the code has two.
func classify(code, text string, status int, wait time.Duration) *failure {
	f := &failure{code: code}
	switch {
	case throttleCodes[code], status == http.StatusTooManyRequests:
		f.error = secret.Throttled(throttledText(wait), wait)
	case code == "ResourceNotFoundException":
		f.error = fail(secret.ErrNotFound, "there is no secret of this name, or it has no current value: store it as plain text")
	case code == "InvalidRequestException" && (strings.Contains(text, "deletion") || strings.Contains(text, "deleted")):
		f.deletion = true
		f.error = fail(secret.ErrNotFound, "the secret is scheduled for deletion: restore it to use it again")
	case code == "InvalidRequestException":
		f.error = fail(secret.ErrInvalid, "AWS does not allow this for the secret as it is now: see whether another service manages it")
	case loginCodes[code]:
		f.error = refused("AWS does not know the credentials: check the access key or the role, and whether they were deleted")
	case expiredCodes[code]:
		f.error = refused("the credentials have expired: renew them, or let the broker get them from a role")
	case signatureCodes[code]:
		f.error = refused("AWS rejects the signature: check the secret access key, the clock of this machine and the region of the endpoint")
	case kmsCodes[code], deniedCodes[code] && strings.Contains(text, "KMS"), deniedCodes[code] && strings.Contains(text, "kms:"):
		f.error = fail(secret.ErrDenied, "the KMS key of the secret cannot be used: allow kms:Decrypt and kms:GenerateDataKey, and see that the key is enabled")
	case deniedCodes[code]:
		f.error = fail(secret.ErrDenied, "no policy allows it: let the AWS administrator attach the broker's policy, and check the policies of the secret, the organization and the VPC endpoint")
	case code == "ResourceExistsException":
		f.error = fail(secret.ErrUnavailable, "the secret is being changed by somebody else: try again")
	case code == "LimitExceededException":
		f.error = fail(secret.ErrInvalid, "a quota of Secrets Manager is reached (secrets of the account, versions, labels or tags of the secret): see Service Quotas")
	case invalidCodes[code]:
		f.error = fail(secret.ErrInvalid, "AWS rejects the request (%s): check the name, the KMS key and the tags", known(code))
	default:
		f.error = fail(secret.ErrUnavailable, "AWS answers with status %d (%s): see the AWS Health Dashboard", status, known(code))
	}
	return f
}

// known returns a code that reads like one of AWS's, so that nothing foreign is quoted.
func known(code string) string {
	for i := range len(code) {
		if c := code[i]; len(code) > 64 || !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return "an unknown error"
		}
	}
	if code == "" {
		return "no error code"
	}
	return code
}

// loginFailed maps the failure to get credentials.
func loginFailed(e *credentialsError) error {
	var (
		api  smithy.APIError
		resp interface{ HTTPStatusCode() int }
	)
	status := 0
	if errors.As(e.err, &resp) {
		status = resp.HTTPStatusCode()
	}
	if errors.As(e.err, &api) {
		switch code := api.ErrorCode(); {
		case throttleCodes[code], status == http.StatusTooManyRequests:
			wait, _ := retryAfter(e.err)
			return secret.Throttled(throttledText(wait), wait)
		case deniedCodes[code]:
			return refused("%s may not be used: check the role's trust policy, the external id and the right to sts:AssumeRole", e.what)
		case signatureCodes[code]:
			return refused("AWS rejects the signature of the request for %s: check the secret access key and the clock of this machine", e.what)
		case loginCodes[code], expiredCodes[code], status >= 400 && status < 500:
			return refused("AWS refuses %s (%s): check the access key, the profile or the role of this machine", e.what, known(code))
		}
		return fail(secret.ErrUnavailable, "%s cannot be had: AWS answers with status %d (%s)", e.what, status, known(api.ErrorCode()))
	}
	var (
		network net.Error
		foreign *smithy.DeserializationError
	)
	if status >= http.StatusInternalServerError || errors.As(e.err, &network) || errors.As(e.err, &foreign) {
		return fail(secret.ErrUnavailable, "%s cannot be had: AWS STS, or the metadata service of this machine, does not answer", e.what)
	}
	return refused("no source gives %s: check AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_WEB_IDENTITY_TOKEN_FILE or the role of this machine", e.what)
}

// retryAfter reads the wait that an answer asks for (RFC 9110 §10.2.3).
func retryAfter(err error) (time.Duration, bool) {
	var resp *smithyhttp.ResponseError
	if !errors.As(err, &resp) || resp.Response == nil || resp.Response.Response == nil {
		return 0, false
	}
	seconds, convErr := strconv.Atoi(resp.Response.Header.Get("Retry-After"))
	if convErr != nil || seconds <= 0 || seconds > 24*3600 {
		return 0, false
	}
	return time.Duration(seconds) * time.Second, true
}

// reason describes a network error in our words.
func reason(err error, region string) string {
	var (
		dns       *net.DNSError
		untrusted *tls.CertificateVerificationError
		notTLS    tls.RecordHeaderError
		timeout   net.Error
	)
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("the host %s does not resolve: check the region (%s), the endpoint and the name server", dns.Name, region)
	case errors.As(err, &untrusted):
		return fmt.Sprintf("the server's certificate is not trusted (%v): check AWS_CA_BUNDLE and the proxies in front of AWS", untrusted.Err)
	case errors.As(err, &notTLS), errors.Is(err, http.ErrSchemeMismatch):
		return "the server does not speak TLS: check the endpoint"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time: check the network and the endpoint"
	}
	return "the connection failed: check the network, the endpoint and the proxies in front of AWS"
}

package hashicorpvault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/nexus-broker/nexus-broker/secret"
)

// action is what an error message begins with: the operation and the place.
type action struct{ op, place string }

// fail returns the error for a person: what was done, where, which class of error,
// and what to do about it. It quotes nothing of an answer.
func (a action) fail(sentinel error, advice string, args ...any) error {
	return a.wrap(fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(advice, args...)))
}

func (a action) wrap(err error) error {
	return fmt.Errorf("%s: %s %s: %w", Name, a.op, a.place, err)
}

// fault maps a failed exchange to the sentinels: err if there was no answer, else a,
// which is not ok.
func fault(a *answer, r request, err error) error {
	var network errNetwork
	switch {
	case errors.As(err, &network):
		return fmt.Errorf("%w: %s", secret.ErrUnavailable, network.reason)
	case err != nil:
		return err
	case a.status == http.StatusTooManyRequests:
		return secret.Throttled(throttledText(a), a.retryAfter)
	case !a.fromVault:
		return fmt.Errorf("%w: the answer, with status %d, is not Vault's: check the address and the proxies in front of it",
			secret.ErrUnavailable, a.status)
	}
	advice, sentinel := classify(a, r)
	return fmt.Errorf("%w: %s", sentinel, advice)
}

func throttledText(a *answer) string {
	if a.retryAfter > 0 {
		return fmt.Sprintf("%s: wait %s, or raise the rate limit quota", secret.ErrThrottled, a.retryAfter)
	}
	return fmt.Sprintf("%s: wait, or raise the rate limit quota", secret.ErrThrottled)
}

// classify gives the advice and the sentinel for an answer that is Vault's own.
func classify(a *answer, r request) (advice string, sentinel error) {
	switch {
	case a.says("Vault is sealed"):
		return "Vault is sealed: unseal it", secret.ErrUnavailable
	case a.says("standby"), a.status == 473:
		return "the node is a standby and does not forward: use the address of the cluster", secret.ErrUnavailable
	case a.says("DR secondary"), a.status == 472:
		return "the node is a disaster recovery secondary: use the address of the primary", secret.ErrUnavailable
	case a.says("from non-versioned to versioned"):
		return "the KV engine is being upgraded to version 2: wait", secret.ErrUnavailable
	case a.denied():
		return fmt.Sprintf("no policy of the token allows to %s %s: ask the Vault administrator for it", capability(r.method), r.path), secret.ErrDenied
	case a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed:
		return fmt.Sprintf("there is no KV engine of the expected version at %s: check the mount, the namespace and the KV version", r.path), secret.ErrUnavailable
	case a.status == http.StatusPreconditionFailed:
		return "the node has not caught up with the last write: wait", secret.ErrUnavailable
	case a.status == http.StatusBadRequest, a.status == http.StatusRequestEntityTooLarge:
		return fmt.Sprintf("Vault rejects the request to %s %s: see its log", capability(r.method), r.path), secret.ErrInvalid
	default:
		return fmt.Sprintf("Vault answers with status %d: see its log", a.status), secret.ErrUnavailable
	}
}

// capability names what a policy calls the method.
func capability(method string) string {
	switch method {
	case http.MethodGet:
		return "read"
	case http.MethodDelete:
		return "delete"
	default:
		return "create or update"
	}
}

// reason describes a network error in our words.
func reason(err error) string {
	var (
		dns       *net.DNSError
		untrusted *tls.CertificateVerificationError
		notTLS    tls.RecordHeaderError
		operation *net.OpError
		tooLarge  *http.MaxBytesError
		timeout   net.Error
	)
	switch {
	case errors.Is(err, errRedirect):
		return errRedirect.Error()
	case errors.As(err, &tooLarge):
		return fmt.Sprintf("the answer is larger than %d bytes and can't be Vault's: check the address", maxBody)
	case errors.As(err, &dns):
		return fmt.Sprintf("the host %s does not resolve: check the address and the name server", dns.Name)
	case errors.As(err, &untrusted):
		return fmt.Sprintf("the server's certificate is not trusted (%v): check the CA and the server name", untrusted.Err)
	case errors.As(err, &notTLS), errors.Is(err, http.ErrSchemeMismatch):
		return "the server does not speak TLS: the address should begin with http://, or is another server's"
	case errors.As(err, &operation) && operation.Op == "remote error": // a TLS alert
		return fmt.Sprintf("the server refuses the TLS connection (%v): check the client certificate", operation.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused: check the address, and that Vault runs"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time: check the network, and that Vault is not overloaded"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was cut: check Vault, the proxies in front of it, and the client certificate if it wants one"
	default:
		return "the connection failed: check the address, that it is Vault's, and the client certificate if it wants one"
	}
}

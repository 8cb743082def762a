package apiclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"unicode"
)

// Every error of a call is an *Error that wraps exactly one of these.
var (
	// ErrUnreachable: no answer came, or not a whole one.
	ErrUnreachable = errors.New("the broker cannot be reached")
	// ErrNotBroker: what answered is not a broker.
	ErrNotBroker = errors.New("the answer is not a broker's")
	// ErrKey: the broker does not know the API key, or wants one.
	ErrKey = errors.New("the API key is not accepted")
	// ErrForbidden: the key's role or the caller's address may not do this.
	ErrForbidden = errors.New("not allowed")
	// ErrNotFound: there is no such provider.
	ErrNotFound = errors.New("not found")
	// ErrRefused: the broker refuses what was asked for.
	ErrRefused = errors.New("refused")
	// ErrUnavailable: the broker, its database or its secret backend cannot do it now.
	ErrUnavailable = errors.New("not available now")
)

var errTooLarge = errors.New("the answer is too large")

const notBroker = "what answers there is not a nexus-broker: check BROKER_BASE_URL"

// Error is a call that failed. It holds nothing of an answer but a broker's own
// status, code and message.
type Error struct {
	Op      string // "GET /providers"
	Status  int    // 0: there was no answer
	Code    string // the broker's; "" if it gave none
	Message string // for a person, one line
	Err     error  // one of the sentinels
	cause   error  // a context's error, or nil
}

// Error implements error.
func (e *Error) Error() string {
	switch {
	case e.Code != "":
		return fmt.Sprintf("%s: %d %s: %s", e.Op, e.Status, e.Code, e.Message)
	case e.Status != 0:
		return fmt.Sprintf("%s: status %d: %s", e.Op, e.Status, e.Message)
	}
	return fmt.Sprintf("%s: %s", e.Op, e.Message)
}

// Unwrap returns the sentinel, and the context's error if that ended the call.
func (e *Error) Unwrap() []error {
	if e.cause != nil {
		return []error{e.Err, e.cause}
	}
	return []error{e.Err}
}

var errorCode = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// failed turns an answer that is not the wanted one into an error.
func (c *Client) failed(method, path string, resp *http.Response, answer []byte) error {
	e := &Error{Op: method + " " + path, Status: resp.StatusCode}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		e.Err = ErrNotBroker
		e.Message = "the answer leads elsewhere, and the API key does not follow: BROKER_BASE_URL has to be the broker's own address (https?)"
		return e
	}
	var body struct{ Error, Message string }
	if json.Unmarshal(answer, &body) != nil || !errorCode.MatchString(body.Error) || body.Message == "" {
		e.Err, e.Message = ErrNotBroker, notBroker
		if resp.StatusCode >= 500 {
			e.Err, e.Message = ErrUnavailable, "something in front of the broker answers in its place"
		}
		return e
	}
	e.Code, e.Message = body.Error, c.printable(body.Message)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		e.Err, e.Message = ErrKey, "the broker wants an API key: set API_KEY or API_KEY_FILE"
	case e.Code == "invalid_api_key":
		e.Err, e.Message = ErrKey, "the broker does not know this API key: check API_KEY or API_KEY_FILE"
	case e.Code == "forbidden":
		e.Err, e.Message = ErrForbidden, e.Message+"; providers are managed with a key whose role is admin"
	case resp.StatusCode == http.StatusForbidden:
		e.Err = ErrForbidden
	case resp.StatusCode == http.StatusNotFound:
		e.Err = ErrNotFound
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		e.Err = ErrUnavailable
	default:
		e.Err = ErrRefused
	}
	return e
}

// printable returns a broker's message as one line that a terminal shows and that
// does not hold the API key, whatever has sent it.
func (c *Client) printable(message string) string {
	const most = 1000 // runes
	if key := c.key.Reveal(); key != "" {
		message = strings.ReplaceAll(message, key, "[redacted]")
	}
	line := []rune(strings.Join(strings.FieldsFunc(message, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }), " "))
	return string(line[:min(len(line), most)])
}

// notReached turns a failure to get an answer into an error that says what to do. The
// causes' own texts may quote what came over the connection.
func (c *Client) notReached(ctx context.Context, method, path string, err error) error {
	e := &Error{Op: method + " " + path, Err: ErrUnreachable, Message: c.reason(err)}
	if ended := ctx.Err(); ended != nil {
		e.Message, e.cause = "given up", ended
	}
	return e
}

func (c *Client) reason(err error) string {
	var (
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		name        *net.DNSError
		timeout     net.Error
		number      syscall.Errno
	)
	switch {
	case errors.As(err, &certificate):
		return c.distrust(certificate.Err)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "what answers at " + c.base.Host + " does not speak TLS: is it http:// instead of https://?"
	case errors.As(err, &name):
		return "the host " + c.base.Hostname() + " cannot be found"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer from " + c.base.Host + " in time"
	case errors.As(err, &number):
		return c.base.Host + ": " + number.Error()
	case errors.Is(err, errTooLarge):
		return "the answer of " + c.base.Host + " is too large"
	}
	return "the connection to " + c.base.Host + " broke off, or what answers does not speak HTTP"
}

// distrust says why the broker's certificate is not accepted.
func (c *Client) distrust(err error) string {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	start := "the TLS certificate of " + c.base.Host + " "
	switch {
	case errors.As(err, &authority):
		return start + "is signed by an authority that this machine does not trust: SSL_CERT_FILE can name a PEM file with that authority"
	case errors.As(err, &host):
		return start + "is not for this host name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return start + "has expired or is not valid yet"
	}
	return start + "is not valid"
}

package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// asError returns err as an *Error: itself, or what ended the waiting for it.
func asError(op string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return networkError(op, 0, err)
}

// networkError says why a request got no complete answer. Errors of package
// net/http quote the URL, and where an answer was malformed the answer: only what
// is known to hold neither is passed on.
func networkError(op string, status int, err error) *Error {
	e := &Error{Op: op, Status: status}
	var (
		address *addressError
		dns     *net.DNSError
		conn    *net.OpError
		timeout net.Error
		errno   syscall.Errno
	)
	switch {
	case errors.As(err, &address):
		e.Err = address
	case errors.Is(err, ErrAddressNotAllowed):
		e.Err = ErrAddressNotAllowed
	case errors.Is(err, context.Canceled):
		e.Err = context.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.Reason, e.Err = "no complete answer in time", context.DeadlineExceeded
	case errors.As(err, &dns):
		e.Err = dns
	case certificateReason(err) != "":
		e.Reason = certificateReason(err)
	case errors.As(err, &conn) && errors.As(conn.Err, &errno):
		e.Err = conn // operation, addresses and errno
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Reason, e.Err = "the connection was closed", io.ErrUnexpectedEOF
	default:
		e.Reason = "the connection or the TLS handshake broke, or the answer is not HTTP"
	}
	return e
}

// certificateReason says why a TLS handshake failed, "" if it did not.
func certificateReason(err error) string {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     *net.OpError
	)
	switch {
	case errors.As(err, &authority):
		return "the TLS certificate is signed by an unknown authority"
	case errors.As(err, &hostname):
		return "the TLS certificate is for another host"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the TLS certificate has expired or is not yet valid"
	case errors.As(err, &invalid), errors.As(err, &verify):
		return "the TLS certificate is not valid"
	case errors.As(err, &record), errors.As(err, &alert) && strings.HasSuffix(alert.Op, " error"):
		// crypto/tls names the operations of its alerts "remote error" and "local error".
		return "the TLS handshake failed"
	}
	return ""
}

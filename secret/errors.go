package secret

import (
	"errors"
	"time"
)

// The errors of a backend, tested with errors.Is.
var (
	// ErrNotFound: the key holds no value.
	ErrNotFound = errors.New("secret not found")
	// ErrDenied: authenticated but not allowed, or the login was refused.
	ErrDenied = errors.New("access to the secret denied")
	// ErrUnavailable: down, sealed, standby without forwarding, network failure,
	// 5xx, or an answer that is not the store's (a proxy's HTML page).
	ErrUnavailable = errors.New("secret backend unavailable")
	// ErrThrottled: rate limited. RetryAfter reads the wait that the store asked for.
	ErrThrottled = errors.New("secret backend throttled the request")
	// ErrInvalid: the key or value cannot be stored, or what is stored cannot be read
	// as a credential.
	ErrInvalid = errors.New("invalid secret")

	// ErrExists is returned by OwnedBackend.Create only: the key holds a value already.
	ErrExists = errors.New("secret exists already")
	// ErrChanged is returned by OwnedBackend.Replace only: what the key holds is not, or
	// not any more, the version that was to be replaced.
	ErrChanged = errors.New("secret is no longer the one that was read")
	// ErrLogin qualifies an ErrDenied: it was the login that was refused, or the
	// token is not valid; no other key will fare better.
	ErrLogin = errors.New("login refused")
)

// Throttled returns an error with message msg that wraps ErrThrottled and carries
// the wait that the store asked for; zero if it named none.
func Throttled(msg string, wait time.Duration) error {
	return &throttledError{msg: msg, wait: wait}
}

// RetryAfter returns the wait that the store asked for, if err carries one.
func RetryAfter(err error) (wait time.Duration, ok bool) {
	var t *throttledError
	if errors.As(err, &t) && t.wait > 0 {
		return t.wait, true
	}
	return 0, false
}

type throttledError struct {
	msg  string
	wait time.Duration
}

func (e *throttledError) Error() string { return e.msg }
func (e *throttledError) Unwrap() error { return ErrThrottled }

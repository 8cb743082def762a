package credentials

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The errors of a Service beside the sentinels of package secret, tested with
// errors.Is.
var (
	// ErrReadOnly: the broker is configured not to write credentials.
	ErrReadOnly = errors.New("the broker does not write credentials (SECRET_READ_ONLY=true)")
	// ErrNotConfigured: the row names a backend that this broker is not configured for.
	// It comes with secret.ErrDenied.
	ErrNotConfigured = errors.New("the secret backend is not configured")
	// ErrReferenceNotAllowed: the reference lies in no place that this broker's operator
	// allows, or its backend reads none. Nothing was asked. It comes with
	// secret.ErrDenied.
	ErrReferenceNotAllowed = errors.New("the reference is not allowed")
	// ErrChanged: the stored pair was not, or not any more, the one that Replace was told
	// to change. Unless ErrTorn comes with it, Replace has left no value of its own.
	// Read again and decide anew. It comes with none of the sentinels of package secret.
	ErrChanged = errors.New("the stored credentials are no longer the ones that were read")
	// ErrTorn qualifies an error of Replace: the old pair could not be put back, so
	// that the two values may not belong together.
	ErrTorn = errors.New("the old credentials could not be put back")
	// ErrLeftBehind qualifies an error of Create: a value that it had written, or may
	// have written, could not be removed again.
	ErrLeftBehind = errors.New("a value may have been left behind")
	// ErrNotAudited: the audit events could not be made durable, so that nothing was
	// handed out. It is no failure of the secret backend.
	ErrNotAudited = errors.New("the use of the credentials could not be audited")
)

// MissingError reports credentials that are not where they are expected. It wraps
// secret.ErrNotFound.
type MissingError struct {
	Backend string
	Paths   []string // the places that hold no value, as an administrator names them
}

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%s holds no client credentials at %s: put them there", e.Backend, strings.Join(e.Paths, " and "))
}

// Unwrap returns secret.ErrNotFound.
func (e *MissingError) Unwrap() error { return secret.ErrNotFound }

// ExistsError reports a place that already holds a value which Create must not
// overwrite. It wraps secret.ErrExists.
type ExistsError struct {
	Backend string
	Path    string // as an administrator names it
}

// Error implements error.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s already holds a value at %s that the broker did not write", e.Backend, e.Path)
}

// Unwrap returns secret.ErrExists.
func (e *ExistsError) Unwrap() error { return secret.ErrExists }

// NotOursError reports values that Erase left in place, because nothing proves that
// the broker wrote them. All others were deleted.
type NotOursError struct {
	Backend string
	Paths   []string // as an administrator names them
}

// Error implements error.
func (e *NotOursError) Error() string {
	return fmt.Sprintf("left in %s at %s: nothing proves that the broker wrote it", e.Backend, strings.Join(e.Paths, " and "))
}

// isOutage reports whether err is a failure that a retry may cure, the only kind
// that an expired value may bridge.
func isOutage(err error) bool {
	return errors.Is(err, secret.ErrUnavailable) || errors.Is(err, secret.ErrThrottled) ||
		errors.Is(err, context.DeadlineExceeded)
}

package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/secret"
)

// retryAfterOutage is what a caller is told to wait when the store named nothing.
const retryAfterOutage = 5 * time.Second

// secretError turns a failure to reach a provider's credentials into what a caller
// sees: which backend, which path, and whose turn it is. missing is the code for a
// value that is not there.
func (s *Service) secretError(ref credentials.Ref, missing Code, err error) *Error {
	reason, badReference := secret.ReferenceReason(err)
	where := fmt.Sprintf("%s at %s", ref.Backend, s.creds.Locate(ref))
	switch {
	case errors.Is(err, credentials.ErrNotAudited): // the database's fault
		return &Error{Code: CodeDatabaseUnavailable, Err: err, Message: "the use of the client credentials could not be recorded in the broker's database; try again"}
	case errors.Is(err, credentials.ErrNotConfigured):
		return &Error{Code: CodeSecretBackendDenied, Err: err, Message: fmt.Sprintf(
			"the credentials are kept in %s at %s, which this broker is not configured for; its operator must configure that backend (the broker's log says what is missing) or register the provider anew",
			ref.Backend, ref.Where())}
	case errors.Is(err, credentials.ErrReferenceNotAllowed):
		return &Error{Code: CodeSecretBackendDenied, Err: err, Message: fmt.Sprintf(
			"the reference to the credentials, %s, is not allowed any more; the broker's operator must allow it (SECRET_REF_ALLOWED_PREFIXES)", where)}
	case errors.Is(err, secret.ErrNotFound):
		paths := s.creds.Paths(ref)
		var m *credentials.MissingError
		if errors.As(err, &m) {
			paths = m.Paths
		}
		return &Error{Code: missing, Err: err, Details: map[string]any{"paths": paths},
			Message: fmt.Sprintf("no client credentials in %s: put them at %s", ref.Backend, joinPaths(paths))}
	case errors.Is(err, secret.ErrDenied):
		return &Error{Code: CodeSecretBackendDenied, Err: err, Message: fmt.Sprintf(
			"the broker may not use %s; the administrator of the secret backend must allow it", where)}
	case badReference && missing == CodeCredentialsNotFoundAtRegistration:
		return errBadReference(err)
	case badReference:
		return &Error{Code: CodeCredentialsInvalid, Err: err, Message: fmt.Sprintf(
			"the reference to the credentials, %s, is none that this secret backend can have (%s); the administrator of the provider must correct it",
			where, reason)}
	case errors.Is(err, seal.ErrOpen):
		return &Error{Code: CodeCredentialsInvalid, Err: err, Message: fmt.Sprintf(
			"what is stored in %s does not open with this broker's ENCRYPTION_KEY; its operator must add the key that it was sealed under, or set the credentials again", where)}
	case errors.Is(err, secret.ErrInvalid):
		return &Error{Code: CodeCredentialsInvalid, Err: err, Message: fmt.Sprintf(
			"what is stored in %s cannot be read as client credentials; the administrator of the provider must correct it", where)}
	case errors.Is(err, secret.ErrUnavailable), errors.Is(err, secret.ErrThrottled),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		wait, ok := secret.RetryAfter(err)
		if !ok {
			wait = retryAfterOutage
		}
		return &Error{Code: CodeSecretBackendUnavailable, Err: err, RetryAfter: wait, Message: fmt.Sprintf(
			"%s does not answer; try again", where)}
	}
	return &Error{Code: CodeInternal, Err: err, Message: "the client credentials could not be used"}
}

// errNotThereYet is for a rename of a provider whose credentials somebody else keeps.
func (s *Service) errNotThereYet(now, wanted credentials.Ref) *Error {
	return &Error{Code: CodeCredentialsExternal, Message: fmt.Sprintf(
		"the credentials in %s at %s are not the broker's to move, and cannot be read at the new name's path yet: put them at %s first",
		now.Backend, s.creds.Locate(now), joinPaths(s.creds.Paths(wanted)))}
}

func joinPaths(paths []string) string {
	switch len(paths) {
	case 0:
		return "the provider's path"
	case 1:
		return paths[0]
	}
	return paths[0] + " and " + paths[1]
}

package broker

import (
	"errors"
	"time"
)

// Code names a failure in the HTTP API. package httpapi maps each to a status.
type Code string

// The codes that the flows answer.
const (
	CodeMissingProfile         Code = "missing_profile"
	CodeInvalidProviderName    Code = "invalid_provider_name"
	CodeMissingClientID        Code = "missing_client_id"
	CodeMissingClientSecret    Code = "missing_client_secret"
	CodeMissingAuthURL         Code = "missing_auth_url"
	CodeMissingTokenURL        Code = "missing_token_url"
	CodeProviderCreationFailed Code = "provider_creation_failed"
	CodeCredentialsRefDenied   Code = "credentials_ref_not_allowed"
	CodeProviderNotFound       Code = "provider_not_found"
	CodeProviderBusy           Code = "provider_busy"

	CodeCredentialsNotFoundAtRegistration Code = "credentials_not_found" // 409
	CodeCredentialsExist                  Code = "credentials_exist"
	CodeCredentialsExternal               Code = "credentials_external"

	CodeSecretBackendUnavailable Code = "secret_backend_unavailable"
	CodeSecretBackendDenied      Code = "secret_backend_denied"
	CodeCredentialsInvalid       Code = "credentials_invalid"
	CodeCredentialsRejected      Code = "provider_credentials_rejected"

	CodeMissingFields       Code = "missing_fields"
	CodeReturnURLNotAllowed Code = "return_url_not_allowed"
	CodeUnsupportedAuthType Code = "unsupported_auth_type"
	CodeOAuthError          Code = "oauth_error"
	CodeMissingParams       Code = "missing_params"
	CodeInvalidState        Code = "invalid_state"
	CodeConnectionNotFound  Code = "connection_not_found"
	CodeTokenExchangeFailed Code = "token_exchange_failed"
	CodeInvalidIDToken      Code = "invalid_id_token"
	CodeSchemaNotFound      Code = "schema_not_found"
	CodeInvalidCredentials  Code = "invalid_credentials"
	CodeTokenNotFound       Code = "token_not_found"
	CodeConnectionNotActive Code = "connection_not_active"
	CodeConnectionRevoked   Code = "connection_revoked"
	CodeAttentionRequired   Code = "attention_required"
	CodeStaticToken         Code = "static_token"
	CodeNoRefreshToken      Code = "no_refresh_token"
	CodeUpstreamError       Code = "upstream_error"
	CodeMissingWorkspaceID  Code = "missing_workspace_id"
	CodeDatabaseUnavailable Code = "database_unavailable"
	CodeShuttingDown        Code = "shutting_down"
	CodeInternal            Code = "internal_error"
)

// CodeCredentialsNotFoundAtFlow is answered when a flow finds no value where the
// credentials should be. On the wire it reads "credentials_not_found" like the
// registration's, with another status: see [Error.WireCode].
const CodeCredentialsNotFoundAtFlow Code = "credentials_not_found (flow)"

// Error is a failure as the caller shall see it. Message is for a person and never
// holds a credential, a token or anything that a provider sent.
type Error struct {
	Code       Code
	Message    string
	Details    any           // optional, encoded as "details"
	RetryAfter time.Duration // zero: not said
	// ReturnURL is where a browser shall be sent back to, "" if nowhere: the redirect
	// of a failed callback, complete with its query.
	ReturnURL string
	Err       error // the cause, for the log; may be nil
}

// Error implements error. The text is for the log.
func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Code) + ": " + e.Message
	}
	return string(e.Code) + ": " + e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// WireCode returns the code as the HTTP API writes it.
func (e *Error) WireCode() string {
	if e.Code == CodeCredentialsNotFoundAtFlow {
		return string(CodeCredentialsNotFoundAtRegistration)
	}
	return string(e.Code)
}

// CodeOf returns err's code, CodeInternal if err is not an *Error.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

func fail(code Code, message string) *Error { return &Error{Code: code, Message: message} }

package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// The codes that are this package's own.
const (
	codeNotFound            broker.Code = "not_found"
	codeMethodNotAllowed    broker.Code = "method_not_allowed"
	codeBodyTooLarge        broker.Code = "body_too_large"
	codeRequestTimeout      broker.Code = "request_timeout"
	codeInvalidJSON         broker.Code = "invalid_json"
	codeInvalidForm         broker.Code = "invalid_form"
	codeInvalidMinTTL       broker.Code = "invalid_min_ttl"
	codeInvalidProviderID   broker.Code = "invalid_provider_id"
	codeInvalidConnectionID broker.Code = "invalid_connection_id"
	codeInvalidSince        broker.Code = "invalid_since"
	codeInvalidUntil        broker.Code = "invalid_until"
	codeInvalidAfter        broker.Code = "invalid_after"
	codeInvalidLimit        broker.Code = "invalid_limit"
	codeMissingAPIKey       broker.Code = "missing_api_key"
	codeInvalidAPIKey       broker.Code = "invalid_api_key"
	codeAccessDenied        broker.Code = "access_denied"
	codeForbidden           broker.Code = "forbidden"
	codeRateLimited         broker.Code = "rate_limited"
)

// statuses is the one table from error code to status. A code that is not in it is
// answered as an internal error.
var statuses = map[broker.Code]int{
	codeNotFound:            http.StatusNotFound,
	codeMethodNotAllowed:    http.StatusMethodNotAllowed,
	codeBodyTooLarge:        http.StatusRequestEntityTooLarge,
	codeRequestTimeout:      http.StatusRequestTimeout,
	codeInvalidJSON:         http.StatusBadRequest,
	codeInvalidForm:         http.StatusBadRequest,
	codeInvalidMinTTL:       http.StatusBadRequest,
	codeInvalidProviderID:   http.StatusBadRequest,
	codeInvalidConnectionID: http.StatusBadRequest,
	codeInvalidSince:        http.StatusBadRequest,
	codeInvalidUntil:        http.StatusBadRequest,
	codeInvalidAfter:        http.StatusBadRequest,
	codeInvalidLimit:        http.StatusBadRequest,
	codeMissingAPIKey:       http.StatusUnauthorized,
	codeInvalidAPIKey:       http.StatusForbidden,
	codeAccessDenied:        http.StatusForbidden,
	codeForbidden:           http.StatusForbidden,
	codeRateLimited:         http.StatusTooManyRequests,

	broker.CodeMissingProfile:         http.StatusBadRequest,
	broker.CodeInvalidProviderName:    http.StatusBadRequest,
	broker.CodeMissingClientID:        http.StatusBadRequest,
	broker.CodeMissingClientSecret:    http.StatusBadRequest,
	broker.CodeMissingAuthURL:         http.StatusBadRequest,
	broker.CodeMissingTokenURL:        http.StatusBadRequest,
	broker.CodeProviderCreationFailed: http.StatusBadRequest,
	broker.CodeCredentialsRefDenied:   http.StatusBadRequest,
	broker.CodeProviderNotFound:       http.StatusNotFound,
	broker.CodeProviderBusy:           http.StatusConflict,

	broker.CodeCredentialsNotFoundAtRegistration: http.StatusConflict,
	broker.CodeCredentialsNotFoundAtFlow:         http.StatusBadGateway,
	broker.CodeCredentialsExist:                  http.StatusConflict,
	broker.CodeCredentialsExternal:               http.StatusConflict,

	broker.CodeSecretBackendUnavailable: http.StatusServiceUnavailable,
	broker.CodeSecretBackendDenied:      http.StatusBadGateway,
	broker.CodeCredentialsInvalid:       http.StatusBadGateway,
	broker.CodeCredentialsRejected:      http.StatusBadGateway,

	broker.CodeMissingFields:       http.StatusBadRequest,
	broker.CodeReturnURLNotAllowed: http.StatusBadRequest,
	broker.CodeUnsupportedAuthType: http.StatusBadRequest,
	broker.CodeOAuthError:          http.StatusBadRequest,
	broker.CodeMissingParams:       http.StatusBadRequest,
	broker.CodeInvalidState:        http.StatusBadRequest,
	broker.CodeConnectionNotFound:  http.StatusNotFound,
	broker.CodeTokenExchangeFailed: http.StatusInternalServerError,
	broker.CodeInvalidIDToken:      http.StatusUnauthorized,
	broker.CodeSchemaNotFound:      http.StatusNotFound,
	broker.CodeInvalidCredentials:  http.StatusBadRequest,
	broker.CodeTokenNotFound:       http.StatusNotFound,
	broker.CodeConnectionNotActive: http.StatusForbidden,
	broker.CodeConnectionRevoked:   http.StatusGone,
	broker.CodeAttentionRequired:   http.StatusConflict,
	broker.CodeStaticToken:         http.StatusBadRequest,
	broker.CodeNoRefreshToken:      http.StatusBadRequest,
	broker.CodeUpstreamError:       http.StatusBadGateway,
	broker.CodeMissingWorkspaceID:  http.StatusBadRequest,
	broker.CodeDatabaseUnavailable: http.StatusServiceUnavailable,
	broker.CodeShuttingDown:        http.StatusServiceUnavailable,
	broker.CodeInternal:            http.StatusInternalServerError,
}

// failure returns an error that is answered with code and message.
func failure(code broker.Code, message string) error {
	return &broker.Error{Code: code, Message: message}
}

func errBodyTooLarge() error {
	return failure(codeBodyTooLarge, "the request's body is larger than 1 MiB")
}

// errorBody is how every failure looks.
type errorBody struct {
	Error   string `json:"error"`
	Message string `json:"message"`
	Detail  string `json:"detail,omitempty"` // of attention_required, as it has always been
	Details any    `json:"details,omitempty"`
}

// fail answers err: as a page where a person is looking, as JSON everywhere else.
func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, status := describe(err)
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		callFrom(r.Context()).gone = true // most likely nobody reads the answer, and nothing is wrong
	} else {
		a.logFailure(r, e, status, err)
	}
	a.answerFailure(w, r, e, status)
}

func (a *api) answerFailure(w http.ResponseWriter, r *http.Request, e *broker.Error, status int) {
	c := callFrom(r.Context())
	c.code = e.WireCode()
	if wait := retryAfter(e, status); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(wait))
	}
	if c.pages {
		w.Header().Add("Vary", "Accept")
		if wantsPage(r) {
			a.failPage(w, r, e, status)
			return
		}
	}
	body := errorBody{Error: e.WireCode(), Message: e.Message, Details: e.Details}
	if e.Code == broker.CodeAttentionRequired {
		body.Detail = e.Message
	}
	if err := writeJSON(w, status, body); err != nil {
		a.Logger.ErrorContext(r.Context(), "an error's details cannot be encoded", "request_id", c.id, "code", e.Code)
		_ = writeJSON(w, status, errorBody{Error: body.Error, Message: body.Message, Detail: body.Detail})
	}
}

// describe returns err as the caller shall see it, and its status.
func describe(err error) (*broker.Error, int) {
	var e *broker.Error
	known := errors.As(err, &e)
	if (!known || e.Code == broker.CodeInternal) && errors.Is(err, broker.ErrDatabaseDown) {
		down := databaseUnavailable(err)
		if known {
			down.ReturnURL = e.ReturnURL
		}
		return down, statuses[down.Code]
	}
	if !known {
		return internalError(), http.StatusInternalServerError
	}
	status, ok := statuses[e.Code]
	if !ok {
		return internalError(), http.StatusInternalServerError
	}
	return e, status
}

// databaseUnavailable tells a caller that the same request may succeed later.
func databaseUnavailable(err error) *broker.Error {
	message := "the broker's database does not answer; try again"
	if errors.Is(err, broker.ErrReadOnly) {
		message = "the broker's database is read-only; try again when its operator has mended that"
	}
	return &broker.Error{Code: broker.CodeDatabaseUnavailable, Message: message}
}

func internalError() *broker.Error {
	return &broker.Error{
		Code:    broker.CodeInternal,
		Message: "something went wrong in the broker; its log has the cause under this answer's X-Request-Id",
	}
}

// retryAfter returns the seconds for the Retry-After header, 0 for none. A 503 has
// it always.
func retryAfter(e *broker.Error, status int) int {
	const usual = 5 * time.Second
	wait := e.RetryAfter
	if wait <= 0 && status == http.StatusServiceUnavailable {
		wait = usual
	}
	return int((wait + time.Second - 1) / time.Second)
}

// logFailure writes one line for what an operator may have to act on: ours (500),
// and other systems' (502, 503). The rest is in the access log.
func (a *api) logFailure(r *http.Request, e *broker.Error, status int, err error) {
	level := slog.LevelWarn
	switch {
	case status < http.StatusInternalServerError:
		return
	case status == http.StatusInternalServerError:
		level = slog.LevelError
	}
	c := callFrom(r.Context())
	a.Logger.LogAttrs(r.Context(), level, "request failed", slog.String("request_id", c.id),
		slog.String("route", c.route), slog.String("code", e.WireCode()), slog.String("err", err.Error()))
}

// recover answers a panic with an internal error. If the answer has begun already,
// the connection is cut, so that half an answer cannot pass for a whole one.
func (a *api) recover(w *recorder, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	c := callFrom(r.Context())
	a.Logger.ErrorContext(r.Context(), "panic", "request_id", c.id, "route", c.route,
		"err", broker.PanicText(v), "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	a.answerFailure(w, r, internalError(), http.StatusInternalServerError)
}

package httpapi_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
)

// operation is one operation of the contract, with a request that reaches the domain.
type operation struct {
	*openapi3.Operation
	method, path, body string
}

// operations returns every operation of the contract.
func operations(t *testing.T) map[string]operation {
	t.Helper()
	c, err := openapitest.Load()
	require.NoError(t, err)
	bodies := map[string]string{
		"registerProvider": `{"profile":{"name":"google"}}`, "replaceProvider": `{"name":"google"}`,
		"patchProvider": `{}`, "beginConsent": `{"workspace_id":"w"}`, "capture": `{"state":"s","credentials":{}}`,
	}
	all := map[string]operation{}
	for path, item := range c.Document().Paths.Map() {
		path = strings.NewReplacer("{id}", someID, "{name}", "google").Replace(path)
		for method, op := range item.Operations() {
			all[op.OperationID] = operation{Operation: op, method: method, path: path, body: bodies[op.OperationID]}
		}
	}
	return all
}

// codes returns the error codes that the contract has for a status.
func (o operation) codes(status string) []string {
	response := o.Responses.Value(status)
	if response == nil {
		return nil
	}
	content := response.Value.Content.Get("application/json")
	if content == nil || content.Schema == nil {
		return nil
	}
	var codes []string
	for _, part := range content.Schema.Value.AllOf {
		property := part.Value.Properties["error"]
		if property == nil {
			continue
		}
		for _, v := range append(slices.Clone(property.Value.Enum), property.Value.Const) {
			if s, ok := v.(string); ok {
				codes = append(codes, s)
			}
		}
	}
	return codes
}

// domainCodes returns the codes that package broker declares.
func domainCodes(t *testing.T) []broker.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "broker", "errors.go"), nil, 0)
	require.NoError(t, err)
	var codes []broker.Code
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != "Code" {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		codes = append(codes, broker.Code(text))
		return true
	})
	require.Greater(t, len(codes), 35)
	return codes
}

// Every code that the domain can answer has a status of its own: none ends up as an
// internal error because somebody forgot the table.
func TestEveryCodeOfTheDomainHasAStatus(t *testing.T) {
	domain := &stub{}
	// Without the contract's check: no operation answers all of these.
	api := bare(t, httpapi.Options{Broker: domain})
	for _, code := range domainCodes(t) {
		e := &broker.Error{Code: code, Message: "a message"}
		domain.err = fmt.Errorf("on the way: %w", e)
		answer := api("GET", "/connections/"+someID+"/token")
		require.Equal(t, e.WireCode(), answer.code())
		require.NotContains(t, answer.body, "on the way")
		if code != broker.CodeInternal && code != broker.CodeTokenExchangeFailed {
			require.NotEqual(t, http.StatusInternalServerError, answer.StatusCode, code)
		}
	}
}

// Every error that the contract has for an operation is answered with the status
// and in the form that the contract says. The harness checks the form.
func TestErrorsOfTheContract(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	answered := 0
	for id, op := range operations(t) {
		if slices.Contains([]string{"health", "ready", "metrics", "openAPI"}, id) {
			continue // they ask nothing that could fail
		}
		for status := range op.Responses.Map() {
			want, err := strconv.Atoi(status)
			require.NoError(t, err)
			for _, code := range op.codes(status) {
				if !slices.Contains(domainCodes(t), broker.Code(code)) {
					continue // refused before the domain; other tests
				}
				e := &broker.Error{Code: broker.Code(code), Message: "a message", Details: map[string]any{"paths": []string{"a"}}}
				if code == "credentials_not_found" && want == http.StatusBadGateway {
					e.Code = broker.CodeCredentialsNotFoundAtFlow
				}
				domain.err = e
				c.do(op.method, op.path, op.body).requireError(t, want, code)
				answered++
			}
		}
	}
	require.Greater(t, answered, 80)
}

func TestUnknownErrorsAreInternal(t *testing.T) {
	for name, err := range map[string]error{
		"no code":       errors.New("dial tcp 10.0.0.1: refused by s3cret"),
		"unknown code":  &broker.Error{Code: "brand_new", Message: "s3cret"},
		"internal code": &broker.Error{Code: broker.CodeInternal, Message: "the database does not answer", Err: errors.New("s3cret")},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, httpapi.Options{Broker: &stub{err: err}})
			answer := c.get("/providers")
			answer.requireError(t, 500, "internal_error")
			require.NotContains(t, answer.body, "s3cret")
			lines := c.log.lines(t, "request failed")
			require.Len(t, lines, 1, "logged once")
			require.Equal(t, answer.Header.Get("X-Request-Id"), lines[0]["request_id"])
			require.Equal(t, "ERROR", lines[0]["level"])
			require.Equal(t, err.Error(), lines[0]["err"])
		})
	}
}

// A database that is down is no fault of the request, and passes.
func TestDatabaseThatIsDown(t *testing.T) {
	for name, err := range map[string]error{
		"as the store says it": fmt.Errorf("reading s3cret: %w", broker.ErrDatabaseDown),
		"on the way":           &broker.Error{Code: broker.CodeInternal, Message: "could not be recorded", Err: broker.ErrDatabaseDown},
		"read-only":            fmt.Errorf("s3cret: %w", broker.ErrReadOnly),
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, httpapi.Options{Broker: &stub{err: err}})
			for _, path := range []string{"/providers", "/connections/" + someID + "/token", "/audit"} {
				answer := c.get(path)
				answer.requireError(t, 503, "database_unavailable")
				require.Equal(t, "5", answer.Header.Get("Retry-After"))
				require.NotContains(t, answer.body, "s3cret")
			}
			require.Len(t, c.log.lines(t, "request failed"), 3)
		})
	}
	// Where it is a backend that failed because of it, the backend is named, as everywhere.
	c := newClient(t, httpapi.Options{Broker: &stub{err: &broker.Error{
		Code: broker.CodeSecretBackendUnavailable, Message: "internal does not answer", Err: broker.ErrDatabaseDown}}})
	c.get("/providers/"+someID).requireError(t, 503, "secret_backend_unavailable")
}

func TestPanicsAreAnswered(t *testing.T) {
	for name, value := range map[string]any{
		"an error":  errors.New("s3cret"),
		"a runtime": func() (v any) { defer func() { v = recover() }(); _ = []int{}[len(name())]; return nil }(),
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, httpapi.Options{Broker: &stub{panic: value}})
			c.get("/providers").requireError(t, 500, "internal_error")
			c.get("/health")
			lines := c.log.lines(t, "panic")
			require.Len(t, lines, 1)
			require.Contains(t, lines[0]["stack"], "stub_test.go")
			require.NotContains(t, c.log.String(), "s3cret")
			require.Empty(t, c.log.lines(t, "request failed"))
		})
	}
}

func name() string { return "x" }

func TestRetryAfter(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for _, tt := range []struct {
		code broker.Code
		wait time.Duration
		want string
	}{
		{broker.CodeSecretBackendUnavailable, 0, "5"},
		{broker.CodeSecretBackendUnavailable, time.Millisecond, "1"},
		{broker.CodeSecretBackendUnavailable, 1500 * time.Millisecond, "2"},
		{broker.CodeSecretBackendUnavailable, 30 * time.Second, "30"},
		{broker.CodeUpstreamError, 7 * time.Second, "7"},
		{broker.CodeUpstreamError, 0, ""},
	} {
		domain.err = &broker.Error{Code: tt.code, Message: "m", RetryAfter: tt.wait}
		require.Equal(t, tt.want, c.do("POST", "/connections/"+someID+"/refresh", "").Header.Get("Retry-After"))
	}
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}}).as("")
	for _, path := range []string{
		"/", "/nothing", "/providers/" + someID + "/x", "/health/", "//providers", "/providers/../health", "/providers/.",
		"/connections/", "/connections/" + someID + "/x", "/%2e%2e/providers", "/auth/callback/",
	} {
		c.get(path).requireError(t, 404, "not_found")
	}
	for path, allow := range map[string]string{
		"/providers":                          "GET, HEAD, POST",
		"/providers/":                         "GET, HEAD, POST",
		"/providers/" + someID:                "DELETE, GET, HEAD, PATCH, PUT",
		"/providers/by-name/x":                "DELETE, GET, HEAD",
		"/auth/callback":                      "GET",
		"/auth/capture-schema":                "GET",
		"/auth/capture-credential":            "POST",
		"/connections":                        "GET, HEAD",
		"/connections/" + someID:              "DELETE",
		"/connections/" + someID + "/token":   "GET, HEAD",
		"/connections/" + someID + "/refresh": "POST",
		"/health":                             "GET, HEAD",
	} {
		answer := c.do("OPTIONS", path, "")
		answer.requireError(t, 405, "method_not_allowed")
		require.Equal(t, allow, answer.Header.Get("Allow"), path)
	}
	// A HEAD must not use a state up: link checkers send it.
	require.Equal(t, 405, c.do("HEAD", "/auth/callback?code=c&state=s", "").StatusCode)
}

func TestHeadIsGetWithoutBody(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}})
	answer := c.do("HEAD", "/health", "")
	require.Equal(t, 200, answer.StatusCode)
	require.Empty(t, answer.body)
}

// The contract says of each operation who may call it; so does the API.
func TestRolesOfTheContract(t *testing.T) {
	domain := &stub{
		deleted: 1, redirect: broker.Redirect{URL: "https://app.example.com/"},
		view:  broker.ProviderView{Provider: broker.Provider{Profile: broker.Profile{Name: "google"}}},
		form:  broker.CaptureForm{ProviderName: "google", Schema: []byte(`{"properties":{"k":{}}}`)},
		token: broker.TokenAnswer{AuthType: "x", Strategy: []byte(`{"type":"x"}`)},
		ready: broker.Readiness{Status: broker.Ready, Database: broker.Component{Status: "ok"}, Secrets: broker.Component{Status: "ok"}},
		consent: broker.Consent{
			AuthURL: "https://x.example.com", State: "e30." + strings.Repeat("a", 43), ProviderID: uuid.MustParse(someID),
		},
	}
	c := newClient(t, httpapi.Options{Broker: domain, Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
	})})
	seen := 0
	for id, op := range operations(t) {
		roles, limited := op.Extensions["x-roles"].([]any)
		require.Equal(t, limited, op.Security == nil, "%s: x-roles and security agree", id)
		for role, key := range map[string]string{"admin": adminKey, "agent": agentKey, "auditor": auditorKey} {
			before := domain.calls()
			answer := c.as(key).do(op.method, op.path, op.body)
			if !limited || slices.Contains(roles, any(role)) {
				require.Less(t, answer.StatusCode, 400, "%s as %s: %s", id, role, answer.body)
				continue
			}
			answer.requireError(t, 403, "forbidden")
			require.Equal(t, before, domain.calls(), "%s as %s reached the domain", id, role)
		}
		answer := c.as("").do(op.method, op.path, op.body)
		if limited {
			answer.requireError(t, 401, "missing_api_key")
			c.as("not a key").do(op.method, op.path, op.body).requireError(t, 403, "invalid_api_key")
		} else {
			require.Less(t, answer.StatusCode, 400, "%s without a key: %s", id, answer.body)
		}
		seen++
	}
	require.Equal(t, 23, seen)
}

// What has begun to be answered when it fails is cut off: half an answer must not
// pass for a whole one.
func TestHalfAnAnswerIsCutOff(t *testing.T) {
	domain := &stub{}
	api := httptest.NewServer(handler(t, httpapi.Options{Broker: domain, Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic("in the middle")
	})}))
	defer api.Close()
	resp, err := http.Get(api.URL + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	// What has not begun yet is a failure like any other.
	for range 1000 {
		domain.events = append(domain.events, audit.Event{ID: uuid.New(), Type: audit.TokenRetrieved, CreatedAt: time.Now()})
	}
	domain.events = append(domain.events, audit.Event{ID: uuid.New(), Type: audit.TokenRetrieved, CreatedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	require.Equal(t, 500, bare(t, httpapi.Options{Broker: domain})("GET", "/audit").StatusCode)
}

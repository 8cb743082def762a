// Package openapitest holds HTTP answers against openapi.yaml. Tests that talk to
// the broker wrap their client or their handler with it, and fail on any answer
// that is not in the contract.
package openapitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	nexusbroker "github.com/nexus-broker/nexus-broker"
)

// Contract is a parsed openapi.yaml.
type Contract struct {
	doc   *openapi3.T
	paths *http.ServeMux // from a request's path to a path of the contract
}

// Load parses and validates the contract, its examples included.
func Load() (*Contract, error) {
	doc, err := openapi3.NewLoader().LoadFromData(nexusbroker.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation()); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	c := &Contract{doc: doc, paths: http.NewServeMux()}
	for template := range doc.Paths.Map() {
		c.paths.Handle(template, http.NotFoundHandler()) // it is a pattern of the mux too
	}
	return c, nil
}

// Document returns the parsed contract.
func (c *Contract) Document() *openapi3.T { return c.doc }

// Transport returns a RoundTripper that sends requests through next and reports to t
// every answer that is not in the contract.
func Transport(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	return &transport{t: t, contract: load(t), next: next}
}

// Handler returns a handler that answers with h and reports to t every answer that
// is not in the contract.
func Handler(t testing.TB, h http.Handler) http.Handler {
	t.Helper()
	c := load(t)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		resp := rec.Result()
		if err := c.Check(r, resp); err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
}

// once is Load for all tests of a process: parsing takes longer than most of them.
var once = sync.OnceValues(Load)

func load(t testing.TB) *Contract {
	t.Helper()
	c, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type transport struct {
	t        testing.TB
	contract *Contract
	next     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (rt *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := rt.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if err := rt.contract.Check(r, resp); err != nil {
		rt.t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	return resp, nil
}

// Check returns what is wrong with an answer, nil if the contract has it. It reads
// the answer's body and puts it back.
func (c *Contract) Check(r *http.Request, resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return errors.Join(c.checkHeaders(resp), c.checkAnswer(r, resp, body))
}

func (c *Contract) checkHeaders(resp *http.Response) error {
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"X-Frame-Options": "DENY",
	} {
		if got := resp.Header.Get(name); got != want {
			return fmt.Errorf("%s is %q instead of %q", name, got, want)
		}
	}
	policy := resp.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none';") || !strings.Contains(policy, "frame-ancestors 'none'") {
		return fmt.Errorf("Content-Security-Policy is %q", policy)
	}
	if resp.Header.Get("X-Request-Id") == "" {
		return errors.New("the header X-Request-Id is missing")
	}
	return nil
}

func (c *Contract) checkAnswer(r *http.Request, resp *http.Response, body []byte) error {
	route, known := c.route(r)
	switch {
	case !known:
		return c.checkError(r, resp, body, http.StatusNotFound, "not_found")
	case route.Operation == nil:
		if resp.Header.Get("Allow") == "" {
			return errors.New("the header Allow is missing")
		}
		return c.checkError(r, resp, body, http.StatusMethodNotAllowed, "method_not_allowed")
	}
	return c.checkOperation(route, r, resp, body)
}

// route finds the operation of a request; known is false if its path is not in the
// contract.
func (c *Contract) route(r *http.Request) (route *routers.Route, known bool) {
	probe := &http.Request{Method: http.MethodGet, URL: r.URL, Host: r.Host}
	if r.URL.EscapedPath() == "/providers/" { // is accepted for "/providers"
		probe = httptest.NewRequest(http.MethodGet, "/providers", nil)
	}
	if path.Clean(probe.URL.Path) != probe.URL.Path {
		return nil, false // the mux would clean it first
	}
	_, pattern := c.paths.Handler(probe)
	item := c.doc.Paths.Value(pattern)
	if pattern == "" || item == nil {
		return nil, false
	}
	operation := item.Operations()[r.Method]
	if r.Method == http.MethodHead && !strings.HasPrefix(pattern, "/auth/") {
		operation = item.Get
	}
	return &routers.Route{Spec: c.doc, Path: pattern, PathItem: item, Method: r.Method, Operation: operation}, true
}

// checkOperation checks status, headers and body of a known operation's answer.
func (c *Contract) checkOperation(route *routers.Route, r *http.Request, resp *http.Response, body []byte) error {
	declared := route.Operation.Responses.Status(resp.StatusCode)
	if declared == nil {
		return fmt.Errorf("the status %d is not in the contract", resp.StatusCode)
	}
	if len(declared.Value.Content) == 0 && len(body) > 0 {
		return fmt.Errorf("the answer %d has a body, and none in the contract", resp.StatusCode)
	}
	return openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: route},
		Status:                 resp.StatusCode,
		Header:                 resp.Header,
		Body:                   io.NopCloser(bytes.NewReader(body)),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
}

// checkError checks an answer to a request that has no operation.
func (c *Contract) checkError(r *http.Request, resp *http.Response, body []byte, status int, code string) error {
	if resp.StatusCode != status {
		return fmt.Errorf("the answer is %d instead of %d", resp.StatusCode, status)
	}
	if r.Method == http.MethodHead {
		return nil
	}
	var value map[string]any
	if err := jsonObject(resp, body, &value); err != nil {
		return err
	}
	if value["error"] != code {
		return fmt.Errorf("the code is not %q", code)
	}
	return c.doc.Components.Schemas["Error"].Value.VisitJSON(value, openapi3.EnableJSONSchema2020())
}

func jsonObject(resp *http.Response, body []byte, into *map[string]any) error {
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		return fmt.Errorf("the content type is %q", got)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errors.New("the body is not a JSON object")
	}
	return nil
}

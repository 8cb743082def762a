package openapitest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
)

const id = "7d1c0a52-6a2c-4f0e-9d67-0d8a4a4b7c11"

func answer(status int, contentType, body string) *http.Response {
	h := http.Header{
		"X-Request-Id": {"r-1"}, "Cache-Control": {"no-store"},
		"X-Content-Type-Options": {"nosniff"}, "Referrer-Policy": {"no-referrer"},
		"X-Frame-Options": {"DENY"}, "Content-Security-Policy": {"default-src 'none'; frame-ancestors 'none'"},
	}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

// The checker must refuse what is not in the contract: a checker that accepts
// everything would make every other test of the API worthless.
func TestCheckRefusesWhatIsNotInTheContract(t *testing.T) {
	c, err := openapitest.Load()
	require.NoError(t, err)
	const js = "application/json"
	for name, tt := range map[string]struct {
		method, path string
		resp         *http.Response
		want         string // "" if it is in the contract
	}{
		"right":                  {"GET", "/providers", answer(200, js, `[{"id":"`+id+`","name":"google"}]`), ""},
		"trailing slash":         {"GET", "/providers/", answer(200, js, `[]`), ""},
		"null list":              {"GET", "/providers", answer(200, js, `null`), "schema"},
		"more than the contract": {"GET", "/providers", answer(200, js, `[{"id":"`+id+`","name":"google","x":1}]`), "schema"},
		"id is no uuid":          {"GET", "/providers", answer(200, js, `[{"id":"1","name":"google"}]`), "schema"},
		"other type":             {"GET", "/providers", answer(200, "text/plain", `[]`), "Content-Type"},
		"other status":           {"GET", "/providers", answer(418, js, `{}`), "418"},
		"code of another status": {"GET", "/providers", answer(400, js, `{"error":"missing_api_key","message":"m"}`), "schema"},
		"empty body":             {"PUT", "/providers/" + id, answer(200, "", ""), ""},
		"body where none is":     {"PUT", "/providers/" + id, answer(200, js, `{}`), "has a body"},
		"attention":              {"GET", "/connections/" + id + "/token", answer(409, js, `{"error":"attention_required","message":"m","detail":"m"}`), ""},
		"attention, no detail":   {"GET", "/connections/" + id + "/token", answer(409, js, `{"error":"attention_required","message":"m"}`), "schema"},
		"static token":           {"GET", "/connections/" + id + "/token", answer(200, js, `{"strategy":{"type":"x"},"credentials":{}}`), ""},
		"expired without at":     {"GET", "/connections/" + id + "/token", answer(200, js, `{"expired":true,"strategy":{"type":"x"},"credentials":{}}`), "schema"},
		"503 without wait":       {"POST", "/connections/" + id + "/refresh", answer(503, js, `{"error":"secret_backend_unavailable","message":"m"}`), "Retry-After"},
		"302 without location":   {"GET", "/auth/callback", answer(302, "", ""), "Location"},
		"unknown path":           {"GET", "/nothing", answer(404, js, `{"error":"not_found","message":"m"}`), ""},
		"unknown path, served":   {"GET", "/nothing", answer(200, js, `{}`), "instead of 404"},
		"unknown path, text":     {"GET", "/nothing", answer(404, "text/plain", `404`), "content type"},
		"unknown method":         {"PUT", "/providers", answer(405, js, `{"error":"method_not_allowed","message":"m"}`), "Allow"},
		"page":                   {"GET", "/auth/capture-schema", answer(200, "text/html; charset=utf-8", "<p>"), ""},
		"page where none is":     {"GET", "/providers", answer(200, "text/html", "<p>"), "Content-Type"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.Check(httptest.NewRequest(tt.method, tt.path, nil), tt.resp)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestCheckWantsTheHeadersOfEveryAnswer(t *testing.T) {
	c, err := openapitest.Load()
	require.NoError(t, err)
	for _, name := range []string{"X-Request-Id", "Cache-Control", "X-Content-Type-Options", "Referrer-Policy",
		"X-Frame-Options", "Content-Security-Policy"} {
		resp := answer(200, "application/json", `{"status": "healthy"}`)
		resp.Header.Del(name)
		require.ErrorContains(t, c.Check(httptest.NewRequest("GET", "/health", nil), resp), name)
	}
}

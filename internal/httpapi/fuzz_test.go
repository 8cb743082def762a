package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
)

// fuzzed returns a function that calls an API, holds the answer against the contract,
// and fails on anything that is the broker's fault.
func fuzzed(f *testing.F, domain *stub) func(t *testing.T, r *http.Request) *http.Response {
	contract, err := openapitest.Load()
	if err != nil {
		f.Fatal(err)
	}
	api := handler(f, httpapi.Options{Broker: domain})
	return func(t *testing.T, r *http.Request) *http.Response {
		rec := httptest.NewRecorder()
		api.ServeHTTP(rec, r)
		resp := rec.Result()
		if resp.StatusCode >= 500 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		if err := contract.Check(r, resp); err != nil {
			t.Fatal(err)
		}
		return resp
	}
}

// memberTwice reports whether valid JSON has a member twice in one of its objects. It
// finds out by another way than the broker does: a map keeps only one of the two.
func memberTwice(valid string) bool {
	written, dec := 0, json.NewDecoder(strings.NewReader(valid))
	dec.UseNumber()
	var inObject []bool // of the values that are open: whether it is an object
	name := false       // the next token is a member's name, or ends the object
	for {
		token, err := dec.Token()
		if err != nil {
			break
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			inObject = append(inObject, token == json.Delim('{'))
			name = token == json.Delim('{')
			continue
		case json.Delim('}'), json.Delim(']'):
			inObject = inObject[:len(inObject)-1]
		default:
			if name {
				written++
				name = false
				continue
			}
		}
		name = len(inObject) > 0 && inObject[len(inObject)-1]
	}
	var kept any
	dec = json.NewDecoder(strings.NewReader(valid))
	dec.UseNumber()
	return dec.Decode(&kept) == nil && membersIn(kept) < written
}

func startsObject(body string) bool { return strings.HasPrefix(strings.TrimLeft(body, " \t\r\n"), "{") }

func membersIn(v any) (n int) {
	switch v := v.(type) {
	case []any:
		for _, element := range v {
			n += membersIn(element)
		}
	case map[string]any:
		n = len(v)
		for _, member := range v {
			n += membersIn(member)
		}
	}
	return n
}

func TestMemberTwice(t *testing.T) {
	for body, want := range map[string]bool{
		`{"a":1,"b":{"a":[{"a":2},{"a":3}]},"c":"a"}`: false, `[]`: false, `"a"`: false, `{"a":{},"b":[]}`: false,
		`{"a":1,"b":2,"a":1}`: true, `{"b":[1,{"x":{},"x":[]}]}`: true, `{"a":{"b":1},"a":{"b":1}}`: true, `{"a":1,"\u0061":2}`: true,
	} {
		require.Equal(t, want, memberTwice(body), body)
	}
}

func FuzzCallbackQuery(f *testing.F) {
	for _, q := range []string{"", "code=c&state=s", "error=access_denied&state=a.b", "code=a&code=b", "code=%zz", "state=%0d%0a", ";&=", "iss=https://x", "code=\xff"} {
		f.Add(q, true)
		f.Add(q, false)
	}
	domain := &stub{redirect: broker.Redirect{URL: "https://app.example.com/"}}
	call := fuzzed(f, domain)
	f.Fuzz(func(t *testing.T, query string, browser bool) {
		r := httptest.NewRequest("GET", "/auth/callback", nil)
		r.URL.RawQuery = query
		if browser {
			r.Header.Set("Accept", browserAccept)
		}
		resp := call(t, r)
		if resp.StatusCode == http.StatusFound && resp.Header.Get("Location") != "https://app.example.com/" {
			t.Fatalf("redirected to %q", resp.Header.Get("Location"))
		}
	})
}

func FuzzCaptureBody(f *testing.F) {
	for _, body := range []string{`{"state":"s","credentials":{"api_key":"k"}}`, `{"state":"s","state":"t"}`, "state=s&credentials.api_key=k", "{", "", "null", "[]", "%", "state=%zz", "{\"a\":\"\xff\"}"} {
		f.Add(body, awkwardSchema, true)
		f.Add(body, `{"properties":{"a":{"enum":[1,"1",null]}}}`, false)
	}
	domain := &stub{redirect: broker.Redirect{URL: "https://app.example.com/"}}
	call := fuzzed(f, domain)
	f.Fuzz(func(t *testing.T, body, schema string, form bool) {
		if !json.Valid([]byte(schema)) || !strings.HasPrefix(schema, "{") {
			return // the domain gives objects only
		}
		domain.form = broker.CaptureForm{ProviderName: "p", Schema: json.RawMessage(schema)}
		r := httptest.NewRequest("POST", "/auth/capture-credential", strings.NewReader(body))
		if form {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if resp := call(t, r); resp.StatusCode == http.StatusFound && json.Valid([]byte(body)) && startsObject(body) && memberTwice(body) {
			t.Fatal("a body with a member twice was accepted")
		}
		for name, value := range lastCredentials(domain) {
			if !json.Valid(value) {
				t.Fatalf("%q is not JSON", name)
			}
		}
		r = httptest.NewRequest("GET", "/auth/capture-schema?state="+url.QueryEscape(body), nil)
		r.Header.Set("Accept", browserAccept)
		call(t, r)
	})
}

func lastCredentials(domain *stub) map[string]json.RawMessage {
	credentials, _ := domain.last().(map[string]json.RawMessage)
	return credentials
}

func FuzzProfileJSON(f *testing.F) {
	for _, body := range []string{
		`{"profile":{"name":"google","client_secret":"s","scopes":["a"],"params":{"a":{"b":[1]}}}}`, `{"profile":{"name":1}}`, `{"profile":null}`,
		`{"profile":{"name":"a","NAME":"b"}}`, `{"profile":{"name":"a","name":"b"}}`, `{"profile":{"params":null,"enable_discovery":true}}`, `{"profile":{}}x`, "\xef\xbb\xbf{}", `{"profile":{"ſcopes":[]}}`,
	} {
		f.Add(body)
	}
	domain := &stub{}
	call := fuzzed(f, domain)
	f.Fuzz(func(t *testing.T, body string) {
		resp := call(t, httptest.NewRequest("POST", "/providers", strings.NewReader(body)))
		if resp.StatusCode == http.StatusCreated && (!json.Valid([]byte(body)) || memberTwice(body)) {
			t.Fatal("what is not JSON, or has a member twice, was accepted")
		}
		call(t, httptest.NewRequest("PATCH", "/providers/"+someID, strings.NewReader(body)))
	})
}

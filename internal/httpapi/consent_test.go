package httpapi_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
)

const browserAccept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// signedState has the form of a state.
var signedState = "e30." + strings.Repeat("a", 43)

func TestConsentSpec(t *testing.T) {
	domain := &stub{consent: broker.Consent{
		AuthURL: "https://p.example.com/authorize?a=1&b=2", State: signedState,
		Scopes: []string{"openid"}, ProviderID: uuid.MustParse(someID),
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	answer := c.as(agentKey).do("POST", "/auth/consent-spec",
		`{"workspace_id":"w","provider_id":"`+someID+`","scopes":["openid"],"return_url":"https://app.example.com/","connection_id":null,"x":1}`)
	require.Equal(t, `{"authUrl":"https://p.example.com/authorize?a=1&b=2","state":"`+signedState+`","scopes":["openid"],"provider_id":"`+someID+`"}`+"\n", answer.body)
	require.Equal(t, broker.ConsentRequest{WorkspaceID: "w", ProviderID: someID, Scopes: []string{"openid"}, ReturnURL: "https://app.example.com/"}, domain.last())

	domain.consent.Scopes = nil
	require.Contains(t, c.do("POST", "/auth/consent-spec", `{"provider_id":"x"}`).body, `"scopes":null`)
	require.Equal(t, broker.ConsentRequest{ProviderID: "x"}, domain.last())
}

func TestConsentSpecRefuses(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for body, code := range map[string]string{
		`{"connection_id":""}`:                       "invalid_connection_id",
		`{"connection_id":"x"}`:                      "invalid_connection_id",
		`{"Connection_ID":5}`:                        "invalid_json",
		`{"workspace_id":1}`:                         "invalid_json",
		`{"scopes":"openid"}`:                        "invalid_json",
		`{"return_url":"a","return_url":"b"}`:        "invalid_json",
		`{"return_url":"a","RETURN_URL":"b"}`:        "invalid_json",
		`{"workspace_id":"w"} {"workspace_id":"w2"}`: "invalid_json",
	} {
		c.do("POST", "/auth/consent-spec", body).requireError(t, 400, code)
	}
	require.Zero(t, domain.calls())
}

func TestCallback(t *testing.T) {
	const to = "https://app.example.com/done?x=1&status=success"
	domain := &stub{redirect: broker.Redirect{URL: to}}
	for _, c := range []*client{
		newClient(t, httpapi.Options{Broker: domain}).as(""),
		newClient(t, httpapi.Options{Broker: domain}).as("").with("Accept", browserAccept),
	} {
		answer := c.get("/auth/callback?code=the-code&state=s.t&iss=https%3A%2F%2Fp.example.com&ignored=1")
		require.Equal(t, 302, answer.StatusCode)
		require.Equal(t, to, answer.Header.Get("Location"))
		require.Empty(t, answer.body)
		in := domain.last().(broker.Callback)
		require.Equal(t, "the-code", in.Code.Reveal())
		require.Equal(t, "s.t", in.State)
		require.Equal(t, "https://p.example.com", in.Issuer)
		require.Empty(t, in.Error)
		require.NotContains(t, c.log.String(), "the-code", "the query is not logged")
		require.NotContains(t, c.log.String(), "s.t")
		require.Equal(t, "/auth/callback", c.log.lines(t, "request")[0]["route"])
	}
	newClient(t, httpapi.Options{Broker: domain}).get("/auth/callback?error=access_denied&error_description=no&state=s")
	require.Equal(t, broker.Callback{Error: "access_denied", State: "s"}, withoutCode(domain.last()))
}

func withoutCode(v any) broker.Callback {
	c := v.(broker.Callback)
	return broker.Callback{State: c.State, Error: c.Error, Issuer: c.Issuer}
}

// Nothing may be there twice: which of the two is meant would be the sender's choice.
func TestCallbackRefusesRepeatedParameters(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for _, name := range []string{"code", "state", "error", "iss"} {
		c.get("/auth/callback?code=a&state=b&"+name+"=c&"+name+"=d").requireError(t, 400, "missing_params")
	}
	require.Zero(t, domain.calls())
}

func TestCallbackPathIsTheOperatorsChoice(t *testing.T) {
	call := bare(t, httpapi.Options{Broker: &stub{redirect: broker.Redirect{URL: "https://app.example.com"}}, RedirectPath: "/oauth/return"})
	require.Equal(t, 302, call("GET", "/oauth/return?code=c&state=s").StatusCode)
	require.Equal(t, 404, call("GET", "/auth/callback?code=c&state=s").StatusCode)
	require.Equal(t, 405, call("POST", "/oauth/return").StatusCode)
}

func TestFailedCallback(t *testing.T) {
	const back = "https://app.example.com/done?status=error&error=invalid_id_token"
	withReturn := &broker.Error{Code: broker.CodeInvalidIDToken, Message: "the <b>message</b>", ReturnURL: back}
	without := &broker.Error{Code: broker.CodeInvalidState, Message: "the <b>message</b>"}
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain}).as("")
	for accept, page := range map[string]bool{
		browserAccept: true, "text/html": true, "text/html;q=0.9, application/json;q=0.8": true, "application/xhtml+xml": true,
		"": false, "*/*": false, "application/json": false, "text/html;q=0": false, "text/html;q=0.5, application/json": false,
		"text/*": false, "text/html;q=x": false, ";;;": false,
	} {
		c := c.with("Accept", accept)
		domain.err = withReturn
		answer := c.get("/auth/callback?code=c&state=s")
		require.Equal(t, "Accept", answer.Header.Get("Vary"))
		if page {
			require.Equal(t, 302, answer.StatusCode, accept)
			require.Equal(t, back, answer.Header.Get("Location"))
		} else {
			answer.requireError(t, 401, "invalid_id_token")
			require.Empty(t, answer.Header.Get("Location"))
		}
		domain.err = without
		answer = c.get("/auth/callback?code=c&state=s")
		require.Equal(t, 400, answer.StatusCode)
		require.Empty(t, answer.Header.Get("Location"))
		if !page {
			require.Equal(t, "invalid_state", answer.code(), accept)
			continue
		}
		requirePage(t, answer)
		require.Contains(t, answer.body, "The &lt;b&gt;message&lt;/b&gt;.")
		require.Contains(t, answer.body, "<code>invalid_state</code>")
		require.Contains(t, answer.body, "<code>"+answer.Header.Get("X-Request-Id")+"</code>")
	}
}

// The routes of programs answer JSON to a browser too.
func TestPagesAreForThePublicRoutesOnly(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}}).with("Accept", browserAccept)
	c.get("/connections/x/token").requireError(t, 400, "invalid_connection_id")
	c.as("").get("/audit").requireError(t, 401, "missing_api_key")
	c.get("/nothing").requireError(t, 404, "not_found")
}

func TestCaptureSchemaAndCredential(t *testing.T) {
	const to = "https://app.example.com/done?status=success"
	domain := &stub{redirect: broker.Redirect{URL: to}, form: broker.CaptureForm{ProviderName: "weather", Schema: json.RawMessage(`{"type":"object","b":1,"a":2}`)}}
	c := newClient(t, httpapi.Options{Broker: domain}).as("")
	answer := c.get("/auth/capture-schema?state=s")
	require.Equal(t, `{"provider_name":"weather","schema":{"type":"object","b":1,"a":2}}`+"\n", answer.body)

	for _, contentType := range []string{"application/json", "", "text/plain", "application/x-www-form-urlencoded"} { // the last is curl's
		answer = c.with("Content-Type", contentType).do("POST", "/auth/capture-credential", ` {"state":"s","credentials":{"api_key":"k","n":1.50}}`)
		require.Equal(t, 302, answer.StatusCode, answer.body)
		require.Equal(t, to, answer.Header.Get("Location"))
		require.Equal(t, map[string]json.RawMessage{"api_key": json.RawMessage(`"k"`), "n": json.RawMessage("1.50")}, domain.last())
	}
	before := domain.calls()
	for _, body := range []string{`{"state":"s","state":"t","credentials":{}}`, `{"state":"s","credentials":{"a":1,"a":2}}`, `{"state":1}`, `{"credentials":[]}`, "x"} {
		c.do("POST", "/auth/capture-credential", body).requireError(t, 400, "invalid_json")
	}
	require.Equal(t, before, domain.calls())
	c.do("POST", "/auth/capture-credential", `{"state":"s","credentials":{"a":1,"A":2}}`)
	require.Len(t, domain.last(), 2, "the members of credentials differ by case")
}

func TestCaptureForm(t *testing.T) {
	const to = "https://app.example.com/done?status=success"
	domain := &stub{redirect: broker.Redirect{URL: to}, form: broker.CaptureForm{ProviderName: "weather", Schema: json.RawMessage(awkwardSchema)}}
	c := newClient(t, httpapi.Options{Broker: domain}).as("").with("Accept", browserAccept).with("Content-Type", "application/x-www-form-urlencoded")
	form := url.Values{
		"state": {"s&t"}, "credentials.state": {"a field, not the state"}, "credentials.password": {" pä\"ss "}, "credentials.region": {"eu"},
		"credentials.port": {" 8080 "}, "credentials.level": {"2"}, "credentials.sandbox": {"true"}, "credentials.empty": {""},
		"credentials.unknown": {"x"}, "credentials": {"x"},
	}
	answer := c.do("POST", "/auth/capture-credential", form.Encode())
	require.Equal(t, 302, answer.StatusCode, answer.body)
	require.Equal(t, to, answer.Header.Get("Location"))
	sent, err := json.Marshal(domain.last())
	require.NoError(t, err)
	require.JSONEq(t, `{"state":"a field, not the state","password":" pä\"ss ","region":"eu","port":8080,"level":2,"sandbox":true}`, string(sent))

	form.Del("credentials.sandbox")
	form.Set("credentials.port", "0x50")
	form.Set("credentials.region", "mars")
	c.do("POST", "/auth/capture-credential", form.Encode())
	sent, err = json.Marshal(domain.last())
	require.NoError(t, err)
	require.JSONEq(t, `{"state":"a field, not the state","password":" pä\"ss ","region":"mars","port":"0x50","level":2,"sandbox":false}`, string(sent))

	require.Equal(t, 400, c.do("POST", "/auth/capture-credential", "state=%zz").StatusCode)
	c.with("Accept", "").do("POST", "/auth/capture-credential", "state=%zz").requireError(t, 400, "invalid_form")
}

func TestCaptureFormAgain(t *testing.T) {
	domain := &stub{
		err:  &broker.Error{Code: broker.CodeInvalidCredentials, Message: "the provider's API refused the credentials"},
		form: broker.CaptureForm{ProviderName: "weather", Schema: json.RawMessage(awkwardSchema)},
	}
	c := newClient(t, httpapi.Options{Broker: domain}).as("").with("Content-Type", "application/x-www-form-urlencoded")
	const body = "state=the-state&credentials.password=s3cret&credentials.state=s3cret"
	c.do("POST", "/auth/capture-credential", body).requireError(t, 400, "invalid_credentials")

	c = c.with("Accept", browserAccept)
	answer := c.do("POST", "/auth/capture-credential", body)
	require.Equal(t, 400, answer.StatusCode)
	requirePage(t, answer)
	require.Contains(t, answer.body, `role="alert"`)
	require.Contains(t, answer.body, "API refused the credentials.")
	require.Contains(t, answer.body, `name="state" value="the-state"`)
	require.NotContains(t, answer.body, "s3cret", "what was entered is not shown")
	require.NotContains(t, c.log.String(), "s3cret")
	lines := c.log.lines(t, "request")
	require.Equal(t, "invalid_credentials", lines[len(lines)-1]["code"])

	domain.err = &broker.Error{Code: broker.CodeConnectionNotFound, Message: "the consent is unknown"}
	answer = c.do("POST", "/auth/capture-credential", body)
	require.Equal(t, 404, answer.StatusCode)
	requirePage(t, answer)
	domain.formErr = &broker.Error{Code: broker.CodeInvalidState, Message: "the state is not valid"}
	require.Equal(t, 400, c.do("POST", "/auth/capture-credential", body).StatusCode)
}

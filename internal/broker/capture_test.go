package broker_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

func entered(t *testing.T, object string) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(object), &m))
	return m
}

func (h *house) static(name string, in broker.ProfileInput) uuid.UUID {
	h.t.Helper()
	in.Name = broker.Given(name)
	id, err := h.Register(h.t.Context(), in)
	require.NoError(h.t, err)
	return id
}

// capture takes a user through the form of a static provider.
func (h *house) capture(name string, in broker.ProfileInput, credentials string) uuid.UUID {
	h.t.Helper()
	c := h.begin(h.static(name, in))
	to, err := h.Capture(h.t.Context(), c.State, entered(h.t, credentials))
	require.NoError(h.t, err)
	return connectionIn(h.t, to.URL)
}

const schema = `{"type":"object","required":["api_key"],"properties":{"api_key":{"type":"string","minLength":3,"title":"API key"}}}`

func TestCapture(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	id := h.static("acme", broker.ProfileInput{AuthType: broker.Given("api_key"),
		Params: broker.Given(json.RawMessage(`{"credential_schema":` + schema + `}`))})
	c := h.begin(id)
	require.Contains(t, c.AuthURL, "https://broker.example/auth/capture-schema?state=")
	form, err := h.CaptureForm(t.Context(), c.State)
	require.NoError(t, err)
	require.Equal(t, "acme", form.ProviderName)
	require.JSONEq(t, schema, string(form.Schema))

	for _, bad := range []string{`{"other":"x"}`, `{"api_key":"x"}`, `{"api_key":1}`} {
		_, err = h.Capture(t.Context(), c.State, entered(t, bad))
		require.NotNil(t, code(t, broker.CodeInvalidCredentials, err).Details)
	}
	to, err := h.Capture(t.Context(), c.State, entered(t, `{"api_key":"the-key"}`))
	require.NoError(t, err, "the state is used up by a success only")
	connection := connectionIn(t, to.URL)
	_, err = h.Capture(t.Context(), c.State, entered(t, `{"api_key":"other-key"}`))
	code(t, broker.CodeConnectionNotFound, err)

	a, err := h.Token(t.Context(), connection)
	require.NoError(t, err)
	require.Equal(t, "the-key", field(t, a, "api_key"))
	require.JSONEq(t, `{"type":"header","config":{"header_name":"X-API-Key","credential_field":"api_key"}}`, string(a.Strategy))
	require.True(t, a.ExpiresAt.IsZero())
	require.Len(t, h.events(audit.CredentialCaptured), 1)
	require.Empty(t, h.vault.Calls(), "users' credentials are tokens, not client credentials")
}

func TestStrategies(t *testing.T) {
	t.Parallel()
	for authType, want := range map[string]string{
		"basic_auth": `{"type":"basic_auth"}`, "header": `{"type":"header"}`, "query_param": `{"type":"query_param"}`,
		"hmac_payload": `{"type":"hmac_payload"}`, "aws_sigv4": `{"type":"aws_sigv4"}`,
	} {
		h := newHouse(t, options{})
		a, err := h.Token(t.Context(), h.capture("acme", broker.ProfileInput{AuthType: broker.Given(authType)}, `{"a":"b"}`))
		require.NoError(t, err)
		require.JSONEq(t, want, string(a.Strategy))
	}
	h := newHouse(t, options{})
	own := `{"type":"header","config":{"header_name":"X-Own"}}`
	a, err := h.Token(t.Context(), h.capture("acme", broker.ProfileInput{AuthType: broker.Given("api_key"),
		Params: broker.Given(json.RawMessage(`{"auth_strategy":` + own + `}`))}, `{"api_key":"b"}`))
	require.NoError(t, err)
	require.JSONEq(t, own, string(a.Strategy))
}

// Where the profile names an API, the credentials are tried out there.
func TestCapturedCredentialsAreTriedOut(t *testing.T) {
	t.Parallel()
	var got atomic.Value
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Clone())
		user, pass, _ := r.BasicAuth()
		if r.URL.Path != "/v1/me" || r.Header.Get("Authorization") != "Bearer good" && r.Header.Get("X-Own") != "good" && user+":"+pass != "u:good" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer api.Close()
	for name, c := range map[string]struct{ authType, authHeader, good, bad string }{
		"bearer": {"api_key", "", `{"api_key":"good"}`, `{"api_key":"bad"}`},
		"header": {"api_key", "X-Own", `{"api_key":"good"}`, `{"api_key":"bad"}`},
		"basic":  {"basic_auth", "", `{"username":"u","password":"good"}`, `{"username":"u","password":"bad"}`},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, options{})
			in := broker.ProfileInput{AuthType: broker.Given(c.authType), AuthHeader: broker.Given(c.authHeader),
				APIBaseURL: broker.Given(api.URL + "/v1"), UserInfoEndpoint: broker.Given("/me")}
			consent := h.begin(h.static("acme", in))
			_, err := h.Capture(t.Context(), consent.State, entered(t, c.bad))
			code(t, broker.CodeInvalidCredentials, err)
			_, err = h.Capture(t.Context(), consent.State, entered(t, c.good))
			require.NoError(t, err)
		})
	}
	h := newHouse(t, options{})
	consent := h.begin(h.static("acme", broker.ProfileInput{AuthType: broker.Given("api_key"),
		APIBaseURL: broker.Given("http://127.0.0.1:1"), UserInfoEndpoint: broker.Given("/me")}))
	_, err := h.Capture(t.Context(), consent.State, entered(t, `{"api_key":"good"}`))
	code(t, broker.CodeInvalidCredentials, err)
}

// What is asked is api_base_url and user_info_endpoint put together, to the byte: a query
// stays one, dots stay, and one slash is between the two.
func TestTheURLThatCapturedCredentialsAreTriedOutAt(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.RequestURI
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer api.Close()
	h := newHouse(t, options{})
	for name, c := range map[string]struct{ base, endpoint, want string }{
		"query":          {"/v1", "/me?fields=id,name&all", "/v1/me?fields=id,name&all"},
		"only-a-query":   {"/v1/me", "?fields=id", "/v1/me?fields=id"},
		"escapes":        {"/a%2Fb", "/m%20e", "/a%2Fb/m%20e"},
		"dots":           {"/v1", "/../me", "/v1/../me"},
		"two-slashes":    {"/v1/", "/me/", "/v1/me/"},
		"no-slash":       {"/v1", "me", "/v1/me"},
		"no-path":        {"", "me", "/me"},
		"no-other-host":  {"", "@other.example/me", "/@other.example/me"},
		"slashes-inside": {"/v1", "/a//b", "/v1/a//b"},
	} {
		t.Run(name, func(t *testing.T) {
			consent := h.begin(h.static(name, broker.ProfileInput{AuthType: broker.Given("api_key"),
				APIBaseURL: broker.Given(api.URL + c.base), UserInfoEndpoint: broker.Given(c.endpoint)}))
			_, err := h.Capture(t.Context(), consent.State, entered(t, `{"api_key":"bad"}`))
			code(t, broker.CodeInvalidCredentials, err)
			require.Equal(t, c.want, <-asked)
		})
	}
}

// An answer that is neither a success nor a refusal says nothing of the credentials, and
// not that the provider is well.
func TestOnlyASuccessOfTheAPIShowsThatAProviderIsHealthy(t *testing.T) {
	t.Parallel()
	var status atomic.Int32
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
	}))
	defer api.Close()
	h := newHouse(t, options{})
	id := h.static("acme", broker.ProfileInput{AuthType: broker.Given("api_key"),
		APIBaseURL: broker.Given(api.URL), UserInfoEndpoint: broker.Given("/me")})
	for _, c := range []struct {
		status int32
		want   broker.HealthStatus
	}{{404, broker.HealthUnknown}, {500, broker.HealthUnknown}, {304, broker.HealthUnknown}, {204, broker.HealthHealthy}} {
		status.Store(c.status)
		_, err := h.Capture(t.Context(), h.begin(id).State, entered(t, `{"api_key":"k"}`))
		require.NoError(t, err)
		require.Equal(t, c.want, h.provider(id).Health.Status, "%d", c.status)
	}
}

func TestCaptureRefusals(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	_, err := h.CaptureForm(t.Context(), "forged")
	code(t, broker.CodeInvalidState, err)
	_, err = h.Capture(t.Context(), "forged", entered(t, `{"a":"b"}`))
	code(t, broker.CodeInvalidState, err)
	c := h.begin(h.static("acme", broker.ProfileInput{AuthType: broker.Given("api_key")}))
	_, err = h.CaptureForm(t.Context(), c.State)
	code(t, broker.CodeSchemaNotFound, err)
	_, err = h.Capture(t.Context(), c.State, nil)
	code(t, broker.CodeInvalidCredentials, err)
	oauth := h.begin(h.register("google"))
	_, err = h.Capture(t.Context(), oauth.State, entered(t, `{"access_token":"forged"}`))
	code(t, broker.CodeInvalidState, err)

	remote := h.begin(h.static("remote", broker.ProfileInput{AuthType: broker.Given("api_key"),
		Params: broker.Given(json.RawMessage(`{"credential_schema":{"$ref":"file:///etc/passwd"}}`))}))
	_, err = h.Capture(t.Context(), remote.State, entered(t, `{"a":"b"}`))
	code(t, broker.CodeInvalidCredentials, err)
}

func TestCapturedValuesThatAreNoHeader(t *testing.T) {
	t.Parallel()
	h := newHouse(t, options{})
	in := broker.ProfileInput{AuthType: broker.Given("api_key"), AuthHeader: broker.Given("X-Own"),
		APIBaseURL: broker.Given("http://127.0.0.1:1"), UserInfoEndpoint: broker.Given("/me")}
	id := h.static("acme", in)
	_, err := h.Capture(t.Context(), h.begin(id).State, entered(t, `{"api_key":"a\r\nX-Evil: b"}`))
	code(t, broker.CodeInvalidCredentials, err)
	require.Equal(t, broker.HealthUnknown, h.provider(id).Health.Status, "not the provider's fault")
	in.AuthHeader = broker.Given("no header: at all")
	_, err = h.Capture(t.Context(), h.begin(h.static("bad", in)).State, entered(t, `{"api_key":"a"}`))
	code(t, broker.CodeInvalidCredentials, err)
}

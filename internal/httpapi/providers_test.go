package httpapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/secret"
)

func TestRegister(t *testing.T) {
	domain := &stub{id: uuid.MustParse(someID)}
	c := newClient(t, httpapi.Options{Broker: domain})
	answer := c.do("POST", "/providers/", `{"profile":{"name":"google","client_secret":"s","params":{"a":1,"A":2},"unknown":1}}`)
	require.Equal(t, 201, answer.StatusCode, answer.body)
	require.JSONEq(t, `{"id":"`+someID+`","message":"Provider profile created successfully"}`, answer.body)
	in := domain.last().(broker.ProfileInput)
	require.Equal(t, "google", in.Name.Value)
	require.Equal(t, "s", in.ClientSecret.Value.Reveal())
	require.JSONEq(t, `{"a":1,"A":2}`, string(in.Params.Value))
	require.False(t, in.ClientID.Present)
}

func TestBodiesThatAreRefused(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for name, tt := range map[string]struct{ body, code string }{
		"empty":                       {" ", "invalid_json"},
		"not JSON":                    {"{", "invalid_json"},
		"null":                        {"null", "invalid_json"},
		"array":                       {"[]", "invalid_json"},
		"string":                      {`"x"`, "invalid_json"},
		"trailing brace":              {`{"profile":{"name":"a"}}}`, "invalid_json"},
		"two objects":                 {`{"profile":{"name":"a"}} {}`, "invalid_json"},
		"not UTF-8":                   {"{\"profile\":{\"name\":\"a\xff\"}}", "invalid_json"},
		"no profile":                  {`{}`, "missing_profile"},
		"null profile":                {`{"profile":null}`, "missing_profile"},
		"profile is a list":           {`{"profile":[]}`, "invalid_json"},
		"profile is a string":         {`{"profile":"x"}`, "invalid_json"},
		"wrong type":                  {`{"profile":{"name":5}}`, "invalid_json"},
		"twice, in the profile":       {`{"profile":{"name":"a","name":"b"}}`, "invalid_json"},
		"twice, in another case":      {`{"profile":{"client_id":"a","Client_ID":"b"}}`, "invalid_json"},
		"twice, with a long s":        {`{"profile":{"scopes":[],"ſcopes":["x"]}}`, "invalid_json"},
		"twice, escaped":              {`{"profile":{"name":"a","n\u0061me":"b"}}`, "invalid_json"},
		"twice, the profile":          {`{"profile":{"name":"a"},"PROFILE":{"name":"b"}}`, "invalid_json"},
		"twice, deep in params":       {`{"profile":{"name":"a","params":{"x":[{"y":1,"y":2}]}}}`, "invalid_json"},
		"twice, in an ignored member": {`{"profile":{"name":"a"},"x":{"y":1,"y":2}}`, "invalid_json"},
		"nested beyond any use":       {`{"profile":` + strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20001), "invalid_json"},
	} {
		t.Run(name, func(t *testing.T) {
			c.do("POST", "/providers", tt.body).requireError(t, 400, tt.code)
		})
	}
	require.Zero(t, domain.calls())
}

func TestWrongTypeNamesTheMemberAndNotItsValue(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{}})
	answer := c.do("PATCH", "/providers/"+someID, `{"name":"a","client_secret":{"s3cret":1}}`)
	answer.requireError(t, 400, "invalid_json")
	require.Contains(t, answer.body, `client_secret`)
	require.NotContains(t, answer.body, "s3cret")
}

func TestChangesTakeTheBareProfileAndAnswerNothing(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for _, method := range []string{"PUT", "PATCH"} {
		answer := c.do(method, "/providers/"+someID, `{"description":null,"client_secret":"next"}`)
		require.Equal(t, 200, answer.StatusCode)
		require.Empty(t, answer.body)
		in := domain.last().(broker.ProfileInput)
		require.True(t, in.Description.Present && in.Description.Null)
		require.Equal(t, "next", in.ClientSecret.Value.Reveal())
	}
	answer := c.do("DELETE", "/providers/"+someID, "")
	require.Equal(t, 200, answer.StatusCode)
	require.Empty(t, answer.body)
	require.Equal(t, uuid.MustParse(someID), domain.last())
}

func TestProviderIDsAreUUIDs(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for _, id := range []string{"1", "google", "urn:uuid:" + someID, "%7B" + someID + "%7D", strings.ReplaceAll(someID, "-", "")} {
		for _, method := range []string{"GET", "DELETE"} {
			c.do(method, "/providers/"+id, "").requireError(t, 400, "invalid_provider_id")
		}
		c.do("PUT", "/providers/"+id, "{}").requireError(t, 400, "invalid_provider_id")
		c.do("PATCH", "/providers/"+id, "{}").requireError(t, 400, "invalid_provider_id")
	}
	require.Zero(t, domain.calls())
}

func fullView() broker.ProviderView {
	return broker.ProviderView{
		Provider: broker.Provider{
			ID: uuid.MustParse(someID),
			Profile: broker.Profile{
				Name: "google", AuthType: "oauth2", AuthHeader: "client_secret_basic",
				AuthURL: "https://a.example.com/?x=1&y=2", TokenURL: "https://t.example.com", Issuer: "https://i.example.com",
				EnableDiscovery: true, Scopes: []string{"openid"}, APIBaseURL: "https://api.example.com", UserInfoEndpoint: "/me",
				RevocationURL: "https://r.example.com", Params: broker.Params(`{"prompt":"consent"}`),
				Description: "d", Category: "c",
			},
			Credentials: credentials.Ref{Backend: "hashicorp-vault", Key: "google", Managed: true, State: credentials.Ready, Generation: 3},
		},
		ClientID: secret.NewValue("the-client-id"), ClientSecret: secret.NewValue("the-client-secret & more"),
		Location: "secret/nexus/providers/google",
	}
}

func TestProfile(t *testing.T) {
	domain := &stub{view: fullView()}
	c := newClient(t, httpapi.Options{Broker: domain})
	const rest = `"id":"` + someID + `","name":"google","auth_type":"oauth2","auth_header":"client_secret_basic",
		"auth_url":"https://a.example.com/?x=1&y=2","token_url":"https://t.example.com","issuer":"https://i.example.com",
		"enable_discovery":true,"scopes":["openid"],"api_base_url":"https://api.example.com","user_info_endpoint":"/me",
		"revocation_url":"https://r.example.com","params":{"prompt":"consent"},"description":"d","category":"c"`

	internal := c.get("/providers/" + someID)
	require.JSONEq(t, `{`+rest+`,"client_id":"the-client-id","client_secret":"the-client-secret & more"}`, internal.body)
	require.Contains(t, internal.body, "?x=1&y=2", "no escapes for HTML")

	auditor := c.as(auditorKey).get("/providers/" + someID)
	require.JSONEq(t, `{`+rest+`}`, auditor.body)

	domain.view.ClientID, domain.view.ClientSecret, domain.view.ShowCredentials = secret.Value{}, secret.Value{}, true
	external := c.get("/providers/" + someID)
	require.JSONEq(t, `{`+rest+`,"credentials":{"backend":"hashicorp-vault","managed":true,"state":"ready",
		"location":"secret/nexus/providers/google","generation":3}}`, external.body)

	domain.view = broker.ProviderView{Provider: broker.Provider{ID: uuid.MustParse(someID), Profile: broker.Profile{
		Name: "plain", Params: broker.Params("null")}}}
	plain := c.get("/providers/" + someID)
	require.JSONEq(t, `{"id":"`+someID+`","name":"plain","auth_type":"oauth2","enable_discovery":false,"scopes":[]}`, plain.body)
}

// Whom a provider's credentials are not shown to, they are not read for.
func TestAnAuditorReadsNoCredentials(t *testing.T) {
	d := deploy(t, "internal")
	path := "/providers/" + d.register(d.profile("google"))
	reads := func() string { return d.get("/audit?event_type=credentials.read").body }
	before := reads()
	auditor := d.as(auditorKey).get(path).decode(t)
	require.Equal(t, "google", auditor["name"])
	require.NotContains(t, auditor, "client_id")
	require.Equal(t, before, reads())
	require.Equal(t, "test-client", d.get(path).decode(t)["client_id"])
	require.NotEqual(t, before, reads())
}

func TestListings(t *testing.T) {
	checked := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	other := uuid.MustParse("0b9f3c67-31a5-4f5d-8a68-5fd0d3a4ad90")
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	for path, empty := range map[string]string{"/providers": "[]", "/providers/": "[]", "/providers/health": "[]", "/providers/metadata": "{}"} {
		answer := c.get(path)
		require.Equal(t, empty, strings.TrimSpace(answer.body), path)
		require.Equal(t, broker.Page{}, domain.last(), "everything")
	}
	domain.providers = []broker.Provider{
		{ID: uuid.MustParse(someID), Profile: broker.Profile{Name: "google", APIBaseURL: "https://api.example.com", Scopes: []string{"a"}},
			Health: broker.Health{Status: broker.HealthHealthy, CheckedAt: checked}},
		{ID: other, Profile: broker.Profile{Name: "weather", AuthType: "api_key", Category: "c"}},
	}
	require.JSONEq(t, `[{"id":"`+someID+`","name":"google"},{"id":"`+other.String()+`","name":"weather"}]`, c.get("/providers").body)
	require.JSONEq(t, `[
		{"id":"`+someID+`","name":"google","health_status":"healthy","health_message":"","last_health_check_at":"2025-03-01T12:00:00Z"},
		{"id":"`+other.String()+`","name":"weather","health_status":"unknown","health_message":"","last_health_check_at":null}]`,
		c.get("/providers/health").body)
	require.JSONEq(t, `{
		"oauth2":{"google":{"id":"`+someID+`","api_base_url":"https://api.example.com","user_info_endpoint":"","scopes":["a"],"description":"","category":""}},
		"api_key":{"weather":{"id":"`+other.String()+`","api_base_url":"","user_info_endpoint":"","scopes":[],"description":"","category":"c"}}}`,
		c.get("/providers/metadata").body)

	c.get("/providers?limit=2&after=" + someID)
	require.Equal(t, broker.Page{Limit: 2, After: uuid.MustParse(someID)}, domain.last())
	for query, code := range map[string]string{
		"limit=0": "invalid_limit", "limit=-1": "invalid_limit", "limit=x": "invalid_limit", "limit=99999999999999999999": "invalid_limit",
		"after=x": "invalid_after",
	} {
		for _, path := range []string{"/providers", "/providers/health", "/providers/metadata"} {
			c.get(path+"?"+query).requireError(t, 400, code)
		}
	}
}

// A list that breaks off after thousands of rows is an error like any other, and no part
// of it is answered.
func TestAListThatBreaksOffIsAnError(t *testing.T) {
	domain := &stub{err: errors.New("the database has gone")}
	for i := range 3000 {
		domain.providers = append(domain.providers, broker.Provider{ID: uuid.New(), Profile: broker.Profile{Name: fmt.Sprintf("p-%d", i)}})
	}
	c := newClient(t, httpapi.Options{Broker: domain})
	for _, path := range []string{"/providers", "/providers/metadata", "/providers/health"} {
		c.get(path).requireError(t, 500, "internal_error")
	}
	domain.err = nil
	var list []struct{ ID, Name string }
	require.NoError(t, json.Unmarshal([]byte(c.get("/providers").body), &list))
	require.Len(t, list, 3000)
	require.Equal(t, "p-2999", list[2999].Name)
}

func TestByName(t *testing.T) {
	domain := &stub{id: uuid.MustParse(someID), deleted: 2}
	c := newClient(t, httpapi.Options{Broker: domain})
	require.JSONEq(t, `{"id":"`+someID+`"}`, c.get("/providers/by-name/New%20Provider%20%2F%20Name").body)
	require.Equal(t, "New Provider / Name", domain.last())
	require.JSONEq(t, `{"message":"Deleted 2 provider(s)"}`, c.do("DELETE", "/providers/by-name/Google", "").body)
	domain.deleted = 0
	c.do("DELETE", "/providers/by-name/google", "").requireError(t, 404, "provider_not_found")
}

package httpapi_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/httpapi"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

func tokenSet(t *testing.T, fields string) oauth.TokenSet {
	t.Helper()
	set, err := oauth.DecodeTokenSet([]byte(fields))
	require.NoError(t, err)
	return set
}

func TestToken(t *testing.T) {
	const path = "/connections/" + someID + "/token"
	domain := &stub{token: broker.TokenAnswer{
		AuthType: "oauth2", Strategy: []byte(`{"type":"oauth2"}`),
		Token:     tokenSet(t, `{"access_token":"at&<>","token_type":"Bearer","expires_in":3600,"refresh_token":"rt","extra":{"a":1.10}}`),
		ExpiresAt: time.Date(2025, 3, 1, 13, 0, 0, 123000, time.FixedZone("", 3600)), Expired: true,
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	admin := c.get(path)
	const fields = `"access_token":"at&<>","token_type":"Bearer","expires_in":3600,"extra":{"a":1.10}`
	require.JSONEq(t, `{`+fields+`,"refresh_token":"rt","expires_at":"2025-03-01T12:00:00Z","expired":true,
		"strategy":{"type":"oauth2"},"credentials":{`+fields+`,"refresh_token":"rt","expires_at":"2025-03-01T12:00:00Z","expired":true}}`, admin.body)
	require.Contains(t, admin.body, `{"a":1.10}`, "values stay as the provider wrote them")
	require.Contains(t, admin.body, `"at&<>"`)

	agent := c.as(agentKey).get(path)
	require.JSONEq(t, `{`+fields+`,"expires_at":"2025-03-01T12:00:00Z","expired":true,
		"strategy":{"type":"oauth2"},"credentials":{`+fields+`,"expires_at":"2025-03-01T12:00:00Z","expired":true}}`, agent.body)

	domain.token.ExpiresAt = time.Time{}
	require.NotContains(t, c.get(path).body, `"expire`+`d"`)
}

// The provider cannot replace what the broker says.
func TestTokenFieldsOfTheBrokerWin(t *testing.T) {
	domain := &stub{token: broker.TokenAnswer{
		Strategy: []byte(`{"type":"oauth2"}`), ExpiresAt: time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC),
		Token: tokenSet(t, `{"access_token":"at","strategy":"x","credentials":"x","expires_at":1,"expired":"x"}`),
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	require.JSONEq(t, `{"access_token":"at","strategy":{"type":"oauth2"},"expires_at":"2025-03-01T12:00:00Z","expired":false,
		"credentials":{"access_token":"at","strategy":"x","credentials":"x","expires_at":"2025-03-01T12:00:00Z","expired":false}}`,
		c.get("/connections/"+someID+"/token").body)
}

func TestStaticCredentials(t *testing.T) {
	domain := &stub{token: broker.TokenAnswer{
		AuthType: "api_key", Strategy: []byte(`{"type":"header","config":{"header_name":"X-API-Key","credential_field":"api_key"}}`),
		Token: tokenSet(t, `{"api_key":"k","refresh_token":"rt"}`),
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	const strategy = `"strategy":{"type":"header","config":{"header_name":"X-API-Key","credential_field":"api_key"}}`
	require.JSONEq(t, `{`+strategy+`,"credentials":{"api_key":"k","refresh_token":"rt"}}`, c.get("/connections/"+someID+"/token").body)
	require.JSONEq(t, `{`+strategy+`,"credentials":{"api_key":"k"}}`, c.as(agentKey).get("/connections/"+someID+"/token").body)
}

func TestRefresh(t *testing.T) {
	domain := &stub{token: broker.TokenAnswer{
		AuthType: "oauth2", Strategy: []byte(`{"type":"oauth2"}`), ExpiresAt: time.Now(),
		Token: tokenSet(t, `{"access_token":"at","refresh_token":"rt"}`),
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	require.JSONEq(t, `{"access_token":"at","refresh_token":"rt"}`, c.do("POST", "/connections/"+someID+"/refresh", "").body)
	require.Equal(t, uuid.MustParse(someID), domain.last())
	require.JSONEq(t, `{"access_token":"at"}`, c.as(agentKey).do("POST", "/connections/"+someID+"/refresh", "").body)
}

// An agent gets no refresh token wherever the provider puts it: Slack's, for one, is
// below authed_user.
func TestAgentsGetNoRefreshTokenAtAnyDepth(t *testing.T) {
	const given = `{"access_token":"at","refresh_token":"CANARY","big":12345678901234567890,"ratio":1.10,"html":"<&>",
		"authed_user":{"id":"U1","n":1.10,"mark":"<&>","access_token":"ut","refresh_token":"CANARY"},
		"list":[1.10,{"a":[{"refresh_token":{"token":"CANARY"},"b":null}]},"refresh_token"],
		"escaped":{"refresh_t\u006fken":"CANARY"}}`
	const agents = `{"access_token":"at","big":12345678901234567890,"ratio":1.10,"html":"<&>",
		"authed_user":{"id":"U1","n":1.10,"mark":"<&>","access_token":"ut"},
		"list":[1.10,{"a":[{"b":null}]},"refresh_token"],"escaped":{}}`
	domain := &stub{token: broker.TokenAnswer{AuthType: "oauth2", Strategy: []byte(`{"type":"oauth2"}`), Token: tokenSet(t, given)}}
	c := newClient(t, httpapi.Options{Broker: domain})
	const token, refresh = "/connections/" + someID + "/token", "/connections/" + someID + "/refresh"

	body := c.as(agentKey).do("POST", refresh, "").body
	require.JSONEq(t, agents, body)
	for _, kept := range []string{`12345678901234567890`, `"ratio":1.10`, `"n":1.10`, `[1.10,`, `"mark":"<&>"`} {
		require.Contains(t, body, kept, "what stays is as the provider wrote it")
	}
	require.NotContains(t, c.as(agentKey).get(token).body, "CANARY")
	require.JSONEq(t, given, c.as(adminKey).do("POST", refresh, "").body)
}

func TestConnectionRequestsThatAreRefused(t *testing.T) {
	domain := &stub{}
	c := newClient(t, httpapi.Options{Broker: domain})
	c.get("/connections/x/token").requireError(t, 400, "invalid_connection_id")
	c.do("POST", "/connections/x/refresh", "").requireError(t, 400, "invalid_connection_id")
	for _, bad := range []string{"", "=", "=-1", "=1.5", "=5m", "=31622401", "=99999999999999999999"} {
		c.get("/connections/"+someID+"/token?min_ttl"+bad).requireError(t, 400, "invalid_min_ttl")
	}
	c.get("/connections?workspace_id=ws&limit=0").requireError(t, 400, "invalid_limit")
	c.get("/connections?workspace_id=ws&after=x").requireError(t, 400, "invalid_after")
	c.do("DELETE", "/connections/x", "").requireError(t, 400, "invalid_connection_id")
	c.do("DELETE", "/connections/"+someID, "[]").requireError(t, 400, "invalid_json")
	c.do("DELETE", "/connections/"+someID, `{"reason":5}`).requireError(t, 400, "invalid_json")
	require.Zero(t, domain.calls())
}

func TestAttentionRequiredHasDetailToo(t *testing.T) {
	c := newClient(t, httpapi.Options{Broker: &stub{err: &broker.Error{Code: broker.CodeAttentionRequired, Message: "consent again"}}})
	answer := c.get("/connections/" + someID + "/token")
	require.Equal(t, 409, answer.StatusCode)
	require.JSONEq(t, `{"error":"attention_required","detail":"consent again","message":"consent again"}`, answer.body)
}

func TestTokenThatLasts(t *testing.T) {
	domain := &stub{token: broker.TokenAnswer{
		AuthType: "oauth2", Strategy: []byte(`{"type":"oauth2"}`), Token: tokenSet(t, `{"access_token":"at","refresh_token":"rt"}`),
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	require.NotContains(t, c.as(agentKey).get("/connections/"+someID+"/token?min_ttl=300").body, "rt")
	require.Equal(t, 5*time.Minute, domain.last())
	c.get("/connections/" + someID + "/token?min_ttl=0")
	require.Equal(t, uuid.MustParse(someID), domain.last(), "as without it")
}

func TestConnectionsOfAWorkspace(t *testing.T) {
	at := time.Date(2025, 3, 1, 13, 0, 0, 0, time.FixedZone("", 3600))
	domain := &stub{connections: []broker.ConnectionSummary{
		{ID: uuid.MustParse(someID), WorkspaceID: "ws", ProviderID: uuid.MustParse(someID), ProviderName: "google", Status: broker.StatusActive,
			HealthStatus: broker.HealthHealthy, Scopes: []string{"a"}, CreatedAt: at, UpdatedAt: at, TokenExpiresAt: at},
		{ID: uuid.MustParse(someID), WorkspaceID: "ws", ProviderID: uuid.MustParse(someID), ProviderName: "google", Status: broker.StatusRevoked,
			HealthStatus: broker.HealthUnknown, CreatedAt: at, UpdatedAt: at},
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	const same = `"id":"` + someID + `","workspace_id":"ws","provider_id":"` + someID + `","provider_name":"google",
		"created_at":"2025-03-01T12:00:00Z","updated_at":"2025-03-01T12:00:00Z"`
	for _, key := range []string{adminKey, agentKey, auditorKey} {
		require.JSONEq(t, `[{`+same+`,"status":"active","health_status":"healthy","scopes":["a"],"expires_at":"2025-03-01T12:00:00Z"},
			{`+same+`,"status":"revoked","health_status":"unknown","scopes":[],"expires_at":null}]`,
			c.as(key).get("/connections?workspace_id=ws&limit=5&after="+someID).body)
	}
	require.Equal(t, broker.Page{Limit: 5, After: uuid.MustParse(someID)}, domain.last())
	domain.connections = nil
	require.JSONEq(t, `[]`, c.get("/connections?workspace_id=ws").body)
}

func TestRevocation(t *testing.T) {
	domain := &stub{revocation: broker.Revocation{
		ConnectionID: uuid.MustParse(someID), ProviderName: "google", TokenDeleted: true,
		RevokedAt: time.Date(2025, 3, 1, 13, 0, 0, 0, time.FixedZone("", 3600)),
	}}
	c := newClient(t, httpapi.Options{Broker: domain})
	answer := c.as(agentKey).do("DELETE", "/connections/"+someID, "")
	require.JSONEq(t, `{"connection_id":"`+someID+`","provider_name":"google","status":"revoked","revoked_at":"2025-03-01T12:00:00Z",
		"token_deleted":true,"provider_revoked":false}`, answer.body)
	id := uuid.MustParse(someID)
	for request, want := range map[string]broker.RevokeRequest{
		"":                                {ConnectionID: id},
		"?reason=left&workspace_id=ws":    {ConnectionID: id, Reason: "left", WorkspaceID: "ws"},
		` {"reason":"a","other":1}`:       {ConnectionID: id, Reason: "a"},
		`?workspace_id=b {"reason":"a"}`:  {ConnectionID: id, Reason: "a", WorkspaceID: "b"},
		`?reason=b {"reason":"a"}`:        {ConnectionID: id, Reason: "a"},
		`?reason=b {"workspace_id":"w"}`:  {ConnectionID: id, Reason: "b", WorkspaceID: "w"},
		`?reason=b {"workspace_id":null}`: {ConnectionID: id, Reason: "b"},
	} {
		query, body, _ := strings.Cut(request, " ")
		require.Equal(t, 200, c.do("DELETE", "/connections/"+someID+query, body).StatusCode)
		require.Equal(t, want, domain.last(), request)
	}
	calls := domain.calls()
	c.as(auditorKey).do("DELETE", "/connections/"+someID, "").requireError(t, 403, "forbidden")
	require.Equal(t, calls, domain.calls())
}

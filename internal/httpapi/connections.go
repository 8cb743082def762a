package httpapi

import (
	"maps"
	"net/http"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

func (a *api) token(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, codeInvalidConnectionID)
	if err != nil {
		return err
	}
	if r.URL.Query().Has("min_ttl") {
		return failure(codeUnsupportedParameter, "this broker does not know min_ttl")
	}
	answer, err := a.Broker.Token(r.Context(), id)
	if err != nil {
		return err
	}
	answer.Token = forRole(answer.Token, callFrom(r.Context()).role)
	return writeToken(w, answer)
}

func (a *api) refresh(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, codeInvalidConnectionID)
	if err != nil {
		return err
	}
	answer, err := a.Broker.Refresh(r.Context(), id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, forRole(answer.Token, callFrom(r.Context()).role).Fields())
}

// forRole leaves out what a role may not see: an agent gets what it needs to call
// the provider's API, never what it could renew it with, wherever the provider puts it.
func forRole(t oauth.TokenSet, role Role) oauth.TokenSet {
	if role == Agent {
		return t.WithoutAtAnyDepth("refresh_token")
	}
	return t
}

// writeToken answers a token: its fields under "credentials", and of an OAuth
// provider the same fields at the top too. When it expires is told with them.
func writeToken(w http.ResponseWriter, answer broker.TokenAnswer) error {
	credentials := map[string]any{}
	for name, value := range answer.Token.Fields() {
		credentials[name] = value
	}
	if !answer.ExpiresAt.IsZero() {
		credentials["expires_at"] = answer.ExpiresAt.UTC().Format(time.RFC3339)
		credentials["expired"] = answer.Expired
	}
	body := map[string]any{}
	if answer.AuthType == broker.AuthOAuth2 || answer.AuthType == "" {
		maps.Copy(body, credentials)
	}
	body["strategy"] = answer.Strategy
	body["credentials"] = credentials
	return writeJSON(w, http.StatusOK, body)
}

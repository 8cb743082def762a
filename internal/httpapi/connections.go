package httpapi

import (
	"bytes"
	"maps"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/oauth"
)

func (a *api) token(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, codeInvalidConnectionID)
	if err != nil {
		return err
	}
	atLeast, err := minTTL(r.URL.Query())
	if err != nil {
		return err
	}
	var answer broker.TokenAnswer
	if atLeast > 0 {
		answer, err = a.Broker.TokenLasting(r.Context(), id, atLeast)
	} else {
		answer, err = a.Broker.Token(r.Context(), id)
	}
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

func (a *api) listConnections(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	page, err := pageOf(q)
	if err != nil {
		return err
	}
	return writeList(w, a.Broker.Connections(r.Context(), q.Get("workspace_id"), page), viewConnection)
}

func viewConnection(c broker.ConnectionSummary) any {
	view := struct {
		ID           uuid.UUID               `json:"id"`
		WorkspaceID  string                  `json:"workspace_id"`
		ProviderID   uuid.UUID               `json:"provider_id"`
		ProviderName string                  `json:"provider_name"`
		Status       broker.ConnectionStatus `json:"status"`
		HealthStatus broker.HealthStatus     `json:"health_status"`
		Scopes       []string                `json:"scopes"`
		CreatedAt    time.Time               `json:"created_at"`
		UpdatedAt    time.Time               `json:"updated_at"`
		ExpiresAt    *time.Time              `json:"expires_at"`
	}{
		c.ID, c.WorkspaceID, c.ProviderID, c.ProviderName, c.Status, c.HealthStatus, c.Scopes,
		c.CreatedAt.UTC(), c.UpdatedAt.UTC(), nil,
	}
	if view.Scopes == nil {
		view.Scopes = []string{}
	}
	if !c.TokenExpiresAt.IsZero() {
		expires := c.TokenExpiresAt.UTC()
		view.ExpiresAt = &expires
	}
	return view
}

func (a *api) revokeConnection(w http.ResponseWriter, r *http.Request) error {
	in, err := revokeRequest(r)
	if err != nil {
		return err
	}
	done, err := a.Broker.Revoke(r.Context(), in)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		ConnectionID    uuid.UUID               `json:"connection_id"`
		ProviderName    string                  `json:"provider_name"`
		Status          broker.ConnectionStatus `json:"status"`
		RevokedAt       time.Time               `json:"revoked_at"`
		TokenDeleted    bool                    `json:"token_deleted"`
		ProviderRevoked bool                    `json:"provider_revoked"`
	}{done.ConnectionID, done.ProviderName, broker.StatusRevoked, done.RevokedAt.UTC(), done.TokenDeleted, done.ProviderRevoked})
}

// revokeRequest reads reason and workspace_id from the body, if there is one, and what
// it does not say from the query.
func revokeRequest(r *http.Request) (in broker.RevokeRequest, err error) {
	if in.ConnectionID, err = pathID(r, codeInvalidConnectionID); err != nil {
		return in, err
	}
	q := r.URL.Query()
	in.WorkspaceID, in.Reason = q.Get("workspace_id"), q.Get("reason")
	body, err := readBody(r)
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return in, err
	}
	var said struct {
		WorkspaceID *string `json:"workspace_id"`
		Reason      *string `json:"reason"`
	}
	if err := decode(body, &said, 1); err != nil {
		return in, err
	}
	if said.WorkspaceID != nil {
		in.WorkspaceID = *said.WorkspaceID
	}
	if said.Reason != nil {
		in.Reason = *said.Reason
	}
	return in, nil
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

package httpapi

import (
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/audit"
	"github.com/nexus-broker/nexus-broker/internal/broker"
)

func (a *api) auditEvents(w http.ResponseWriter, r *http.Request) error {
	filter, err := auditFilter(r.URL.Query())
	if err != nil {
		return err
	}
	return writeList(w, a.Broker.AuditEvents(r.Context(), filter), func(e audit.Event) any { return newEventBody(e) })
}

// eventBody is an audit event; event_data is a string that holds JSON.
type eventBody struct {
	ID           uuid.UUID  `json:"id"`
	ConnectionID *uuid.UUID `json:"connection_id,omitempty"`
	Type         audit.Type `json:"event_type"`
	Data         string     `json:"event_data,omitempty"`
	IPAddress    string     `json:"ip_address,omitempty"`
	UserAgent    string     `json:"user_agent,omitempty"`
	CreatedAt    time.Time  `json:"created_at"`
}

func newEventBody(e audit.Event) eventBody {
	body := eventBody{ID: e.ID, Type: e.Type, IPAddress: e.IPAddress, UserAgent: e.UserAgent, CreatedAt: e.CreatedAt}
	if e.ConnectionID != uuid.Nil {
		body.ConnectionID = &e.ConnectionID
	}
	if e.Data != nil {
		body.Data, _ = e.DataJSON() // what the database has read as JSON can be written as JSON
	}
	return body
}

// health answers while the process lives. Clients compare the bytes.
func (a *api) health(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", typeJSON)
	_, _ = io.WriteString(w, `{"status": "healthy"}`)
	return nil
}

func (a *api) ready(w http.ResponseWriter, r *http.Request) error {
	type component struct {
		Backend string     `json:"backend,omitempty"`
		Status  string     `json:"status"`
		Since   *time.Time `json:"since,omitempty"`
		Message string     `json:"message,omitempty"`
	}
	type components struct {
		Database      component  `json:"database"`
		SecretBackend component  `json:"secret_backend"`
		EncryptionKey *component `json:"encryption_key,omitempty"` // if something is wrong with it
		APIKeys       *component `json:"api_keys,omitempty"`       // if there is none
	}
	state := a.Broker.Ready(r.Context())
	status := http.StatusOK
	if state.Status == broker.Unavailable {
		status = http.StatusServiceUnavailable
	}
	view := func(c broker.Component) component {
		return component{c.Backend, c.Status, orNull(c.Since), c.Message}
	}
	all := components{Database: view(state.Database), SecretBackend: view(state.Secrets)}
	if state.EncryptionKey.Status != "" {
		key := view(state.EncryptionKey)
		all.EncryptionKey = &key
	}
	if a.Keys != nil && a.Keys.none() {
		all.APIKeys = &component{Status: "unavailable", Message: "no API key is left: every call is refused; put one into the file of keys"}
		if state.Status == broker.Ready {
			state.Status = broker.Degraded
		}
	}
	return writeJSON(w, status, struct {
		Status     broker.ReadyStatus `json:"status"`
		Components components         `json:"components"`
	}{state.Status, all})
}

func (a *api) metrics(w http.ResponseWriter, r *http.Request) error {
	a.Metrics.ServeHTTP(w, r)
	return nil
}

func (a *api) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(a.OpenAPI)
	return nil
}

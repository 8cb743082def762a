package httpapi

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/secret"
)

func (a *api) beginConsent(w http.ResponseWriter, r *http.Request) error {
	in, err := consentRequest(r)
	if err != nil {
		return err
	}
	consent, err := a.Broker.Begin(r.Context(), in)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		AuthURL    string    `json:"authUrl"`
		State      string    `json:"state"`
		Scopes     []string  `json:"scopes"`
		ProviderID uuid.UUID `json:"provider_id"`
	}{consent.AuthURL, consent.State, consent.Scopes, consent.ProviderID})
}

func consentRequest(r *http.Request) (broker.ConsentRequest, error) {
	var body struct {
		WorkspaceID  string   `json:"workspace_id"`
		ProviderID   string   `json:"provider_id"`
		Scopes       []string `json:"scopes"`
		ReturnURL    string   `json:"return_url"`
		ConnectionID *string  `json:"connection_id"`
	}
	if err := decodeBody(r, &body, 1); err != nil {
		return broker.ConsentRequest{}, err
	}
	in := broker.ConsentRequest{
		WorkspaceID: body.WorkspaceID, ProviderID: body.ProviderID, Scopes: body.Scopes, ReturnURL: body.ReturnURL,
	}
	if body.ConnectionID == nil {
		return in, nil
	}
	id, err := parseID(*body.ConnectionID, codeInvalidConnectionID, "connection_id is not a UUID")
	if err == nil && id == uuid.Nil {
		err = failure(broker.CodeConnectionNotFound, "no connection has this id")
	}
	in.ConnectionID = id
	return in, err
}

func (a *api) completeConsent(w http.ResponseWriter, r *http.Request) error {
	in, err := callbackOf(r.URL.Query())
	if err != nil {
		return err
	}
	to, err := a.Broker.Complete(r.Context(), in)
	if err != nil {
		return err
	}
	return redirect(w, to.URL)
}

// callbackOf reads an authorization response. No parameter may be there twice
// (RFC 6749 §3.1): which of the two is meant would be the attacker's to choose.
func callbackOf(q url.Values) (broker.Callback, error) {
	for _, name := range []string{"code", "state", "error", "iss"} {
		if len(q[name]) > 1 {
			return broker.Callback{}, failure(broker.CodeMissingParams, "the parameter "+name+" is there more than once")
		}
	}
	return broker.Callback{
		Code: secret.NewValue(q.Get("code")), State: q.Get("state"), Error: q.Get("error"), Issuer: q.Get("iss"),
	}, nil
}

func (a *api) captureForm(w http.ResponseWriter, r *http.Request) error {
	state := r.URL.Query().Get("state")
	form, err := a.Broker.CaptureForm(r.Context(), state)
	if err != nil {
		return err
	}
	w.Header().Add("Vary", "Accept")
	if wantsPage(r) {
		return a.showForm(w, http.StatusOK, form, state, "")
	}
	return writeJSON(w, http.StatusOK, struct {
		ProviderName string          `json:"provider_name"`
		Schema       json.RawMessage `json:"schema"`
	}{form.ProviderName, form.Schema})
}

// capture takes what a user has entered, from a program as JSON or from our form.
func (a *api) capture(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(r)
	if err != nil {
		return err
	}
	if isForm(r, body) {
		return a.captureFromForm(w, r, body)
	}
	var in struct {
		State       string                     `json:"state"`
		Credentials map[string]json.RawMessage `json:"credentials"`
	}
	if err := decode(body, &in, 1); err != nil {
		return err
	}
	to, err := a.Broker.Capture(r.Context(), in.State, in.Credentials)
	if err != nil {
		return err
	}
	return redirect(w, to.URL)
}

// isForm reports whether the body is a form of a browser. A JSON object is none,
// whatever the header says: "curl -d" calls everything a form.
func isForm(r *http.Request, body []byte) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/x-www-form-urlencoded" && !startsObject(body)
}

// captureFromForm shows the form again, empty, if the credentials are not good.
func (a *api) captureFromForm(w http.ResponseWriter, r *http.Request, body []byte) error {
	posted, err := url.ParseQuery(string(body))
	if err != nil {
		return failure(codeInvalidForm, "the form's fields cannot be read")
	}
	state := posted.Get("state")
	form, err := a.Broker.CaptureForm(r.Context(), state)
	if err != nil {
		return err
	}
	to, err := a.Broker.Capture(r.Context(), state, credentialsOf(form.Schema, posted))
	switch {
	case err == nil:
		return redirect(w, to.URL)
	case broker.CodeOf(err) == broker.CodeInvalidCredentials && wantsPage(r):
		e, status := describe(err)
		callFrom(r.Context()).code = e.WireCode()
		return a.showForm(w, status, form, state, e.Message)
	}
	return err
}

package httpapi

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// handler answers a request, or returns the error that is to be answered. It has
// written nothing when it returns an error.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one operation of the API.
type route struct {
	method, pattern string
	who             audience
	handle          handler
	// pages: people's browsers come here, so that a failure is shown as a page to who
	// prefers HTML.
	pages bool
}

func (a *api) routes() []route {
	return []route{
		{"POST", "/providers", admins, a.registerProvider, false},
		{"GET", "/providers", auditors, a.listProviders, false},
		{"GET", "/providers/metadata", auditors, a.providersMetadata, false},
		{"GET", "/providers/health", auditors, a.providersHealth, false},
		{"GET", "/providers/by-name/{name}", auditors, a.providerByName, false},
		{"DELETE", "/providers/by-name/{name}", admins, a.deleteProvidersByName, false},
		{"GET", "/providers/{id}", auditors, a.getProvider, false},
		{"PUT", "/providers/{id}", admins, a.replaceProvider, false},
		{"PATCH", "/providers/{id}", admins, a.patchProvider, false},
		{"DELETE", "/providers/{id}", admins, a.deleteProvider, false},

		{"POST", "/auth/consent-spec", agents, a.beginConsent, false},
		{"GET", "/auth/capture-schema", public, a.captureForm, true},
		{"POST", "/auth/capture-credential", public, a.capture, true},

		{"GET", "/connections", everyone, a.listConnections, false},
		{"DELETE", "/connections/{id}", agents, a.revokeConnection, false},
		{"GET", "/connections/{id}/token", agents, a.token, false},
		{"POST", "/connections/{id}/refresh", agents, a.refresh, false},

		{"GET", "/audit", auditors, a.auditEvents, false},
		{"GET", "/health", public, a.health, false},
		{"GET", "/health/ready", public, a.ready, false},
		{"GET", "/openapi.yaml", public, a.openAPI, false},
	}
}

// unmatched stands for the route of requests that have none.
const unmatched = "unmatched"

func (a *api) newMux() *http.ServeMux {
	endpoints := map[string]endpoint{}
	for _, rt := range a.routes() {
		endpoints[rt.pattern] = endpoints[rt.pattern].with(a, rt)
	}
	if a.Metrics != nil {
		endpoints["/metrics"] = endpoint{}.with(a, route{"GET", "/metrics", public, a.metrics, false})
	}
	mux := http.NewServeMux()
	for pattern, e := range endpoints {
		mux.Handle(pattern, e)
	}
	mux.Handle("/providers/{$}", endpoints["/providers"])
	mux.HandleFunc("/", a.notFound)
	// Outside of the mux, because its path is the operator's to choose.
	a.callback = endpoint{}.with(a, route{"GET", DefaultRedirectPath, public, a.completeConsent, true})
	return mux
}

// serve finds the endpoint and turns a panic into an answer.
func (a *api) serve(w *recorder, r *http.Request) {
	defer a.recover(w, r)
	switch {
	case r.URL.Path == a.RedirectPath:
		a.callback.ServeHTTP(w, r)
	case !canonical(r.URL.EscapedPath()):
		a.notFound(w, r) // the mux would redirect it
	default:
		a.mux.ServeHTTP(w, r)
	}
}

func canonical(p string) bool {
	return strings.HasPrefix(p, "/") && (p == "/" || path.Clean(p) == strings.TrimSuffix(p, "/"))
}

func (a *api) notFound(w http.ResponseWriter, r *http.Request) {
	a.fail(w, r, failure(codeNotFound, "there is no such route; GET /openapi.yaml lists them"))
}

// endpoint is the operations of one pattern, by method.
type endpoint struct {
	api     *api
	pattern string
	methods map[string]route
	allow   string // the header
}

func (e endpoint) with(a *api, rt route) endpoint {
	if e.methods == nil {
		e = endpoint{api: a, pattern: rt.pattern, methods: map[string]route{}}
	}
	e.methods[rt.method] = rt
	// HEAD is GET without the body, except where a GET uses something up.
	if rt.method == http.MethodGet && !rt.pages {
		e.methods[http.MethodHead] = rt
	}
	e.allow = strings.Join(slices.Sorted(maps.Keys(e.methods)), ", ")
	return e
}

// ServeHTTP implements http.Handler.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := callFrom(r.Context())
	c.route = e.pattern
	rt, ok := e.methods[r.Method]
	if !ok {
		w.Header().Set("Allow", e.allow)
		e.api.fail(w, r, failure(codeMethodNotAllowed, "this route takes "+e.allow))
		return
	}
	c.pages = rt.pages
	if err := e.api.answer(rt, w, r); err != nil {
		e.api.fail(w, r, err)
	}
}

// answer is the one way into every operation.
func (a *api) answer(rt route, w http.ResponseWriter, r *http.Request) error {
	if err := a.admit(r, rt.who); err != nil {
		return err
	}
	if r.ContentLength > MaxBodyBytes {
		return errBodyTooLarge()
	}
	if r.ContentLength < 0 { // its end tells how long it is, also where the operation takes no body
		body, err := readBody(r)
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	a.allowTime(rt, w)
	return rt.handle(w, r)
}

// allowTime moves the end of the time for an answer away, which else is the server's for
// every answer: a change that a slow secret backend holds up would be made, and its caller
// cut off without a word. Where anybody may call it stays as it is.
func (a *api) allowTime(rt route, w http.ResponseWriter) {
	if a.AnswerTime == 0 || rt.method == http.MethodGet || rt.who == nil {
		return
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.AnswerTime)); err != nil {
		a.Logger.Debug("the time for an answer was not extended", "err", err)
	}
}

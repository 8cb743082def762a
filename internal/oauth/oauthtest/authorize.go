package oauthtest

import (
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// authorization is an authorization request (RFC 6749 §4.1.1) that has been found
// in order.
type authorization struct {
	clientID, redirectURI, scope, state, nonce, challenge, loginHint string
}

const codeTTL = time.Minute

var s256Challenge = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// authorize is the authorization endpoint. A request whose client or redirect URI is
// wrong is answered here, never by a redirect (RFC 6749 §4.1.2.1).
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	for _, values := range q {
		if len(values) > 1 {
			refuse(w, http.StatusBadRequest, "invalid_request", "a parameter is there twice")
			return
		}
	}
	a := authorization{
		clientID: q.Get("client_id"), redirectURI: q.Get("redirect_uri"), scope: q.Get("scope"), state: q.Get("state"),
		nonce: q.Get("nonce"), challenge: q.Get("code_challenge"), loginHint: q.Get("login_hint"),
	}
	s.mu.Lock()
	client, known := s.clients[a.clientID]
	s.mu.Unlock()
	if !known || !client.redirectAllowed(a.redirectURI) {
		refuse(w, http.StatusBadRequest, "invalid_request", "unknown client or redirect_uri")
		return
	}
	switch {
	case q.Get("response_type") != "code":
		s.sendBack(w, r, a, url.Values{"error": {"unsupported_response_type"}})
	case q.Get("code_challenge_method") != "S256" || !s256Challenge.MatchString(a.challenge):
		s.sendBack(w, r, a, url.Values{"error": {"invalid_request"}, "error_description": {"PKCE with S256 is required"}})
	case s.opts.AskUser:
		s.ask(w, a)
	default:
		s.conclude(w, r, a, a.loginHint != "deny")
	}
}

// conclude sends the user back with a code, or with a refusal.
func (s *Server) conclude(w http.ResponseWriter, r *http.Request, a authorization, agreed bool) {
	if !agreed {
		s.sendBack(w, r, a, url.Values{"error": {"access_denied"}, "error_description": {"the user said no"}})
		return
	}
	subject := a.loginHint
	if subject == "" {
		subject = "alice"
	}
	code := s.newToken("code")
	s.mu.Lock()
	s.codes[code] = &grant{authorization: a, subject: subject, expires: s.opts.Now().Add(codeTTL)}
	s.mu.Unlock()
	s.sendBack(w, r, a, url.Values{"code": {code}})
}

// sendBack redirects to the client with state and iss (RFC 9207) added.
func (s *Server) sendBack(w http.ResponseWriter, r *http.Request, a authorization, params url.Values) {
	u, err := url.Parse(a.redirectURI)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", "malformed redirect_uri")
		return
	}
	if a.state != "" {
		params.Set("state", a.state)
	}
	params.Set("iss", s.issuer())
	u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+params.Encode(), "&")
	http.Redirect(w, r, u.String(), http.StatusFound)
}

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Consent</title>
<style>body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:4rem auto;padding:0 1rem}button{font:inherit;padding:.5rem 1.5rem;margin-right:1rem}</style>
</head><body><main>
<h1>Demo provider</h1>
<p><strong>{{.ClientID}}</strong> asks for access to your account{{with .Scope}}: <code>{{.}}</code>{{end}}.</p>
<form method="post" action="/decision">
<input type="hidden" name="request" value="{{.Request}}">
<button name="decision" value="approve" autofocus>Approve</button>
<button name="decision" value="deny">Deny</button>
</form>
</main></body></html>
`))

// ask shows the user what is asked for.
func (s *Server) ask(w http.ResponseWriter, a authorization) {
	id := s.newToken("request")
	s.mu.Lock()
	s.asked[id] = a
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_ = page.Execute(w, struct{ ClientID, Scope, Request string }{a.clientID, a.scope, id})
}

// decide takes the user's answer; each page works once.
func (s *Server) decide(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	id := r.PostFormValue("request")
	s.mu.Lock()
	a, ok := s.asked[id]
	delete(s.asked, id)
	s.mu.Unlock()
	if !ok {
		http.Error(w, "This page has been answered already. Begin again.", http.StatusBadRequest)
		return
	}
	s.conclude(w, r, a, r.PostFormValue("decision") == "approve")
}

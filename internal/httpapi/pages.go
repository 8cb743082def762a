package httpapi

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

//go:embed pages
var pageFiles embed.FS

// pages are the templates of what people see.
type pages struct {
	templates *template.Template
	style     template.CSS
	policy    string // Content-Security-Policy
}

func newPages() *pages {
	style, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(style)
	return &pages{
		templates: template.Must(template.ParseFS(pageFiles, "pages/*.html")),
		style:     template.CSS(style),
		// There is no form-action: browsers apply it to the redirect that follows the
		// post as well, and that leads to the return_url.
		policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; frame-ancestors 'none'",
	}
}

// page is what every template is given.
type page struct {
	Style template.CSS
	Title string
	// Error is the message of a failure, "" if there is none.
	Error string

	// Of message.html.
	Code, RequestID string

	// Of capture.html.
	Provider, Intro, State string
	Fields                 []formField
}

// write answers a page. When it returns an error nothing was written.
func (ps *pages) write(w http.ResponseWriter, status int, name string, p page) error {
	p.Style = ps.style
	var buf bytes.Buffer
	if err := ps.templates.ExecuteTemplate(&buf, name, p); err != nil {
		return fmt.Errorf("the page %s: %w", name, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", ps.policy)
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // an error means that the caller has gone
	return nil
}

// failPage shows a failure to a person: by way of the application that sent him, if
// the domain allows it, else on a page of our own.
func (a *api) failPage(w http.ResponseWriter, r *http.Request, e *broker.Error, status int) {
	if e.ReturnURL != "" && redirect(w, e.ReturnURL) == nil {
		return
	}
	c := callFrom(r.Context())
	err := a.pages.write(w, status, "message.html", page{
		Title: "This account could not be connected", Error: sentence(e.Message), Code: e.WireCode(), RequestID: c.id,
	})
	if err != nil {
		a.Logger.ErrorContext(r.Context(), "page failed", "request_id", c.id, "err", err)
		http.Error(w, e.Message, status)
	}
}

// showForm shows the form that the schema describes, with a message if the last
// attempt failed. What was entered is not shown again.
func (a *api) showForm(w http.ResponseWriter, status int, form broker.CaptureForm, state, message string) error {
	schema, ok := readSchema(form.Schema)
	if !ok {
		return failure(broker.CodeSchemaNotFound, "this provider's credential_schema describes no fields, so there is no form for it")
	}
	title := schema.Title
	if title == "" {
		title = "Connect " + form.ProviderName
	}
	return a.pages.write(w, status, "capture.html", page{
		Title: title, Error: sentence(message), Provider: form.ProviderName, Intro: schema.Description,
		State: state, Fields: schema.Fields,
	})
}

// wantsPage reports whether the Accept header prefers HTML to JSON (RFC 9110
// §12.5.1). A wildcard alone, as curl sends, does not: it has to be named.
func wantsPage(r *http.Request) bool {
	var html, json float64
	for _, part := range strings.Split(strings.Join(r.Header.Values("Accept"), ","), ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		quality := 1.0
		if q, given := params["q"]; given {
			quality, _ = strconv.ParseFloat(q, 64)
		}
		switch kind {
		case "text/html", "application/xhtml+xml":
			html = max(html, quality)
		case typeJSON:
			json = max(json, quality)
		}
	}
	return html > 0 && html >= json
}

// sentence returns an error's message as a page shows it.
func sentence(message string) string {
	if message == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(message)
	return string(unicode.ToUpper(first)) + message[size:] + "."
}

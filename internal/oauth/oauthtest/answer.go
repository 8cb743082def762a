package oauthtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Answer is what an endpoint does with one request. It may call ordinary, which does
// what the server would do by itself.
type Answer func(s *Server, w http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc)

// Next lets the endpoint give these answers, one a request, before it goes on as
// before.
func (s *Server) Next(e Endpoint, answers ...Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next[e] = append(s.next[e], answers...)
}

// Always lets the endpoint give this answer to every request for which Next has
// none; nil ends it.
func (s *Server) Always(e Endpoint, a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always[e] = a
}

// Ordinary is the answer that the server would give by itself.
func Ordinary() Answer {
	return func(_ *Server, w http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc) { ordinary(w, r) }
}

// Respond answers with this status, content type and body.
func Respond(status int, contentType, body string) Answer {
	return func(_ *Server, w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// Refuse answers with an OAuth error (RFC 6749 §5.2). With status 200 it is what
// GitHub and Slack do.
func Refuse(status int, code string) Answer {
	body, _ := json.Marshal(map[string]string{"error": code, "error_description": "as the test has asked for"})
	return Respond(status, "application/json", string(body))
}

// RateLimited answers 429 with a Retry-After in seconds.
func RateLimited(after time.Duration) Answer {
	return func(_ *Server, w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Retry-After", strconv.Itoa(int(after/time.Second)))
		http.Error(w, "slow down", http.StatusTooManyRequests)
	}
}

// HTML answers with a page, as a proxy or a maintenance notice does.
func HTML(status int) Answer {
	return Respond(status, "text/html; charset=utf-8", "<!doctype html><title>Sorry</title><h1>We will be back</h1>")
}

// RedirectTo answers 307, which asks to send the same body to another place.
func RedirectTo(target string) Answer {
	return func(_ *Server, w http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
	}
}

// Hang never answers. It ends with the request or the server.
func Hang() Answer {
	return func(s *Server, _ http.ResponseWriter, r *http.Request, _ http.HandlerFunc) {
		select {
		case <-r.Context().Done():
		case <-s.closed:
		}
		panic(http.ErrAbortHandler)
	}
}

// After waits before it answers.
func After(delay time.Duration, then Answer) Answer {
	return func(s *Server, w http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc) {
		if s.pause(r, delay) {
			then(s, w, r, ordinary)
		}
	}
}

// When waits until the channel is closed before it answers.
func When(release <-chan struct{}, then Answer) Answer {
	return func(s *Server, w http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc) {
		select {
		case <-release:
			then(s, w, r, ordinary)
		case <-r.Context().Done():
		case <-s.closed:
		}
	}
}

// Drip sends the ordinary answer one byte at a time, with a pause before each.
func Drip(pause time.Duration) Answer {
	return func(s *Server, w http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc) {
		a := capture(r, ordinary)
		a.copyHeader(w)
		for _, b := range a.body.Bytes() {
			if !s.pause(r, pause) {
				return
			}
			_, _ = w.Write([]byte{b})
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// Huge answers 200 with a JSON object of about size bytes.
func Huge(size int) Answer {
	return func(_ *Server, w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"huge","padding":"`))
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for sent := 0; sent < size; sent += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
		_, _ = w.Write([]byte(`"}`))
	}
}

// CutOff does what was asked for, a rotation included, and closes the connection
// without an answer.
func CutOff() Answer {
	return func(_ *Server, _ http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc) {
		capture(r, ordinary)
		panic(http.ErrAbortHandler)
	}
}

// Edit changes the members of the ordinary answer.
func Edit(edit func(fields map[string]any)) Answer {
	return func(_ *Server, w http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc) {
		a := capture(r, ordinary)
		writeJSON(w, a.status, a.edited(edit))
	}
}

// Without leaves members out of the ordinary answer, for example refresh_token.
func Without(names ...string) Answer {
	return Edit(func(fields map[string]any) {
		for _, n := range names {
			delete(fields, n)
		}
	})
}

// FormEncoded sends the ordinary answer as a form, which GitHub does.
func FormEncoded() Answer {
	return func(_ *Server, w http.ResponseWriter, r *http.Request, ordinary http.HandlerFunc) {
		a := capture(r, ordinary)
		form := url.Values{}
		for name, value := range a.edited(func(map[string]any) {}) {
			form.Set(name, fmt.Sprint(value))
		}
		Respond(a.status, "application/x-www-form-urlencoded; charset=utf-8", form.Encode())(nil, w, r, nil)
	}
}

// pause waits; it reports false if the request or the server ended first.
func (s *Server) pause(r *http.Request, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
	case <-s.closed:
	}
	return false
}

// captured is an answer that has not been sent.
type captured struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func capture(r *http.Request, h http.HandlerFunc) *captured {
	a := &captured{status: http.StatusOK, header: http.Header{}}
	h(a, r)
	return a
}

// Header implements http.ResponseWriter.
func (a *captured) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *captured) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *captured) Write(b []byte) (int, error) { return a.body.Write(b) }

func (a *captured) copyHeader(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
}

// edited returns the members of the answer after edit; numbers stay as written.
func (a *captured) edited(edit func(map[string]any)) map[string]any {
	fields := map[string]any{}
	d := json.NewDecoder(strings.NewReader(a.body.String()))
	d.UseNumber()
	_ = d.Decode(&fields)
	edit(fields)
	return fields
}

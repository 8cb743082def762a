package oauthtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
)

const (
	maxRequest = 1 << 20 // bytes of a request's body
	kept       = 10_000  // requests
)

// Request is a request that the server has received.
type Request struct {
	Endpoint Endpoint
	Method   string
	Query    url.Values
	Header   http.Header
	Body     string
	// Params are the members of the body, be it a form or JSON; nil if it is neither.
	Params url.Values
}

// endpoint records each request, then answers as it was told to, or else ordinarily.
func (s *Server) endpoint(e Endpoint, ordinary http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			refuse(w, http.StatusRequestEntityTooLarge, "invalid_request", "")
			return
		}
		rewind := func() { r.Body = io.NopCloser(bytes.NewReader(body)) }
		rewind()
		params, _ := parameters(r)
		rewind()
		answer := s.record(Request{
			Endpoint: e, Method: r.Method, Query: r.URL.Query(), Header: r.Header.Clone(), Body: string(body), Params: params,
		})
		if answer == nil {
			ordinary(w, r)
			return
		}
		answer(s, w, r, ordinary)
	})
}

// record keeps the request and takes the answer that is due, nil for the ordinary one.
func (s *Server) record(r Request) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == kept {
		s.requests = slices.Delete(s.requests, 0, kept/2)
	}
	s.requests = append(s.requests, r)
	s.counts[string(r.Endpoint)]++
	if r.Endpoint == Token {
		s.counts[r.Params.Get("grant_type")]++
	}
	if due := s.next[r.Endpoint]; len(due) > 0 {
		s.next[r.Endpoint] = due[1:]
		return due[0]
	}
	return s.always[r.Endpoint]
}

// Count returns how many requests an endpoint has received, whatever it answered.
func (s *Server) Count(e Endpoint) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[string(e)]
}

// CountGrant returns how many token requests had the grant type,
// "authorization_code" or "refresh_token", whatever was answered.
func (s *Server) CountGrant(grantType string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[grantType]
}

// Requests returns the requests that an endpoint has received, oldest first; of a
// great many the latest.
func (s *Server) Requests(e Endpoint) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Request
	for _, r := range s.requests {
		if r.Endpoint == e {
			all = append(all, r)
		}
	}
	return all
}

// LastRequest returns the latest request that an endpoint has received, zero if none.
func (s *Server) LastRequest(e Endpoint) Request {
	all := s.Requests(e)
	if len(all) == 0 {
		return Request{}
	}
	return all[len(all)-1]
}

// parameters reads a form, or a JSON object of strings, in which no name comes twice.
func parameters(r *http.Request) (url.Values, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch mediaType {
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, errors.New("malformed form")
		}
		for name, values := range form {
			if len(values) > 1 {
				return nil, fmt.Errorf("%s is there twice", name)
			}
		}
		return form, nil
	case "application/json":
		var object map[string]string
		if json.Unmarshal(body, &object) != nil {
			return nil, errors.New("malformed JSON")
		}
		form := url.Values{}
		for name, value := range object {
			form.Set(name, value)
		}
		return form, nil
	}
	return nil, errors.New("neither a form nor JSON")
}

package awsserver

import (
	"slices"
	"strings"
	"time"
)

// Request is what the server remembers of a request: nothing of its body.
type Request struct {
	// Action is the action as a policy names it: "secretsmanager:GetSecretValue".
	Action string
	At     time.Time
	Size   int // of the body, bytes
	// Needed are the rights that the request was checked for, KMS's included.
	Needed []string
	// Error is the code of the error that it was answered with, "" for none.
	Error string
}

func (s *Server) note(r Request) (entry int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = append(s.journal, r)
	return len(s.journal) - 1
}

func (s *Server) outcome(entry int, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if entry < len(s.journal) { // Forget may have been called meanwhile
		s.journal[entry].Error = code
	}
}

// Requests returns the requests since Forget, in their order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal)
}

// Calls returns how many requests there were for an action, given without its service.
func (s *Server) Calls(action string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Action == "secretsmanager:"+action || r.Action == "sts:"+action {
			n++
		}
	}
	return n
}

// Actions returns the rights that were needed since Forget, each once, sorted.
func (s *Server) Actions() []string {
	var all []string
	for _, r := range s.Requests() {
		all = append(all, r.Needed...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Forget forgets the requests so far. It shall not be called while one is served.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = nil
}

// Names returns the names of all secrets that were ever stored and are not gone.
func (s *Server) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purge()
	var names []string
	for name, r := range s.secrets {
		if r.truth != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Below returns those of Names that begin with prefix.
func (s *Server) Below(prefix string) []string {
	return slices.DeleteFunc(s.Names(), func(n string) bool { return !strings.HasPrefix(n, prefix) })
}

package awsserver

import (
	"strconv"
	"time"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// user is who signs requests: a user with a long-lived key, or the session of a role.
type user struct {
	secret  string
	token   string    // of a session, "" for a long-lived key
	expires time.Time // zero: never
	arn     string
	role    *Role   // of a session
	policy  *Policy // nil: everything is allowed
}

// Role is a role that can be assumed.
type Role struct {
	ARN string
	// ExternalID is what AssumeRole has to present, "" for nothing.
	ExternalID string
	// Policy is what the role may do, nil: everything.
	Policy *Policy
	// Session is how long its credentials last; 0: what AssumeRole asks for.
	Session time.Duration
}

// AddUser adds a user with an access key, who may do what the policy allows; nil is
// everything.
func (s *Server) AddUser(accessKeyID, secretAccessKey string, p *Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[accessKeyID] = &user{secret: secretAccessKey, arn: "arn:aws:iam::" + Account + ":user/" + accessKeyID, policy: p}
}

// SetPolicy replaces the policy of a user; nil is everything.
func (s *Server) SetPolicy(accessKeyID string, p *Policy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[accessKeyID].policy = p
}

// RemoveUser makes an access key unknown.
func (s *Server) RemoveUser(accessKeyID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, accessKeyID)
}

// AddRole adds a role, or replaces it.
func (s *Server) AddRole(r Role) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[r.ARN] = &r
}

// ExpireSessions makes the credentials of all sessions of roles expire now.
func (s *Server) ExpireSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.users {
		if u.role != nil {
			u.expires = s.now()
		}
	}
}

// allowed returns the policy in force for u.
func (u *user) allowed() *Policy {
	if u.role != nil {
		return u.role.Policy
	}
	return u.policy
}

// need checks that the caller may do action to resource, an ARN or "*". It runs with
// the lock held.
func (s *Server) need(c *call, action, resource, shown string) error {
	c.needed = append(c.needed, action)
	if s.settings.denied[action] || !c.user.allowed().Allows(action, resource) {
		return refuse("AccessDeniedException",
			"User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
			c.user.arn, action, shown, action)
	}
	return nil
}

package awsserver

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Policy is an identity-based policy of IAM: the part of its language that a policy for
// Secrets Manager needs (Allow and Deny, wildcards, and the conditions of statements
// about KMS, which are taken as met if they name this service's region or an alias).
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement is one of a policy's.
type Statement struct {
	Sid       string `json:",omitempty"`
	Effect    string
	Action    oneOrMore
	Resource  oneOrMore
	Condition map[string]map[string]oneOrMore `json:",omitempty"`
}

// oneOrMore is a text or a list of them.
type oneOrMore []string

// UnmarshalJSON implements json.Unmarshaler.
func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// ParsePolicy reads a policy. What the server does not know in it is an error.
func ParsePolicy(text string) (*Policy, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	var p Policy
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if p.Version != "2012-10-17" {
		return nil, fmt.Errorf("policy: version %q", p.Version)
	}
	for _, st := range p.Statement {
		if st.Effect != "Allow" && st.Effect != "Deny" || len(st.Action) == 0 || len(st.Resource) == 0 {
			return nil, fmt.Errorf("policy: statement %q is not complete", st.Sid)
		}
		for operator, condition := range st.Condition {
			for key := range condition {
				if !slices.Contains([]string{"kms:ViaService", "kms:ResourceAliases"}, key) {
					return nil, fmt.Errorf("policy: condition %s %s is not known here", operator, key)
				}
			}
		}
	}
	return &p, nil
}

// Allows reports whether the policy lets action be done to resource. A nil policy allows
// everything.
func (p *Policy) Allows(action, resource string) bool {
	if p == nil {
		return true
	}
	allowed := false
	for _, st := range p.Statement {
		if !matchesAny(st.Action, action) || !matchesAny(st.Resource, resource) || !st.applies() {
			continue
		}
		if st.Effect == "Deny" {
			return false
		}
		allowed = true
	}
	return allowed
}

// Actions returns the actions that the policy allows, as they are written, sorted.
func (p *Policy) Actions() []string {
	var all []string
	for _, st := range p.Statement {
		if st.Effect == "Allow" {
			all = append(all, st.Action...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Without returns the policy less one action.
func (p *Policy) Without(action string) *Policy {
	less := &Policy{Version: p.Version}
	for _, st := range p.Statement {
		st.Action = slices.DeleteFunc(slices.Clone(st.Action), func(a string) bool { return a == action })
		if len(st.Action) > 0 {
			less.Statement = append(less.Statement, st)
		}
	}
	return less
}

func (st Statement) applies() bool {
	for _, condition := range st.Condition {
		if via, ok := condition["kms:ViaService"]; ok && !slices.Contains(via, "secretsmanager."+Region+".amazonaws.com") {
			return false
		}
	}
	return true
}

// matchesAny matches with "*" and "?", actions without regard to case.
func matchesAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		expression := regexp.QuoteMeta(p)
		expression = strings.ReplaceAll(expression, `\*`, ".*")
		expression = strings.ReplaceAll(expression, `\?`, ".")
		return regexp.MustCompile("(?s)^" + expression + "$").MatchString(s)
	})
}

package awsserver

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

type createInput struct {
	ClientRequestToken *string
	Description        string
	KmsKeyID           string `json:"KmsKeyId"`
	Name               string
	SecretBinary       []byte
	SecretString       *string
	Tags               []tag
}

type written struct {
	ARN           string
	Name          string
	VersionID     string   `json:"VersionId,omitempty"`
	VersionStages []string `json:",omitempty"`
}

// createSecret: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
func (s *Server) createSecret(c *call, in createInput) (any, error) {
	if in.Name == "" || len(in.Name) > maxName || !legalName.MatchString(in.Name) {
		return nil, refuse("ValidationException", "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!")
	}
	if err := checkText("description", in.Description, 0, maxDescription); err != nil {
		return nil, err
	}
	if err := checkText("kmsKeyId", in.KmsKeyID, 0, maxKey); err != nil {
		return nil, err
	}
	resource := arnStart + in.Name + "-??????"
	if err := s.need(c, c.action, resource, in.Name); err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 {
		if err := s.need(c, "secretsmanager:TagResource", resource, in.Name); err != nil {
			return nil, err
		}
	}
	value, err := newVersion(in.ClientRequestToken, in.SecretString, in.SecretBinary, s.now())
	if err != nil {
		return nil, err
	}
	r := s.secrets[in.Name]
	if r == nil {
		r = &record{}
	}
	if old := r.truth; old != nil {
		return existing(old, value)
	}
	if err := s.encrypt(c, in.KmsKeyID); err != nil {
		return nil, err
	}
	fresh := &secretState{
		arn: arnStart + in.Name + "-" + randomID(6), name: in.Name, description: in.Description, kmsKey: in.KmsKeyID,
		created: s.now(), changed: s.now(),
	}
	if err := fresh.tag(in.Tags); err != nil {
		return nil, err
	}
	answer := written{ARN: fresh.arn, Name: fresh.name}
	if value != nil {
		value.labels = []string{current}
		fresh.versions = []version{*value}
		answer.VersionID = value.id
	}
	r.truth = fresh
	s.secrets[in.Name] = r
	return answer, nil
}

// checkText checks the length of a member.
func checkText(member, text string, least, most int) error {
	if len(text) < least || len(text) > most {
		return refuse("ValidationException", "1 validation error detected: Value at '%s' failed to satisfy constraint: Member must have length between %d and %d", member, least, most)
	}
	return nil
}

// existing is the answer where the name is taken.
func existing(old *secretState, value *version) (any, error) {
	if !old.deleted.IsZero() {
		return nil, refuse("InvalidRequestException", "You can't create this secret because a secret with this name is already scheduled for deletion.")
	}
	if value != nil {
		if v := old.version(value.id); v != nil && v.same(value) {
			return written{ARN: old.arn, Name: old.name, VersionID: v.id}, nil
		}
	}
	return nil, refuse("ResourceExistsException", "The operation failed because the secret %s already exists.", old.name)
}

// newVersion makes a version of a request's members; nil if there is no value in it.
func newVersion(token, text *string, binary []byte, now time.Time) (*version, error) {
	switch {
	case token != nil && !legalToken.MatchString(*token):
		return nil, refuse("ValidationException", "1 validation error detected: Value at 'clientRequestToken' failed to satisfy constraint: Member must have length between 32 and 64")
	case text != nil && binary != nil:
		return nil, refuse("InvalidParameterException", "You can't specify both a binary secret value and a string secret value in the same secret.")
	case text == nil && binary == nil:
		return nil, nil
	case text != nil && len(*text) > maxValue, len(binary) > maxValue:
		return nil, refuse("ValidationException", "1 validation error detected: Value at 'secretString' failed to satisfy constraint: Member must have length less than or equal to 65536")
	}
	v := &version{created: now, text: text, binary: binary}
	if token != nil {
		v.id = *token
	} else {
		v.id = newUUID()
	}
	return v, nil
}

func (v *version) same(o *version) bool {
	if v.text != nil && o.text != nil {
		return *v.text == *o.text
	}
	return v.text == nil && o.text == nil && bytes.Equal(v.binary, o.binary)
}

type putInput struct {
	ClientRequestToken *string
	SecretBinary       []byte
	SecretID           string `json:"SecretId"`
	SecretString       *string
	VersionStages      []string
}

// putSecretValue: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html
func (s *Server) putSecretValue(c *call, in putInput) (any, error) {
	found, err := s.live(c, in.SecretID, false)
	if err != nil {
		return nil, err
	}
	value, err := newVersion(in.ClientRequestToken, in.SecretString, in.SecretBinary, s.now())
	if err == nil && value == nil {
		err = refuse("InvalidRequestException", "You must provide either SecretString or SecretBinary.")
	}
	if err != nil {
		return nil, err
	}
	if in.VersionStages == nil {
		in.VersionStages = []string{current}
	}
	if err := checkLabels(in.VersionStages); err != nil {
		return nil, err
	}
	if v := found.version(value.id); v != nil {
		if !v.same(value) {
			return nil, refuse("ResourceExistsException", "You can't use ClientRequestToken %s because that value is already in use for a version of secret %s.", value.id, found.arn)
		}
		return written{found.arn, found.name, v.id, v.labels}, nil
	}
	if err := s.encrypt(c, found.kmsKey); err != nil {
		return nil, err
	}
	v, err := found.add(value, in.VersionStages, s.now())
	if err != nil {
		return nil, err
	}
	return written{found.arn, found.name, v.id, v.labels}, nil
}

func checkLabels(labels []string) error {
	if len(labels) == 0 || len(labels) > maxLabels || slices.ContainsFunc(labels, func(l string) bool { return l == "" || len(l) > 256 }) {
		return refuse("ValidationException", "1 validation error detected: Value at 'versionStages' failed to satisfy constraint: Member must have length between 1 and 20")
	}
	return nil
}

// add adds a version with labels. The first one that a secret has is the current one.
func (s *secretState) add(value *version, labels []string, now time.Time) (*version, error) {
	if len(s.versions) == 0 && !slices.Contains(labels, current) {
		labels = append([]string{current}, labels...)
	}
	if len(s.versions) >= maxVersions {
		s.versions = slices.DeleteFunc(s.versions, func(v version) bool { return len(v.labels) == 0 && now.Sub(v.created) > 24*time.Hour })
	}
	after := s.labels()
	for _, l := range labels {
		if s.labelled(l) == nil {
			after++
		}
	}
	if len(s.versions) >= maxVersions || after > maxLabels {
		return nil, refuse("LimitExceededException", "The request failed because it would exceed one of the Secrets Manager quotas.")
	}
	s.versions = append(s.versions, *value)
	v := &s.versions[len(s.versions)-1]
	for _, l := range labels {
		s.attach(l, v)
	}
	s.changed = now
	return v, nil
}

type updateInput struct {
	ClientRequestToken *string
	Description        *string
	KmsKeyID           *string `json:"KmsKeyId"`
	SecretBinary       []byte
	SecretID           string `json:"SecretId"`
	SecretString       *string
}

// updateSecret: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecret.html
func (s *Server) updateSecret(c *call, in updateInput) (any, error) {
	found, err := s.live(c, in.SecretID, false)
	if err != nil {
		return nil, err
	}
	value, err := newVersion(in.ClientRequestToken, in.SecretString, in.SecretBinary, s.now())
	if err != nil {
		return nil, err
	}
	if in.Description != nil {
		if err := checkText("description", *in.Description, 0, maxDescription); err != nil {
			return nil, err
		}
		found.description = strings.Clone(*in.Description)
	}
	if in.KmsKeyID != nil {
		if err := checkText("kmsKeyId", *in.KmsKeyID, 0, maxKey); err != nil {
			return nil, err
		}
		found.kmsKey = *in.KmsKeyID
	}
	answer := written{ARN: found.arn, Name: found.name}
	if value == nil {
		return answer, nil
	}
	if err := s.encrypt(c, found.kmsKey); err != nil {
		return nil, err
	}
	v, err := found.add(value, []string{current}, s.now())
	if err != nil {
		return nil, err
	}
	answer.VersionID = v.id
	return answer, nil
}

package awsserver

import "slices"

type stageInput struct {
	MoveToVersionID     string `json:"MoveToVersionId"`
	RemoveFromVersionID string `json:"RemoveFromVersionId"`
	SecretID            string `json:"SecretId"`
	VersionStage        string
}

// updateSecretVersionStage moves a label from the version that has it:
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html
func (s *Server) updateSecretVersionStage(c *call, in stageInput) (any, error) {
	found, err := s.live(c, in.SecretID, false)
	if err != nil {
		return nil, err
	}
	if err := checkLabels([]string{in.VersionStage}); err != nil {
		return nil, err
	}
	for _, id := range []string{in.MoveToVersionID, in.RemoveFromVersionID} {
		if id != "" {
			if err := checkText("versionId", id, 32, 64); err != nil {
				return nil, err
			}
		}
		if id != "" && found.version(id) == nil {
			return nil, refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", id)
		}
	}
	from := found.labelled(in.VersionStage)
	switch {
	case in.RemoveFromVersionID != "" && (from == nil || from.id != in.RemoveFromVersionID):
		return nil, refuse("InvalidParameterException", "The version id %s in RemoveFromVersionId does not have the staging label %s.", in.RemoveFromVersionID, in.VersionStage)
	case in.MoveToVersionID == "" && in.RemoveFromVersionID == "":
		return nil, refuse("InvalidParameterException", "You must provide MoveToVersionId or RemoveFromVersionId.")
	case in.MoveToVersionID == "" && in.VersionStage == current:
		return nil, refuse("InvalidParameterException", "You can only move staging label AWSCURRENT to a different secret version. It can't be completely removed.")
	case in.MoveToVersionID != "" && from != nil && from.id != in.MoveToVersionID && in.RemoveFromVersionID == "":
		return nil, refuse("InvalidParameterException", "The parameter RemoveFromVersionId can't be empty. Staging label %s is currently attached to version %s, so you must explicitly reference that version in RemoveFromVersionId.", in.VersionStage, from.id)
	case in.MoveToVersionID != "" && from == nil && found.labels() >= maxLabels:
		return nil, refuse("LimitExceededException", "The request failed because it would exceed one of the Secrets Manager quotas.")
	}
	if in.MoveToVersionID == "" {
		found.detach(in.VersionStage)
	} else {
		found.attach(in.VersionStage, found.version(in.MoveToVersionID))
	}
	found.changed = s.now()
	return written{ARN: found.arn, Name: found.name}, nil
}

type tagInput struct {
	SecretID string `json:"SecretId"`
	Tags     []tag
}

// tagResource: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_TagResource.html
func (s *Server) tagResource(c *call, in tagInput) (any, error) {
	found, err := s.live(c, in.SecretID, false)
	if err == nil && in.Tags == nil {
		err = refuse("ValidationException", "1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must not be null")
	}
	if err != nil {
		return nil, err
	}
	if err := found.tag(in.Tags); err != nil {
		return nil, err
	}
	found.changed = s.now()
	return nil, nil
}

// tag adds tags, or replaces their values. It is all or nothing.
func (s *secretState) tag(tags []tag) error {
	after := slices.Clone(s.tags)
	for _, t := range tags {
		switch {
		case t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256:
			return refuse("ValidationException", "1 validation error detected: Value at 'tags' failed to satisfy constraint: a key has 1 to 128 characters and a value up to 256")
		case len(t.Key) >= 4 && t.Key[:4] == "aws:":
			return refuse("InvalidParameterException", "Tag keys that begin with aws: are reserved for system use.")
		}
		if i := slices.IndexFunc(after, func(o tag) bool { return o.Key == t.Key }); i >= 0 {
			after[i] = t
		} else {
			after = append(after, t)
		}
	}
	if len(after) > maxTags {
		return refuse("InvalidParameterException", "The number of tags exceeds the limit of %d.", maxTags)
	}
	s.tags = after
	return nil
}

type untagInput struct {
	SecretID string `json:"SecretId"`
	TagKeys  []string
}

// untagResource: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UntagResource.html
func (s *Server) untagResource(c *call, in untagInput) (any, error) {
	found, err := s.live(c, in.SecretID, false)
	if err == nil && in.TagKeys == nil {
		err = refuse("ValidationException", "1 validation error detected: Value at 'tagKeys' failed to satisfy constraint: Member must not be null")
	}
	if err != nil {
		return nil, err
	}
	found.tags = slices.DeleteFunc(found.tags, func(t tag) bool { return slices.Contains(in.TagKeys, t.Key) })
	found.changed = s.now()
	return nil, nil
}

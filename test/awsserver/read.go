package awsserver

import (
	"errors"
	"slices"
	"strings"
	"time"
)

type getInput struct {
	SecretID     string `json:"SecretId"`
	VersionID    string `json:"VersionId"`
	VersionStage string
}

type valueOutput struct {
	ARN           string
	CreatedDate   *stamp
	Name          string
	SecretBinary  []byte  `json:",omitempty"`
	SecretString  *string `json:",omitempty"`
	VersionID     string  `json:"VersionId"`
	VersionStages []string
}

// getSecretValue: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
func (s *Server) getSecretValue(c *call, in getInput) (any, error) {
	return s.value(c, in)
}

func (s *Server) value(c *call, in getInput) (*valueOutput, error) {
	found, err := s.live(c, in.SecretID, true)
	if err != nil {
		return nil, err
	}
	var v *version
	switch {
	case in.VersionID != "":
		v = found.version(in.VersionID)
		if v == nil {
			return nil, refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", in.VersionID)
		}
		if in.VersionStage != "" && !slices.Contains(v.labels, in.VersionStage) {
			return nil, refuse("InvalidRequestException", "You provided a VersionStage that is not associated to the provided VersionId.")
		}
	default:
		if in.VersionStage == "" {
			in.VersionStage = current
		}
		if v = found.labelled(in.VersionStage); v == nil {
			return nil, refuse("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: %s", in.VersionStage)
		}
	}
	if err := s.decrypt(c, found.kmsKey); err != nil {
		return nil, err
	}
	if r := s.secrets[found.name]; r.truth != nil && r.truth.arn == found.arn {
		r.truth.accessed = s.now().UTC().Truncate(24 * time.Hour)
	}
	return &valueOutput{found.arn, optional(v.created), found.name, v.binary, v.text, v.id, v.labels}, nil
}

type batchInput struct {
	SecretIDList []string `json:"SecretIdList"`
	Filters      []filter
}

type batchOutput struct {
	Errors       []batchError
	SecretValues []*valueOutput
}

type batchError struct {
	ErrorCode string
	Message   string
	SecretID  string `json:"SecretId"`
}

// batchGetSecretValue, by names:
// https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html
func (s *Server) batchGetSecretValue(c *call, in batchInput) (any, error) {
	if err := s.need(c, c.action, "*", "*"); err != nil {
		return nil, err
	}
	if len(in.Filters) > 0 || len(in.SecretIDList) == 0 {
		return nil, refuse("InvalidParameterException", "You must provide either SecretIdList or Filters, and this server knows the former only.")
	}
	if len(in.SecretIDList) > maxBatch {
		return nil, refuse("ValidationException", "1 validation error detected: Value at 'secretIdList' failed to satisfy constraint: Member must have length less than or equal to 20")
	}
	answer := batchOutput{Errors: []batchError{}, SecretValues: []*valueOutput{}}
	for _, id := range in.SecretIDList {
		one := &call{action: "secretsmanager:GetSecretValue", user: c.user}
		value, err := s.value(one, getInput{SecretID: id})
		c.needed = append(c.needed, one.needed...)
		var refusal *apiError
		switch {
		case err == nil:
			answer.SecretValues = append(answer.SecretValues, value)
		case errors.As(err, &refusal) && !(s.settings.omit && refusal.code == "ResourceNotFoundException"):
			answer.Errors = append(answer.Errors, batchError{refusal.code, refusal.message, id})
		}
	}
	return answer, nil
}

type describeInput struct {
	SecretID string `json:"SecretId"`
}

type describeOutput struct {
	ARN                string
	CreatedDate        *stamp
	DeletedDate        *stamp `json:",omitempty"`
	Description        string `json:",omitempty"`
	KmsKeyID           string `json:"KmsKeyId,omitempty"`
	LastAccessedDate   *stamp `json:",omitempty"`
	LastChangedDate    *stamp
	Name               string
	Tags               []tag               `json:",omitempty"`
	VersionIDsToStages map[string][]string `json:"VersionIdsToStages,omitempty"`
}

// describeSecret: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DescribeSecret.html
func (s *Server) describeSecret(c *call, in describeInput) (any, error) {
	found, err := s.find(c, in.SecretID, true)
	if err != nil {
		return nil, err
	}
	return describeOutput{
		ARN: found.arn, Name: found.name, Description: found.description, KmsKeyID: found.kmsKey, Tags: found.tags,
		CreatedDate: optional(found.created), DeletedDate: optional(found.deleted),
		LastAccessedDate: optional(found.accessed), LastChangedDate: optional(found.changed),
		VersionIDsToStages: found.stages(),
	}, nil
}

type listVersionsInput struct {
	IncludeDeprecated bool
	SecretID          string `json:"SecretId"`
}

type versionEntry struct {
	CreatedDate   *stamp
	VersionID     string   `json:"VersionId"`
	VersionStages []string `json:",omitempty"`
}

// listSecretVersionIDs: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecretVersionIds.html
func (s *Server) listSecretVersionIDs(c *call, in listVersionsInput) (any, error) {
	found, err := s.find(c, in.SecretID, true)
	if err != nil {
		return nil, err
	}
	list := []versionEntry{}
	for _, v := range found.versions {
		if len(v.labels) > 0 || in.IncludeDeprecated {
			list = append(list, versionEntry{optional(v.created), v.id, v.labels})
		}
	}
	return struct {
		ARN      string
		Name     string
		Versions []versionEntry
	}{found.arn, found.name, list}, nil
}

type filter struct {
	Key    string
	Values []string
}

type listInput struct {
	Filters                []filter
	IncludePlannedDeletion bool
	MaxResults             int
	NextToken              string
}

type listEntry struct {
	ARN                    string
	CreatedDate            *stamp
	DeletedDate            *stamp `json:",omitempty"`
	LastChangedDate        *stamp
	Name                   string
	SecretVersionsToStages map[string][]string `json:",omitempty"`
	Tags                   []tag               `json:",omitempty"`
}

// listSecrets: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html
// Of the filters it knows name, tag-key and tag-value, which match by prefix.
func (s *Server) listSecrets(c *call, in listInput) (any, error) {
	if err := s.need(c, c.action, "*", "*"); err != nil {
		return nil, err
	}
	if in.MaxResults == 0 {
		in.MaxResults = 100
	}
	if in.MaxResults < 1 || in.MaxResults > 100 {
		return nil, refuse("ValidationException", "1 validation error detected: Value at 'maxResults' failed to satisfy constraint: Member must have value between 1 and 100")
	}
	var names []string
	for name, r := range s.secrets {
		x := s.seen(r)
		if x != nil && name > in.NextToken && (in.IncludePlannedDeletion || x.deleted.IsZero()) && x.matches(in.Filters) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var answer struct {
		NextToken  string `json:",omitempty"`
		SecretList []listEntry
	}
	answer.SecretList = []listEntry{}
	for i, name := range names {
		if i == in.MaxResults {
			answer.NextToken = names[i-1]
			break
		}
		x := s.seen(s.secrets[name])
		answer.SecretList = append(answer.SecretList, listEntry{
			x.arn, optional(x.created), optional(x.deleted), optional(x.changed), x.name, x.stages(), x.tags,
		})
	}
	return answer, nil
}

func (s *secretState) matches(filters []filter) bool {
	for _, f := range filters {
		matched := slices.ContainsFunc(f.Values, func(want string) bool {
			switch f.Key {
			case "name":
				return strings.HasPrefix(s.name, want)
			case "tag-key":
				return slices.ContainsFunc(s.tags, func(t tag) bool { return strings.HasPrefix(t.Key, want) })
			case "tag-value":
				return slices.ContainsFunc(s.tags, func(t tag) bool { return strings.HasPrefix(t.Value, want) })
			}
			return false
		})
		if !matched {
			return false
		}
	}
	return true
}

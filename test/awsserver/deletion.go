package awsserver

import "time"

type deleteInput struct {
	ForceDeleteWithoutRecovery bool
	RecoveryWindowInDays       *int
	SecretID                   string `json:"SecretId"`
}

type deleteOutput struct {
	ARN          string `json:",omitempty"`
	DeletionDate *stamp
	Name         string
}

// deleteSecret: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_DeleteSecret.html
// Without recovery the secret is gone some time after the answer.
func (s *Server) deleteSecret(c *call, in deleteInput) (any, error) {
	if in.RecoveryWindowInDays != nil {
		if in.ForceDeleteWithoutRecovery {
			return nil, refuse("InvalidParameterException", "You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
		}
		if d := *in.RecoveryWindowInDays; d < 7 || d > 30 {
			return nil, refuse("InvalidParameterException", "The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
		}
	}
	found, err := s.find(c, in.SecretID, false)
	now := s.now()
	if err != nil {
		if e, ok := err.(*apiError); ok && e.code == "ResourceNotFoundException" && in.ForceDeleteWithoutRecovery { //nolint:errorlint // find returns it as it is
			return deleteOutput{Name: in.SecretID, DeletionDate: optional(now)}, nil
		}
		return nil, err
	}
	if !found.deleted.IsZero() && !in.ForceDeleteWithoutRecovery {
		return nil, refuse("InvalidRequestException", "You tried to perform the operation on a secret that's currently marked deleted.")
	}
	days := 30
	if in.RecoveryWindowInDays != nil {
		days = *in.RecoveryWindowInDays
	}
	purgeAt := now.Add(time.Duration(days) * 24 * time.Hour)
	if in.ForceDeleteWithoutRecovery {
		found.forced = true
		purgeAt = now.Add(s.settings.forceDelay)
	}
	found.deleted, found.changed, found.purgeAt = now, now, purgeAt
	answer := deleteOutput{ARN: found.arn, Name: found.name, DeletionDate: optional(now)}
	if !in.ForceDeleteWithoutRecovery {
		answer.DeletionDate = optional(purgeAt)
	}
	return answer, nil
}

// restoreSecret: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_RestoreSecret.html
// Of a secret that is not scheduled for deletion it changes nothing. One that is being
// deleted without recovery cannot be restored.
func (s *Server) restoreSecret(c *call, in describeInput) (any, error) {
	found, err := s.find(c, in.SecretID, false)
	if err != nil {
		return nil, err
	}
	if found.forced {
		return nil, markedForDeletion()
	}
	found.deleted, found.purgeAt = time.Time{}, time.Time{}
	found.changed = s.now()
	return written{ARN: found.arn, Name: found.name}, nil
}

package awsserver

import "strings"

// key is a customer managed key of KMS.
type key struct{ disabled bool }

// AddKey adds a customer managed key; id is its id, alias or ARN, as secrets name it.
func (s *Server) AddKey(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[id] = &key{}
}

// DisableKey disables a key, or enables it again.
func (s *Server) DisableKey(id string, disabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[id].disabled = disabled
}

// encrypt checks that a value can be encrypted with a key; "" is the service's own,
// which needs no right.
func (s *Server) encrypt(c *call, id string) error {
	if id == "" {
		return nil
	}
	if err := s.mayUse(c, id, "kms:GenerateDataKey", "kms:Decrypt"); err != nil {
		return err
	}
	if k := s.keys[id]; k == nil || k.disabled {
		return refuse("EncryptionFailure", "Secrets Manager can't encrypt the protected secret text using the provided KMS key.")
	}
	return nil
}

func (s *Server) decrypt(c *call, id string) error {
	if id == "" {
		return nil
	}
	if err := s.mayUse(c, id, "kms:Decrypt"); err != nil {
		return err
	}
	if k := s.keys[id]; k == nil || k.disabled {
		return refuse("DecryptionFailure", "Secrets Manager can't decrypt the protected secret text using the provided KMS key.")
	}
	return nil
}

func (s *Server) mayUse(c *call, id string, actions ...string) error {
	arn := id
	if !strings.HasPrefix(id, "arn:") {
		// An alias stands for a key whose id nobody needs to know.
		arn = "arn:aws:kms:" + Region + ":" + Account + ":key/" + strings.ReplaceAll(id, "alias/", "alias-")
	}
	for _, action := range actions {
		if s.need(c, action, arn, id) != nil {
			return refuse("AccessDeniedException", "Access to KMS is not allowed")
		}
	}
	return nil
}

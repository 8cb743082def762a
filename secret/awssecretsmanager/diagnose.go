package awssecretsmanager

import (
	"context"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Diagnose implements [secret.Diagnoser].
func (b *AWSBackend) Diagnose(ctx context.Context, need secret.Access) []secret.Finding {
	return nil
}

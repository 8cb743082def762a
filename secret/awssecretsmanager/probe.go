package awssecretsmanager

import (
	"context"
	"errors"

	"github.com/nexus-broker/nexus-broker/secret"
)

// probeKey is asked for and never written.
const probeKey = "nexus-broker-probe/client_id"

// Probe implements [secret.Prober]: it asks for a secret below the prefix that is not
// there, with ReadWrite for its tags too. That the credentials are good and reading is
// allowed shows in the answer; whether writing is allowed shows only when something is
// written (see Diagnose).
func (b *AWSBackend) Probe(ctx context.Context, need secret.Access) error {
	return b.run(ctx, action{"probe", b.prefix}, func(ctx context.Context) error {
		_, err := b.current(ctx, probeKey)
		if err == nil || errors.Is(err, secret.ErrNotFound) {
			err = nil
			if need == secret.ReadWrite {
				_, err = b.describe(ctx, probeKey)
			}
		}
		if errors.Is(err, secret.ErrNotFound) {
			return nil
		}
		return err
	})
}

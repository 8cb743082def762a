package gcpsecretmanager

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/nexus-broker/nexus-broker/secret"
)

// probeKey is asked about and, but for Diagnose, never written.
const probeKey = "nexus-broker-probe/client_id"

// Probe implements [secret.Prober]: it reads a secret that is not there, and with
// ReadWrite asks for its metadata and its versions too. Whether the broker may write
// cannot be found out without writing: testIamPermissions answers for a secret that does
// not exist as if there were no rights. Diagnose tries it.
func (b *GCPBackend) Probe(ctx context.Context, need secret.Access) error {
	name := b.Locate(probeKey)
	act := action{"probe", name}
	// Found or not: it is allowed. A probe key that Diagnose has left may be disabled.
	allowed := func(err error) bool {
		return err == nil || is(err, codes.NotFound) || notEnabled(err)
	}
	if _, err := b.access(ctx, name, latest); !allowed(err) {
		return act.wrap(err)
	}
	if need == secret.ReadOnly {
		return nil
	}
	if _, err := b.get(ctx, name); !allowed(err) {
		return act.wrap(err)
	}
	if _, err := b.list(ctx, name); !allowed(err) {
		return act.wrap(err)
	}
	return nil
}

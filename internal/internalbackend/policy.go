package internalbackend

import (
	"context"

	"github.com/nexus-broker/nexus-broker/secret"
)

var _ secret.PolicyWriter = (*InternalBackend)(nil)

// Policy implements secret.PolicyWriter: there is nobody who would have to allow anything.
func (b *InternalBackend) Policy(context.Context, secret.Access) (string, error) {
	return "# The internal backend keeps credentials in the broker's own database. It needs no policy.\n", nil
}

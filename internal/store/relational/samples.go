package relational

import (
	"context"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// SealedSamples returns up to n sealed tokens and up to n sealed credentials. The tokens
// are a random choice: their connections' ids are random numbers.
func (s *Store) SealedSamples(ctx context.Context, n int) ([]broker.SealedSample, error) {
	tokens, err := all(ctx, s.db, "SELECT connection_id, encrypted_data FROM tokens ORDER BY connection_id LIMIT $1", []any{n},
		func(scan Scan) (sample broker.SealedSample, err error) {
			var id uuid.UUID
			err = scan(&id, &sample.Sealed)
			sample.Purpose = broker.TokenPurpose(id)
			return sample, err
		})
	if err != nil {
		return nil, err
	}
	credentials, err := all(ctx, s.db, "SELECT key, sealed FROM sealed_secrets ORDER BY key LIMIT $1", []any{n},
		func(scan Scan) (sample broker.SealedSample, err error) {
			var key string
			err = scan(&key, &sample.Sealed)
			sample.Purpose = "secret/" + key // see internalbackend.Row
			return sample, err
		})
	return append(tokens, credentials...), err
}

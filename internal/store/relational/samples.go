package relational

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/nexus-broker/nexus-broker/internal/broker"
)

// SealedSamples returns up to n sealed tokens and up to n sealed credentials, of each
// half from the beginning and half from the end: a rotation of the encryption key that
// was cut off is between the two. The tokens are a random choice: their connections' ids
// are random numbers.
func (s *Store) SealedSamples(ctx context.Context, n int) ([]broker.SealedSample, error) {
	token := func(scan Scan) (sample broker.SealedSample, err error) {
		var id uuid.UUID
		err = scan(&id, &sample.Sealed)
		sample.Purpose = broker.TokenPurpose(id)
		return sample, err
	}
	credential := func(scan Scan) (sample broker.SealedSample, err error) {
		var key string
		err = scan(&key, &sample.Sealed)
		sample.Purpose = "secret/" + key // see internalbackend.Row
		return sample, err
	}
	tokens, err := bothEnds(ctx, s.db, "SELECT connection_id, encrypted_data FROM tokens", "connection_id", n, token)
	if err != nil {
		return nil, err
	}
	credentials, err := bothEnds(ctx, s.db, "SELECT key, sealed FROM sealed_secrets", "key", n, credential)
	return append(tokens, credentials...), err
}

// bothEnds returns at most n samples, from the beginning and the end of the order, none
// of them twice.
func bothEnds(ctx context.Context, db DB, statement, order string, n int,
	read func(Scan) (broker.SealedSample, error),
) (list []broker.SealedSample, err error) {
	seen := map[string]bool{}
	for _, direction := range []string{"", " DESC"} {
		part, err := all(ctx, db, fmt.Sprintf("%s ORDER BY %s%s LIMIT $1", statement, order, direction), []any{(n + 1) / 2}, read)
		if err != nil {
			return nil, err
		}
		for _, sample := range part {
			if !seen[sample.Purpose] && len(list) < n {
				seen[sample.Purpose] = true
				list = append(list, sample)
			}
		}
	}
	return list, nil
}

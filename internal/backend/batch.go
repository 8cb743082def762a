package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// batched decorates a backend that reads several keys in one request.
type batched struct {
	*caller
	inner secret.BatchReader
}

// ReadBatch implements secret.BatchReader. It is one call: what is counted of it is
// its worst outcome, as worst says. The deadline of the call is that of each key.
func (d batched) ReadBatch(ctx context.Context, keys []string) (outcomes []secret.Outcome) {
	const operation = "read_batch"
	_ = d.call(ctx, operation, strings.Join(keys, " "), func(limited context.Context) error {
		outcomes = d.inner.ReadBatch(limited, keys)
		if len(outcomes) != len(keys) {
			outcomes = d.unusable(keys, len(outcomes))
		}
		for i, key := range keys {
			outcomes[i].Err = d.explain(ctx, limited, operation, key, outcomes[i].Err)
		}
		return worst(outcomes)
	})
	return outcomes
}

// unusable is the outcome where it cannot be told which answer belongs to which key.
func (d batched) unusable(keys []string, got int) []secret.Outcome {
	outcomes := make([]secret.Outcome, len(keys))
	for i, key := range keys {
		outcomes[i].Err = fmt.Errorf("%s: read_batch %s: %w: %d outcomes for %d keys, which is a fault of the backend's code",
			d.o.Name, key, secret.ErrUnavailable, got, len(keys))
	}
	return outcomes
}

// worst returns the first failure; that a key is missing only if there is no other.
func worst(outcomes []secret.Outcome) error {
	var missing error
	for _, o := range outcomes {
		switch {
		case o.Err == nil:
		case !errors.Is(o.Err, secret.ErrNotFound):
			return o.Err
		case missing == nil:
			missing = o.Err
		}
	}
	return missing
}

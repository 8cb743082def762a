package keyrotation

import (
	"context"
	"fmt"

	"github.com/nexus-broker/nexus-broker/internal/seal"
)

// Unnamed stands in a Count for envelopes that name no key: the old format, or none.
const Unnamed = "none"

// Count says under which keys the envelopes of a place were sealed.
type Count struct {
	Place Place          `json:"place"`
	Keys  map[string]int `json:"keys"` // by key id, or Unnamed
}

// Check counts the envelopes of every place by the key that they name. It opens none
// and changes nothing. current reports whether all are under the first key of the ring:
// then no other key is needed any more.
func Check(ctx context.Context, rows Rows, keys *seal.Keyring) (counts []Count, current bool, err error) {
	current = true
	for _, place := range Places() {
		count := Count{Place: place, Keys: map[string]int{}}
		for after := ""; ; {
			page, err := rows.Envelopes(ctx, place, after, pageSize)
			if err != nil {
				return nil, false, fmt.Errorf("counting %s: %w", place, err)
			}
			if len(page) == 0 {
				break
			}
			after = page[len(page)-1].Row
			for _, e := range page {
				id := seal.KeyID(e.Sealed)
				if id == "" {
					id = Unnamed
				}
				count.Keys[id]++
				current = current && id == keys.CurrentID()
			}
		}
		counts = append(counts, count)
	}
	return counts, current, nil
}

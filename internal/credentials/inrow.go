package credentials

import (
	"strings"

	"github.com/google/uuid"
)

// inRowPrefix is in front of the id in the key of a pair that lies in its provider's
// row. The colon makes it a key that nothing can be stored under (secret.CheckKey): no
// name of a provider is ever taken for one, and only the store writes there.
const inRowPrefix = "row:"

// InRowKey returns the Ref.Key of a pair that lies, unsealed, in the row of a provider, as
// the existing broker keeps it until an upgrade is finished. Its backend is Internal.
func InRowKey(provider uuid.UUID) string { return inRowPrefix + provider.String() }

// InRow reports whether the pair lies in the provider's row. Such a pair is written
// and erased by what writes the row, and by nothing else.
func (r Ref) InRow() bool { return strings.HasPrefix(r.Key, inRowPrefix) }

// ParseInRow reads a key of a value of a pair that lies in a row; ok is false for any other.
func ParseInRow(key string) (provider uuid.UUID, value string, ok bool) {
	rest, ok := strings.CutPrefix(key, inRowPrefix)
	if !ok {
		return uuid.Nil, "", false
	}
	id, value, _ := strings.Cut(rest, "/")
	provider, err := uuid.Parse(id)
	return provider, value, err == nil && (value == ClientIDKey || value == ClientSecretKey)
}

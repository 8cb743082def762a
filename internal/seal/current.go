package seal

import "strings"

// Current reports whether the envelope says that it was sealed under the first key of
// the ring, as everything that is sealed now. It does not open it.
func (r *Keyring) Current(envelope string) bool {
	return strings.HasPrefix(envelope, prefix+r.keys[0].id+".")
}

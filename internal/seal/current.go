package seal

import "strings"

// Current reports whether the envelope says that it was sealed under the first key of
// the ring, as everything that is sealed now. It does not open it.
func (r *Keyring) Current(envelope string) bool {
	return strings.HasPrefix(envelope, prefix+r.keys[0].id+".")
}

// CurrentID returns the id of the key that seals: the first of the ring.
func (r *Keyring) CurrentID() string { return r.keys[0].id }

// Has reports whether the ring has the key of this id.
func (r *Keyring) Has(id string) bool {
	for _, k := range r.keys {
		if k.id == id {
			return true
		}
	}
	return false
}

// KeyID returns the id of the key that an envelope says it was sealed under; "" if it
// names none, as in the old format. It does not open the envelope.
func KeyID(envelope string) string {
	rest, ok := strings.CutPrefix(envelope, prefix)
	if !ok {
		return ""
	}
	id, _, err := parse(rest)
	if err != nil {
		return ""
	}
	return id
}

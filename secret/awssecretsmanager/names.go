package awssecretsmanager

import (
	"regexp"
	"strings"
)

// ambiguous is how a name ends that AWS could take for one with the ending of an ARN:
// the documentation of CreateSecret asks not to end a name like this.
var ambiguous = regexp.MustCompile(`-[A-Za-z0-9/_+=.@-]{6}$`)

// filler is put behind an ambiguous name. No key has the character.
const filler = "="

// encode returns the name that the secret of key has: prefix, "/" and the key; and behind
// it as many "=" as it takes (0 to 7) that the name does not end in a hyphen and six
// characters. Different keys have different names, and the longest key has room.
func encode(prefix, key string) string {
	name := prefix + "/" + key
	for ambiguous.MatchString(name) {
		name += filler
	}
	return name
}

// decode returns the key whose secret has the name; false if no key's has.
func decode(prefix, name string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix+"/")
	if !ok {
		return "", false
	}
	key = strings.TrimRight(rest, filler)
	return key, encode(prefix, key) == name
}

// name returns the name of the secret that holds key.
func (b *AWSBackend) name(key string) string { return encode(b.prefix, key) }

// Locate implements [secret.Locator]: the name of the secret, or what the names of a
// provider's secrets begin with.
func (b *AWSBackend) Locate(key string) string {
	switch {
	case key == "":
		return b.prefix
	case !strings.Contains(key, "/"): // a provider
		return b.prefix + "/" + key
	}
	return b.name(key)
}

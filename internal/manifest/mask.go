package manifest

import (
	"maps"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/internal/apiclient"
	"github.com/nexus-broker/nexus-broker/secret"
)

const hidden = "[masked]"

// mask hides the credentials that are known wherever else they may stand: somebody may
// have put a secret into a description.
type mask struct{ values []string }

// shortest is the length in bytes of the shortest credential that is looked for in other
// texts: shorter ones would hide half of them.
const shortest = 6

func newMask(m Manifest, current map[string]*apiclient.Profile) mask {
	found := map[string]bool{}
	add := func(values ...secret.Value) {
		for _, v := range values {
			if s := v.Reveal(); len(s) >= shortest {
				found[s] = true
			}
		}
	}
	for _, p := range m.Providers {
		add(p.ClientID, p.ClientSecret)
	}
	for _, p := range current {
		add(p.ClientID.Value, p.ClientSecret.Value)
	}
	values := slices.Collect(maps.Keys(found))
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) }) // one may be part of another
	return mask{values}
}

func (m mask) text(s string) string {
	for _, v := range m.values {
		s = strings.ReplaceAll(s, v, hidden)
	}
	return s
}

// value returns a decoded JSON value with what must not be seen hidden.
func (m mask) value(v any) any {
	switch v := v.(type) {
	case string:
		return m.text(v)
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = m.value(item)
		}
		return list
	case map[string]any:
		object := map[string]any{}
		for name, member := range v {
			if object[name] = m.value(member); credentialLike(name) {
				object[name] = hidden
			}
		}
		return object
	}
	return v
}

// credentialLike reports whether a member of params with this name may hold a
// credential: its last word says so, as in "webhook_secret" and "apiKey", and not as in
// "token_access_type".
func credentialLike(name string) bool {
	name = strings.ToLower(strings.TrimRight(name, "_-0123456789"))
	for _, word := range []string{
		"secret", "password", "passwd", "pwd", "passphrase", "token", "key", "credential", "credentials", "assertion", "jwt",
	} {
		if strings.HasSuffix(name, word) {
			return true
		}
	}
	return false
}

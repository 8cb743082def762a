package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Role is what a key may do.
type Role string

// The roles.
const (
	Admin   Role = "admin"   // everything
	Agent   Role = "agent"   // consent, tokens and refreshes; never sees a refresh token
	Auditor Role = "auditor" // reads providers without their credentials, and the audit log
)

// ErrNoKeys is returned by NewKeys when no source has a key.
var ErrNoKeys = errors.New("no API key is configured: set API_KEY, API_KEYS, API_KEY_FILE or API_KEYS_FILE")

// KeysOptions are the sources of keys. Every one may be empty.
type KeysOptions struct {
	// APIKey is one admin key, verbatim.
	APIKey secret.Value
	// APIKeys are entries: "role:key" with one of the three roles, or an admin key
	// verbatim.
	APIKeys []secret.Value
	// APIKeyFile and APIKeysFile have an entry a line; in the latter commas separate
	// entries too. [Keys.Watch] reads them again.
	APIKeyFile, APIKeysFile string
	Logger                  *slog.Logger
}

// Keys knows who may call. It keeps no key, only digests. It is safe for concurrent
// use.
type Keys struct {
	fixed  []key // from the environment
	files  []*keyFile
	log    *slog.Logger
	active activeKeys
	equal  func(x, y []byte) int // subtle.ConstantTimeCompare, which a test counts
}

// key is one known key.
type key struct {
	digest digest
	role   Role
}

// digest is the SHA-256 of a key: equally long for all, so that comparing tells
// nothing about a key's length.
type digest [sha256.Size]byte

// NewKeys reads all sources. An error names the source and quotes nothing of it.
func NewKeys(o KeysOptions) (*Keys, error) {
	k := &Keys{log: o.Logger, equal: subtle.ConstantTimeCompare}
	if !o.APIKey.IsZero() {
		k.fixed = append(k.fixed, key{digestOf(o.APIKey.Reveal()), Admin})
	}
	for i, entry := range o.APIKeys {
		listed, near, err := parseEntries(i+1, entry.Reveal())
		if err != nil {
			return nil, fmt.Errorf("API_KEYS: %w", err)
		}
		k.fixed = append(k.fixed, listed...)
		warnOfNearRoles(k.log, "API_KEYS", "entry", near)
	}
	for _, f := range []*keyFile{
		{variable: "API_KEY_FILE", path: o.APIKeyFile},
		{variable: "API_KEYS_FILE", path: o.APIKeysFile, commas: true},
	} {
		if f.path == "" {
			continue
		}
		if err := f.load(); err != nil {
			return nil, fmt.Errorf("%s: %w", f.variable, err)
		}
		k.files = append(k.files, f)
		warnOfNearRoles(k.log, f.variable, "line", f.near)
	}
	if k.publish() == 0 {
		return nil, ErrNoKeys
	}
	return k, nil
}

// publish puts the keys of all sources into force and returns how many there are.
// A key that is there with several roles has the one that may do least.
func (k *Keys) publish() int {
	all := append([]key(nil), k.fixed...)
	for _, f := range k.files {
		all = append(all, f.keys...)
	}
	roles := map[digest]Role{}
	for _, each := range all {
		if known, ok := roles[each.digest]; ok && known != each.role {
			k.log.Warn("an API key is configured with two roles; the lesser one counts",
				"roles", []Role{known, each.role})
			each.role = lesser(known, each.role)
		}
		roles[each.digest] = each.role
	}
	active := make([]key, 0, len(roles))
	for d, role := range roles {
		active = append(active, key{d, role})
	}
	k.active.Store(&active)
	return len(active)
}

// none reports whether no key is in force, so that every call is refused.
func (k *Keys) none() bool { return len(*k.active.Load()) == 0 }

func lesser(a, b Role) Role {
	for _, r := range []Role{Auditor, Agent} {
		if a == r || b == r {
			return r
		}
	}
	return Admin
}

// caller is who a key belongs to.
type caller struct {
	role Role
	key  digest // tells keys apart; never shown
}

// find returns whom the presented key belongs to. It compares that with every known
// key, each in constant time, and does not stop at the first that is equal.
func (k *Keys) find(presented string) (caller, bool) {
	known, d := *k.active.Load(), digestOf(presented)
	found := -1
	for i := range known {
		found = subtle.ConstantTimeSelect(k.equal(d[:], known[i].digest[:]), i, found)
	}
	if found < 0 {
		return caller{}, false
	}
	return caller{role: known[found].role, key: d}, true
}

func digestOf(key string) digest { return sha256.Sum256([]byte(key)) }

var errRoleWithoutKey = errors.New("an entry has a role and no key after it")

// parseEntries reads entries of the form "role:key" or "key", which stand at one place;
// empty ones are left out. Those that resemble the first form are returned apart too.
func parseEntries(at int, entries ...string) (keys []key, near []nearRole, err error) {
	for _, e := range entries {
		e = strings.TrimSpace(e)
		if e == "" {
			continue
		}
		role, text, exact := splitRole(e)
		if text == "" {
			return nil, nil, errRoleWithoutKey
		}
		keys = append(keys, key{digestOf(text), role})
		if like := resembles(e); !exact && like != "" {
			near = append(near, nearRole{at, like})
		}
	}
	return keys, near, nil
}

func splitRole(entry string) (role Role, text string, exact bool) {
	prefix, rest, found := strings.Cut(entry, ":")
	if found {
		switch r := Role(prefix); r {
		case Admin, Agent, Auditor:
			return r, strings.TrimSpace(rest), true
		}
	}
	return Admin, entry, false
}

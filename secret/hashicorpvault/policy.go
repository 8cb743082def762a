package hashicorpvault

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

var _ secret.PolicyWriter = (*VaultBackend)(nil)

// Policy implements [secret.PolicyWriter]: an ACL policy in HCL with the mount and the
// prefix of this backend, and with a right to read below each prefix of references. It
// sends nothing. Where the version of KV is not configured
// the policy is that of version 2, and a comment says so. Another comment says in which
// namespace it has to be written, if in one.
func (b *VaultBackend) Policy(_ context.Context, need secret.Access) (string, error) {
	if special(b.mount + "/" + b.prefix) {
		return "", fmt.Errorf("%s: policy: %w: the mount or the prefix has characters that a policy reads in a special way: choose others",
			Name, secret.ErrInvalid)
	}
	comments, below := b.policyNamespace()
	var e engine = kv2{b}
	if b.engine.fixed {
		e = b.engine.found
	} else {
		comments += "# For KV version 2, which is what Vault mounts at secret. For version 1 set VAULT_KV_VERSION=1.\n"
	}
	places, err := secret.ReferencePlaces(b, b.references)
	if err != nil {
		return "", fmt.Errorf("%s: policy: a prefix of references: %w", Name, err)
	}
	text := comments + b.policy(e, below, need)
	for _, place := range places {
		at := referencePath(e, place)
		if special(at) {
			return "", fmt.Errorf("%s: policy: %w: the prefix of references %q has characters that a policy reads in a special way: choose another one",
				Name, secret.ErrInvalid, strings.Join(place, "/"))
		}
		text += stanza(below, at, "read") + stanza(below, at+"/*", "read")
	}
	return text, nil
}

// special: a policy would read more than the path in it.
func special(path string) bool {
	return strings.ContainsAny(path, `"\`) || strings.Contains(path, "{{") || slices.Contains(segments(path), "+")
}

// referencePath returns the API path of what references name below the mount.
func referencePath(e engine, place []string) string {
	at := path.Join(place...)
	if v2, is := e.(kv2); is {
		return path.Join(v2.b.mount, "data", at)
	}
	return path.Join(e.(kv1).b.mount, at)
}

// policy writes the policy for an engine. below goes before the mount.
func (b *VaultBackend) policy(e engine, below string, need secret.Access) string {
	v2, is := e.(kv2)
	switch {
	case !is && need == secret.ReadOnly:
		return stanza(below, b.Locate("")+"/*", "read")
	case !is:
		return stanza(below, b.Locate("")+"/*", "create", "read", "update", "delete")
	case need == secret.ReadOnly:
		return stanza(below, v2.path("data", "")+"/*", "read")
	}
	return stanza(below, v2.path("data", "")+"/*", "create", "read", "update") + stanza(below, v2.path("metadata", "")+"/*", "delete")
}

func stanza(below, place string, capabilities ...string) string {
	return fmt.Sprintf("path %q {\n  capabilities = [\"%s\"]\n}\n", path.Join(below, place), strings.Join(capabilities, `", "`))
}

// policyNamespace says in which namespace the policy of the login's token has to be, and
// what its paths begin with to reach the secrets' one from there.
func (b *VaultBackend) policyNamespace() (comment, below string) {
	login, secrets := segments(b.conn.login.Namespace()), segments(b.conn.secrets.Namespace())
	if slices.Equal(login, []string{"root"}) {
		login = nil
	}
	if len(login) > 0 {
		comment = "# In the namespace " + strings.Join(login, "/") + ".\n"
	}
	if len(secrets) > len(login) && slices.Equal(secrets[:len(login)], login) {
		below = strings.Join(secrets[len(login):], "/")
	}
	return comment, below
}

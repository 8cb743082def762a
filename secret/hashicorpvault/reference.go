package hashicorpvault

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// ReadReference implements [secret.ReferenceReader]: of the KV secrets of the mount, with
// the token's own rights. The path is one below the mount, as the command line of Vault
// wants it; Version is a version of KV version 2. Without a Field the value is in the
// field "value", or in one named like the last segment of the path.
func (b *VaultBackend) ReadReference(ctx context.Context, ref secret.Reference) (secret.Item, error) {
	segments, err := b.ReferenceSegments(ref.Path)
	if err != nil { // it quotes the path
		return secret.Item{}, fmt.Errorf("%s: read reference: %w", Name, err)
	}
	act := action{"read reference", b.LocateReference(ref)}
	if !strings.HasSuffix(act.place, ref.String()) {
		act.place += " (reference " + ref.String() + ")"
	}
	version, err := referenceVersion(ref.Version)
	if err != nil {
		return secret.Item{}, act.wrap(err)
	}
	at := strings.Join(segments, "/")
	found, err := with(ctx, b, act, func(e engine) (stored, error) { return e.readAt(ctx, at, version) })
	switch {
	case err != nil:
		return secret.Item{}, act.wrap(err)
	case !found.exists && ref.Version != "":
		return secret.Item{}, act.fail(secret.ErrNotFound, "there is no such version, or it was deleted or destroyed: name another one")
	case !found.exists:
		return secret.Item{}, act.fail(secret.ErrNotFound, "there is nothing at this path: correct the reference, or store the value there")
	}
	item, err := found.referenced(at, ref.Field)
	if err != nil {
		return secret.Item{}, act.wrap(err)
	}
	return item, nil
}

func (s stored) referenced(at, field string) (secret.Item, error) {
	if field == "" {
		return s.item(at)
	}
	return s.field(field)
}

// referenceVersion reads the version of a reference, 0 for none. Vault takes its own
// number 0 for the newest.
func referenceVersion(version string) (int, error) {
	if version == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(version)
	if err != nil || n < 1 || strconv.Itoa(n) != version {
		return 0, secret.BadReference("the version of a KV secret is a number from 1 on")
	}
	return n, nil
}

// ReferenceSegments implements [secret.ReferenceReader].
func (b *VaultBackend) ReferenceSegments(refPath string) ([]string, error) {
	parts := strings.Split(strings.Trim(refPath, "/"), "/")
	for _, s := range parts {
		if wrong := wrongSegment(s); wrong != "" {
			return nil, secret.BadReference(fmt.Sprintf("path %q: %s", refPath, wrong))
		}
	}
	if !b.version1 && (branch(parts) || len(withoutAPIPath(parts, segments(b.mount))) != len(parts)) {
		return nil, secret.BadReference(fmt.Sprintf("path %q: it is a path of the HTTP API: give the one that the vault program takes, "+
			"below the mount and without data/ or metadata/ (a folder of this name can be read where VAULT_KV_VERSION is 1)", refPath))
	}
	return parts, nil
}

// branch: the path is one of the branches of KV version 2.
func branch(parts []string) bool { return parts[0] == "data" || parts[0] == "metadata" }

// wrongSegment says what is wrong with a segment, "" if nothing is. Vault allows no ".."
// anywhere in a path, drops spaces at its ends, and gives the other characters a meaning
// in URLs and policies.
func wrongSegment(s string) string {
	switch {
	case s == "":
		return "a segment is empty"
	case s == "." || strings.Contains(s, ".."):
		return `a segment is "." or contains ".."`
	case strings.ContainsAny(s, `%?#*+\`):
		return `a character is one of % ? # * + \, which a path must not have`
	case strings.ContainsFunc(s, unprintable):
		return "a character is not printable"
	case strings.TrimSpace(s) != s:
		return "a segment begins or ends with a space"
	}
	return ""
}

// ReferencePrefix implements [secret.ReferenceReader].
func (b *VaultBackend) ReferencePrefix() []string { return segments(b.prefix) }

// LocateReference implements [secret.ReferenceReader]: the mount with the written form.
func (b *VaultBackend) LocateReference(ref secret.Reference) string {
	ref.Path = path.Join(b.mount, ref.Path)
	return ref.String()
}

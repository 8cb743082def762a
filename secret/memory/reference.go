package memory

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Place stores value where somebody else would: at a path that is no key's, as
// "team-a/salesforce". It returns the version written, and the versions before it stay
// readable. An illegal path, one below ReferencePrefix, and an empty value are errors
// wrapping [secret.ErrInvalid]; there are no other limits, because somebody else keeps
// none of ours.
func (b *Backend) Place(path, value string) (version string, err error) {
	segments, err := b.ReferenceSegments(path)
	if err != nil {
		return "", fmt.Errorf("%s: place: %w", Name, err)
	}
	if segments[0] == Name || value == "" {
		return "", fmt.Errorf("%s: place %s: %w: it needs a value, and a path that is no key's", Name, path, secret.ErrInvalid)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.version++
	item := secret.Item{Value: secret.NewValue(value), Version: strconv.Itoa(b.version)}
	path = strings.Join(segments, "/")
	b.placed[path] = append(b.placed[path], item)
	return item.Version, nil
}

// ReadReference implements [secret.ReferenceReader]: of what Place has stored, and of
// the keys, which lie below "memory". A field is a member of a JSON object.
func (b *Backend) ReadReference(ctx context.Context, ref secret.Reference) (secret.Item, error) {
	segments, err := b.ReferenceSegments(ref.Path)
	if err != nil { // it quotes the path
		return secret.Item{}, fmt.Errorf("%s: read reference: %w", Name, err)
	}
	item, err := b.readReference(ctx, segments, ref)
	if err != nil {
		return secret.Item{}, fmt.Errorf("%s: read reference %s: %w", Name, ref, err)
	}
	return item, nil
}

func (b *Backend) readReference(ctx context.Context, segments []string, ref secret.Reference) (secret.Item, error) {
	if err := ctx.Err(); err != nil {
		return secret.Item{}, err
	}
	if _, err := strconv.ParseUint(ref.Version, 10, 64); err != nil && ref.Version != "" {
		return secret.Item{}, secret.BadReference("a version is a number")
	}
	item, ok := b.at(segments, ref.Version)
	if !ok {
		return secret.Item{}, fmt.Errorf("%w: nothing of this version is stored there", secret.ErrNotFound)
	}
	if ref.Field != "" {
		text, err := secret.JSONMember(item.Value.Reveal(), ref.Field)
		if err != nil {
			return secret.Item{}, err
		}
		item.Value = secret.NewValue(text)
	}
	return item, secret.CheckValue(item.Value.Reveal())
}

// at returns what lies at a path, the newest for the version "".
func (b *Backend) at(segments []string, version string) (secret.Item, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	versions := b.placed[strings.Join(segments, "/")]
	if segments[0] == Name {
		if item, ok := b.items[strings.Join(segments[1:], "/")]; ok {
			versions = []secret.Item{item}
		}
	}
	for _, item := range slices.Backward(versions) {
		if version == "" || item.Version == version {
			return item, true
		}
	}
	return secret.Item{}, false
}

// ReferenceSegments implements [secret.ReferenceReader].
func (b *Backend) ReferenceSegments(path string) ([]string, error) {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for _, s := range segments {
		switch {
		case s == "", s == ".", s == "..":
			return nil, secret.BadReference(fmt.Sprintf(`path %q: a segment is empty, "." or ".."`, path))
		case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
			return nil, secret.BadReference(fmt.Sprintf("path %q: a character is not printable", path))
		}
	}
	return segments, nil
}

// ReferencePrefix implements [secret.ReferenceReader].
func (b *Backend) ReferencePrefix() []string { return []string{Name} }

// LocateReference implements [secret.ReferenceReader].
func (b *Backend) LocateReference(ref secret.Reference) string { return ref.String() }

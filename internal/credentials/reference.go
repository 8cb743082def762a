package credentials

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// allow sets where references may lie: below the place of the backend's own keys, and
// below each of prefixes. An own place that is the whole store allows nothing by itself,
// since everything lies below it: there the operator has to say what is meant.
func (src *source) allow(prefixes []string) error {
	reader := src.can.References
	if reader == nil {
		return nil
	}
	if own := reader.ReferencePrefix(); len(own) > 0 {
		src.referable = append(src.referable, own)
	}
	for _, prefix := range prefixes {
		segments, err := reader.ReferenceSegments(strings.TrimSuffix(prefix, "/"))
		if err != nil {
			return fmt.Errorf("credentials: a prefix for references (SECRET_REF_ALLOWED_PREFIXES): %w", err)
		}
		src.referable = append(src.referable, segments)
	}
	return nil
}

// CheckReferences reports whether the broker may read what the references of ref name,
// and asks nobody. The error wraps ErrReferenceNotAllowed, or secret.ErrInvalid for what
// is no reference in this store, or ErrNotConfigured.
func (s *Service) CheckReferences(ref Ref) error {
	src, err := s.source(ref)
	if err != nil {
		return err
	}
	for _, written := range ref.References() {
		if _, err := src.reference(written); err != nil {
			return err
		}
	}
	return nil
}

// PointsInto reports whether a reference of ref names one of the keys of pair.
func (s *Service) PointsInto(ref, pair Ref) bool {
	src, _ := s.sources.find(ref.Backend)
	if src == nil || src.can.References == nil || ref.Backend != pair.Backend {
		return false
	}
	pair.Public = false // a value may be left from before
	for _, written := range ref.References() {
		at, err := src.reference(written)
		if err != nil {
			continue
		}
		segments, err := src.can.References.ReferenceSegments(at.Path)
		for _, key := range pair.Keys() {
			own := slices.Concat(src.can.References.ReferencePrefix(), strings.Split(key, "/"))
			if err == nil && slices.Equal(segments, own) {
				return true
			}
		}
	}
	return false
}

// reference reads the written form, and refuses what may not be read.
func (src *source) reference(written string) (secret.Reference, error) {
	ref, err := secret.ParseReference(written)
	if err != nil {
		return ref, err
	}
	reader := src.can.References
	if reader == nil {
		return ref, fmt.Errorf("%w: %s reads no references: %w", ErrReferenceNotAllowed, src.name, secret.ErrDenied)
	}
	segments, err := reader.ReferenceSegments(ref.Path)
	if err != nil {
		return ref, err
	}
	below := func(place []string) bool {
		return len(segments) >= len(place) && slices.Equal(segments[:len(place)], place)
	}
	if !slices.ContainsFunc(src.referable, below) {
		return ref, fmt.Errorf("%w: %q lies neither below the place of the broker's own keys nor below one of SECRET_REF_ALLOWED_PREFIXES: %w",
			ErrReferenceNotAllowed, ref.Path, secret.ErrDenied)
	}
	return ref, nil
}

// locateReference returns where a person finds what a reference names.
func (src *source) locateReference(written string) string {
	ref, err := secret.ParseReference(written)
	if err != nil || src.can.References == nil {
		return written
	}
	return src.can.References.LocateReference(ref)
}

// pairTries is how often a pair that lies in one secret is read until both values are
// of one version.
const pairTries = 3

// referenced reads what references name, in parallel. Whether the broker may is asked
// each time: its operator may have become stricter since the reference was registered.
// If one is refused none is read, and the refused ones are returned.
//
// Two values of the same secret belong together, so they are taken from one version:
// whoever rotates writes both at once.
func (src *source) referenced(ctx context.Context, written []string) []result {
	refs := make(map[string]secret.Reference, len(written))
	var refused []result
	for _, w := range written {
		ref, err := src.reference(w)
		if refs[w] = ref; err != nil {
			refused = append(refused, result{key: w, path: src.locateReference(w), err: err, reference: true, ours: true})
		}
	}
	if refused != nil {
		return refused
	}
	for tries := 1; ; tries++ {
		results := inParallel(written, func(w string) result {
			item, err := src.can.References.ReadReference(ctx, refs[w])
			return result{key: w, path: src.locateReference(w), item: item, err: err, reference: true}
		})
		if !src.torn(results) {
			return results
		}
		if tries == pairTries {
			for i := range results {
				results[i].item, results[i].ours = secret.Item{}, true
				results[i].err = fmt.Errorf(
					"%s: read reference %s: %w: the secret changes while it is read; try again", src.name, results[i].key, secret.ErrUnavailable)
			}
			return results
		}
	}
}

// torn reports whether two values of one secret were read that are not of one version.
func (src *source) torn(results []result) bool {
	if len(results) != 2 || results[0].err != nil || results[1].err != nil {
		return false
	}
	var at [2][]string
	var versions [2]string
	for i, r := range results {
		ref, err := secret.ParseReference(r.key)
		if err != nil {
			return false
		}
		versions[i] = ref.Version
		if at[i], err = src.can.References.ReferenceSegments(ref.Path); err != nil {
			return false
		}
	}
	return slices.Equal(at[0], at[1]) && versions[0] == versions[1] && results[0].item.Version != results[1].item.Version
}

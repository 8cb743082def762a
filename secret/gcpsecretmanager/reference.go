package gcpsecretmanager

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/nexus-broker/nexus-broker/secret"
)

// aliasPattern is what names a version beside its number
// (https://cloud.google.com/secret-manager/docs/assign-alias-to-secret-version).
var aliasPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,62}$`)

// ReadReference implements [secret.ReferenceReader]. The path is the id of a secret in
// the backend's project, or a full name: projects/<p>/secrets/<id>, with
// locations/<l>/ in between for the backend's own location. The version is a number or an
// alias ("latest" among them: the one added last, also if it is disabled); none is the
// newest that is enabled. The field is a top-level member of a JSON object.
func (b *GCPBackend) ReadReference(ctx context.Context, ref secret.Reference) (secret.Item, error) {
	act := action{"read reference", ref.String()}
	name, err := b.referenced(ref)
	if err != nil {
		return secret.Item{}, act.wrap(err)
	}
	var v version
	if ref.Version == "" {
		v, err = b.current(ctx, name, 0)
	} else {
		v, err = b.access(ctx, name, ref.Version)
		if notEnabled(err) || is(err, codes.FailedPrecondition) && ref.Version != latest && !b.enabled(ctx, name, ref.Version) {
			err = fmt.Errorf("%w: the version is disabled or destroyed", secret.ErrNotFound)
		}
	}
	if err == nil && ref.Field != "" {
		v.value, err = secret.JSONMember(v.value, ref.Field)
	}
	if err == nil {
		err = secret.CheckValue(v.value)
	}
	if err != nil {
		return secret.Item{}, act.wrap(err)
	}
	return secret.Item{Value: secret.NewValue(v.value), Version: format(v.number)}, nil
}

// enabled reports whether a numbered version is enabled, as far as can be found out.
func (b *GCPBackend) enabled(ctx context.Context, name, number string) bool {
	list, err := b.list(ctx, name)
	return err != nil || !slices.ContainsFunc(list, func(l listed) bool { return format(l.number) == number && !l.enabled })
}

// referenced returns the resource name of the secret that a reference means.
func (b *GCPBackend) referenced(ref secret.Reference) (name string, err error) {
	if _, err := b.ReferenceSegments(ref.Path); err != nil {
		return "", err
	}
	if _, err := parseVersion(ref.Version); err != nil && ref.Version != "" && !aliasPattern.MatchString(ref.Version) {
		return "", secret.BadReference("a version is a number or an alias")
	}
	path := strings.Trim(ref.Path, "/")
	if strings.Contains(path, "/") {
		return path, nil
	}
	return b.name(path), nil
}

// ReferenceSegments implements [secret.ReferenceReader]. The segments of a secret are
// those of its full name, with the id divided at each "__" as the keys are. A name that
// begins with another project is not compared by what it means: projects/<number>/… and
// projects/<id>/… of one project have different segments.
func (b *GCPBackend) ReferenceSegments(path string) ([]string, error) {
	refuse := func(why string) ([]string, error) {
		return nil, secret.BadReference(fmt.Sprintf("path %q: %s", path, why))
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) == 1 {
		parts = append(strings.Split(b.parent(), "/"), "secrets", parts[0])
	}
	within := "projects/<project>/secrets/<id>"
	at := 2
	if b.location != "" {
		within, at = "projects/<project>/locations/"+b.location+"/secrets/<id>", 4
	}
	if len(parts) != at+2 || parts[0] != "projects" || parts[at] != "secrets" ||
		at == 4 && (parts[2] != "locations" || parts[3] != b.location) {
		return refuse("it must be a secret's id or read " + within + "; a version follows after @")
	}
	if !projectPattern.MatchString(parts[1]) {
		return refuse("there is no project of this name")
	}
	id := parts[at+1]
	if !legalID(id) || len(id) > MaxIDBytes {
		return refuse(fmt.Sprintf("a secret's id has 1 to %d letters, digits, hyphens and underscores", MaxIDBytes))
	}
	segments := strings.Split(id, separator)
	if slices.Contains(segments, "") {
		return refuse("between two \"__\", and before and after one, there must be something")
	}
	return append(parts[:at+1:at+1], segments...), nil
}

// ReferencePrefix implements [secret.ReferenceReader].
func (b *GCPBackend) ReferencePrefix() []string {
	segments := append(strings.Split(b.parent(), "/"), "secrets")
	return append(segments, strings.Split(b.prefix, separator)...)
}

// LocateReference implements [secret.ReferenceReader].
func (b *GCPBackend) LocateReference(ref secret.Reference) string {
	name, err := b.referenced(ref)
	if err != nil {
		return ref.String()
	}
	if ref.Version != "" {
		name += "/versions/" + ref.Version
	}
	if ref.Field != "" {
		name += " (member " + ref.Field + " of the JSON object)"
	}
	return name
}

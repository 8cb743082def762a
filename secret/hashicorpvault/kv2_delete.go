package hashicorpvault

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"github.com/nexus-broker/nexus-broker/secret"
)

func (e kv2) delete(ctx context.Context, key string) error {
	r := request{method: http.MethodDelete, path: e.path("metadata", key)}
	a, err := e.b.call(ctx, r)
	switch {
	case err != nil:
		return err
	case a.ok(), a.missing():
		return nil
	case a.denied():
		return e.deleteVersions(ctx, key, fault(a, r, nil))
	}
	return fault(a, r, nil)
}

// deleteVersions does what is next best where the metadata may not be deleted:
// destroys every version, or else deletes them. denied is the error if nothing of
// this is allowed either.
func (e kv2) deleteVersions(ctx context.Context, key string, denied error) error {
	versions, err := e.versions(ctx, key)
	if err != nil {
		if errors.Is(err, secret.ErrDenied) && !errors.Is(err, secret.ErrLogin) {
			return denied
		}
		return err
	}
	if len(versions) == 0 {
		return nil
	}
	return e.firstAllowed(ctx, key, denied, len(versions),
		e.destroy(key, versions, "the metadata of the destroyed versions"),
		e.softDelete(key, versions, "the deleted versions, which can be undeleted, and their metadata"),
		e.deleteNewest(key, "older versions, the newest, which can be undeleted, and their metadata"))
}

// removeVersion deletes the key if the version is the only one that it ever had, and
// else destroys the version: what a person has deleted can be undeleted as before.
func (e kv2) removeVersion(ctx context.Context, key string, version int) error {
	found, err := e.read(ctx, key)
	switch {
	case err != nil:
		return err
	case found.version < version:
		return nil // the key has been deleted since
	case found.version == 1:
		return e.delete(ctx, key)
	}
	const left = "a deleted version, which can be undeleted"
	versions := []int{version}
	steps := []removal{e.destroy(key, versions, ""), e.softDelete(key, versions, left)}
	if found.version == version {
		steps = append(steps, e.deleteNewest(key, left))
	}
	return e.firstAllowed(ctx, key, nil, 1, steps...)
}

// removal is a way to remove versions, and what it leaves, "" if that is as it should be.
type removal struct {
	request
	left string
}

func (e kv2) destroy(key string, versions []int, left string) removal {
	return removal{request{method: http.MethodPut, path: e.path("destroy", key), body: map[string][]int{"versions": versions}}, left}
}

func (e kv2) softDelete(key string, versions []int, left string) removal {
	return removal{request{method: http.MethodPut, path: e.path("delete", key), body: map[string][]int{"versions": versions}}, left}
}

func (e kv2) deleteNewest(key, left string) removal {
	return removal{request{method: http.MethodDelete, path: e.path("data", key)}, left}
}

// firstAllowed tries one way after the other until a policy allows it. denied is the
// error if none does, nil for that of the first way.
func (e kv2) firstAllowed(ctx context.Context, key string, denied error, versions int, ways ...removal) error {
	for _, way := range ways {
		a, err := e.b.call(ctx, way.request)
		switch {
		case err != nil:
			return err
		case a.denied():
			denied = cmp.Or(denied, fault(a, way.request, nil))
			continue
		case !a.ok() && !a.missing():
			return fault(a, way.request, nil)
		}
		if way.left != "" {
			e.b.log.Warn("a deletion has left something in Vault: allow delete on the path",
				"left", way.left, "versions", versions, "path", e.path("metadata", key))
		}
		return nil
	}
	return denied
}

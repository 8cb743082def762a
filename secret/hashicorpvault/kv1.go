package hashicorpvault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"

	"github.com/nexus-broker/nexus-broker/secret"
)

// kv1 is KV version 1: no versions, no check-and-set
// (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v1).
type kv1 struct{ b *VaultBackend }

func (e kv1) read(ctx context.Context, key string) (stored, error) {
	return e.readAt(ctx, e.b.below(key), 0)
}

func (e kv1) readAt(ctx context.Context, at string, version int) (stored, error) {
	if version != 0 {
		return stored{}, errNoVersions
	}
	r := request{method: http.MethodGet, path: path.Join(e.b.mount, at)}
	a, err := e.b.call(ctx, r)
	switch {
	case err != nil:
		return stored{}, err
	case a.missing():
		return stored{}, nil
	case a.status == http.StatusNotFound && len(a.warnings) > 0:
		return stored{}, errOtherVersion
	case !a.ok():
		return stored{}, fault(a, r, nil)
	}
	s := stored{exists: true}
	if a.data == nil || json.Unmarshal(a.data, &s.fields) != nil {
		return stored{}, errNotKV
	}
	return s, nil
}

var errNoVersions = secret.BadReference("the KV engine is version 1, which keeps no versions: leave out the @ and what follows it")

// errNotKV: an answer in Vault's form without a KV secret in it.
var errNotKV = fmt.Errorf("%w: the answer is not that of a KV engine: check the address, the mount and the KV version", secret.ErrUnavailable)

func (e kv1) write(ctx context.Context, key string, f fields) (int, error) {
	r := request{method: http.MethodPut, path: e.b.Locate(key), body: f}
	a, err := e.b.call(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case a.status == http.StatusNotFound && len(a.warnings) > 0:
		return 0, errOtherVersion
	case !a.ok():
		return 0, fault(a, r, nil)
	}
	return 0, nil
}

// create is not atomic: the engine has nothing to make it so.
func (e kv1) create(ctx context.Context, key string, f fields) (int, error) {
	found, err := e.read(ctx, key)
	if err != nil {
		return 0, err
	}
	if found.exists {
		return 0, errExists
	}
	return e.write(ctx, key, f)
}

// replace: no version is ever stored here. The read tells whether the engine is one
// of this version.
func (e kv1) replace(ctx context.Context, key string, _ fields, _ int) (int, error) {
	if _, err := e.read(ctx, key); err != nil {
		return 0, err
	}
	return 0, errChanged
}

// removeVersion is like replace: there is none to remove.
func (e kv1) removeVersion(ctx context.Context, key string, _ int) error {
	_, err := e.read(ctx, key)
	return err
}

var errChanged = fmt.Errorf("%w: it was not overwritten: read it again", secret.ErrChanged)

var errExists = fmt.Errorf("%w: it was not written again", secret.ErrExists)

func (e kv1) delete(ctx context.Context, key string) error {
	r := request{method: http.MethodDelete, path: e.b.Locate(key)}
	a, err := e.b.call(ctx, r)
	switch {
	case err != nil:
		return err
	case a.status == http.StatusNotFound && len(a.warnings) > 0:
		return errOtherVersion
	case a.ok(), a.missing():
		return nil
	}
	return fault(a, r, nil)
}

package hashicorpvault

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"
)

// kv2 is KV version 2
// (https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2).
type kv2 struct{ b *VaultBackend }

// path returns the API path of one of the engine's branches: data, metadata, …
func (e kv2) path(branch, key string) string {
	return path.Join(e.b.mount, branch, e.b.below(key))
}

// errConflict: the version that the write was to follow is not the newest.
var errConflict = errors.New("check-and-set conflict")

// errCASRequired: the mount or the key accepts no write without check-and-set.
var errCASRequired = errors.New("check-and-set required")

// maxAttempts bounds how often a check-and-set is repeated. Of those who write at the
// same time one succeeds in each round.
const maxAttempts = 64

func (e kv2) read(ctx context.Context, key string) (stored, error) {
	return e.readAt(ctx, e.b.below(key), 0)
}

func (e kv2) readAt(ctx context.Context, at string, version int) (stored, error) {
	r := request{method: http.MethodGet, path: path.Join(e.b.mount, "data", at)}
	if version != 0 {
		r.query = url.Values{"version": {strconv.Itoa(version)}}
	}
	a, err := e.b.call(ctx, r)
	switch {
	case err != nil:
		return stored{}, err
	case a.missing():
		return stored{}, nil
	case a.status == http.StatusNotFound && len(a.warnings) > 0 && a.data == nil:
		return stored{}, errOtherVersion
	case !a.ok() && (a.status != http.StatusNotFound || a.data == nil):
		return stored{}, fault(a, r, nil)
	}
	var found struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata *struct {
			Version int `json:"version"`
		} `json:"metadata"`
	}
	if json.Unmarshal(a.data, &found) != nil || found.Metadata == nil || found.Metadata.Version < 1 {
		if a.ok() && a.data != nil && found.Metadata == nil {
			return stored{}, errOtherVersion // version 1 keeps a secret at this very path
		}
		return stored{}, errNotKV
	}
	// A version that is deleted or destroyed is a 404 with metadata.
	return stored{exists: found.Data != nil && a.ok(), fields: found.Data, version: found.Metadata.Version}, nil
}

// write replaces whatever is there.
func (e kv2) write(ctx context.Context, key string, f fields) (int, error) {
	version, err := e.put(ctx, key, f, nil)
	if !errors.Is(err, errCASRequired) {
		return version, err
	}
	return e.checkAndSet(ctx, key, f, func(stored) error { return nil })
}

func (e kv2) replace(ctx context.Context, key string, f fields, version int) (int, error) {
	written, err := e.put(ctx, key, f, &version)
	if errors.Is(err, errConflict) {
		err = errChanged
	}
	return written, err
}

// create reads first, because a newest version that is deleted has to be followed
// by its number, and because a policy may allow no write at all over a value.
func (e kv2) create(ctx context.Context, key string, f fields) (int, error) {
	return e.checkAndSet(ctx, key, f, func(s stored) error {
		if s.exists {
			return errExists
		}
		return nil
	})
}

// checkAndSet writes after the version that it has read, if allow agrees.
func (e kv2) checkAndSet(ctx context.Context, key string, f fields, allow func(stored) error) (int, error) {
	for attempt := range maxAttempts {
		if err := pause(ctx, attempt); err != nil {
			return 0, err
		}
		found, err := e.read(ctx, key)
		if err == nil {
			err = allow(found)
		}
		if err != nil {
			return 0, err
		}
		version, err := e.put(ctx, key, f, &found.version)
		if !errors.Is(err, errConflict) {
			return version, err
		}
	}
	return 0, errContended
}

// pause waits before another attempt, the longer the more there were, at random so
// that those who compete do not keep in step.
func pause(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return nil
	}
	timer := time.NewTimer(rand.N(time.Duration(min(attempt, 20)) * 5 * time.Millisecond))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// put writes a version, after version cas if that is not nil (0: the first).
func (e kv2) put(ctx context.Context, key string, f fields, cas *int) (int, error) {
	options := map[string]int{}
	if cas != nil {
		options["cas"] = *cas
	}
	r := request{method: http.MethodPut, path: e.path("data", key), body: map[string]any{"data": f, "options": options}}
	a, err := e.b.call(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case a.status == http.StatusBadRequest && a.says("check-and-set parameter did not match"):
		return 0, errConflict
	case a.status == http.StatusBadRequest && a.says("check-and-set parameter required"):
		return 0, errCASRequired
	case !a.ok():
		return 0, fault(a, r, nil)
	case a.status == http.StatusNoContent: // version 1 has stored it, at a path that nobody will read
		return 0, errOtherVersion
	}
	var written struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(a.data, &written) != nil || written.Version < 1 {
		return 0, errNotKV
	}
	return written.Version, nil
}

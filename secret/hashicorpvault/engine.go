package hashicorpvault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// engine is a version of KV. Its errors lack the action only.
type engine interface {
	read(ctx context.Context, key string) (stored, error)
	// readAt is read at a path below the mount, of one version, or of the newest one if
	// that is 0.
	readAt(ctx context.Context, at string, version int) (stored, error)
	// write and create return the version written, 0 if the engine keeps none.
	write(ctx context.Context, key string, f fields) (int, error)
	create(ctx context.Context, key string, f fields) (int, error)
	// replace is write over this version and no other, else errChanged.
	replace(ctx context.Context, key string, f fields, version int) (int, error)
	delete(ctx context.Context, key string) error
	removeVersion(ctx context.Context, key string, version int) error
	// demands returns what the policies have to allow for key, all of it.
	demands(key string, need secret.Access) []demand
}

// errOtherVersion: the mount holds the other version of KV.
var errOtherVersion = errors.New("the mount holds the other version of KV")

// errContended: others have kept writing the key between our reading and writing.
var errContended = fmt.Errorf("%w: others are writing the same key: try again", secret.ErrUnavailable)

// detector knows which version of KV is mounted, from the configuration or by asking.
type detector struct {
	backend *VaultBackend
	fixed   bool
	turn    chan struct{} // holds one element; who has taken it may ask and change found
	found   engine        // nil: not asked yet
}

func newDetector(b *VaultBackend, version int) *detector {
	d := &detector{backend: b, fixed: version != 0, turn: make(chan struct{}, 1)}
	if d.fixed {
		d.found = b.version(version)
	}
	d.turn <- struct{}{}
	return d
}

func (b *VaultBackend) version(n int) engine {
	if n == 1 {
		return kv1{b}
	}
	return kv2{b}
}

// with calls do with the engine. If the mount turns out to hold another version than
// it did when it was asked, it is asked again, once.
func with[T any](ctx context.Context, b *VaultBackend, act action, do func(engine) (T, error)) (T, error) {
	var zero T
	for again := true; ; again = false {
		e, err := b.engine.get(ctx)
		if err != nil {
			return zero, err
		}
		result, err := do(e)
		switch {
		case !errors.Is(err, errOtherVersion):
			return result, err
		case again && !b.engine.fixed:
			b.log.Info("the KV version of the Vault mount has changed", "mount", b.mount, "operation", act.op)
			b.engine.forget(ctx, e)
		default:
			return zero, fmt.Errorf("%w: %w at %s: correct the KV version (VAULT_KV_VERSION)", secret.ErrUnavailable, err, b.mount)
		}
	}
}

// get returns the engine. One caller asks, the others wait for it or for their ctx.
func (d *detector) get(ctx context.Context) (engine, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-d.turn:
	}
	defer func() { d.turn <- struct{}{} }()
	if d.found != nil {
		return d.found, nil
	}
	version, err := d.ask(ctx)
	if err != nil {
		return nil, err
	}
	d.found = d.backend.version(version)
	return d.found, nil
}

// forget makes get ask again, unless somebody else has seen to it.
func (d *detector) forget(ctx context.Context, e engine) {
	select {
	case <-ctx.Done():
	case <-d.turn:
		if d.found == e {
			d.found = nil
		}
		d.turn <- struct{}{}
	}
}

// ask asks the server what is mounted. Every token that may do something below the
// mount may ask (https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts).
func (d *detector) ask(ctx context.Context) (int, error) {
	mount := d.backend.mount
	r := request{method: http.MethodGet, path: "sys/internal/ui/mounts/" + mount}
	a, err := d.backend.call(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case a.denied():
		return 0, fmt.Errorf("%w: nothing is mounted at %s, or the token has no right to anything below it: "+
			"check the mount, the namespace and the policies (or set VAULT_KV_VERSION to 1 or 2 to spare the question)", secret.ErrDenied, mount)
	case !a.ok():
		return 0, fault(a, r, nil)
	}
	var m struct {
		Type    string            `json:"type"`
		Path    string            `json:"path"`
		Options map[string]string `json:"options"`
	}
	if err := json.Unmarshal(a.data, &m); err != nil {
		return 0, fmt.Errorf("%w: the answer about the mount %s is not Vault's: check the address", secret.ErrUnavailable, mount)
	}
	switch {
	case m.Type != "kv" && m.Type != "generic":
		return 0, fmt.Errorf("%w: what is mounted at %s is no KV engine: correct the mount", secret.ErrUnavailable, mount)
	case !strings.HasSuffix("/"+m.Path, "/"+mount+"/"):
		return 0, fmt.Errorf("%w: %s is a path in the mount above it: put the rest of it into the prefix", secret.ErrUnavailable, mount)
	case m.Options["version"] == "2":
		return 2, nil
	}
	return 1, nil
}

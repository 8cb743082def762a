package hashicorpvault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// probeKey is asked about and never written.
const probeKey = "nexus-broker-probe/client_id"

// Probe implements [secret.Prober]: the token is valid, a KV engine is mounted, and
// the policies allow what is needed below the prefix. A token that may not ask for
// its capabilities is tried with a read of a name that is not there.
func (b *VaultBackend) Probe(ctx context.Context, need secret.Access) error {
	act := action{"probe", b.Locate("")}
	if err := b.probe(ctx, act, need); err != nil {
		return act.wrap(err)
	}
	return nil
}

func (b *VaultBackend) probe(ctx context.Context, act action, need secret.Access) error {
	// A token that is not valid is an error of call; one that may not look itself up
	// is none.
	r := request{method: http.MethodGet, path: "auth/token/lookup-self", self: true}
	a, err := b.call(ctx, r)
	switch {
	case err != nil:
		return err
	case a.denied() && a.invalidToken():
		return refused("the token is not valid: it has expired or was revoked: %s", b.auth.method.remedy())
	case !a.ok() && !a.denied():
		return fault(a, r, nil)
	}
	_, err = with(ctx, b, act, func(e engine) (struct{}, error) { return struct{}{}, b.permitted(ctx, e, need) })
	return err
}

// permitted checks the policies.
func (b *VaultBackend) permitted(ctx context.Context, e engine, need secret.Access) error {
	demands := e.demands(probeKey, need)
	var paths []string
	for _, right := range slices.Concat(demands...) {
		paths = append(paths, right.path)
	}
	r := request{method: http.MethodPut, path: "sys/capabilities-self", body: map[string][]string{"paths": paths}}
	a, err := b.call(ctx, r)
	switch {
	case err != nil:
		return err
	case a.denied():
		_, err := e.read(ctx, probeKey)
		return err
	case !a.ok():
		return fault(a, r, nil)
	}
	var granted map[string][]string
	if json.Unmarshal(a.data, &granted) != nil {
		return errNotKV
	}
	for _, d := range demands {
		if !d.met(granted) {
			return fmt.Errorf("%w: no policy of the token allows to %s %s: ask the Vault administrator for it",
				secret.ErrDenied, strings.Join(d[0].capabilities, ", "), d[0].path)
		}
	}
	return nil
}

// demand is met by any one of its rights.
type demand []right

// right is what a policy has to allow at a path.
type right struct {
	path         string
	capabilities []string
}

func (d demand) met(granted map[string][]string) bool {
	return slices.ContainsFunc(d, func(r right) bool {
		has := granted[r.path]
		return slices.Contains(has, "root") ||
			!slices.ContainsFunc(r.capabilities, func(c string) bool { return !slices.Contains(has, c) })
	})
}

func (e kv1) demands(key string, need secret.Access) []demand {
	p := e.b.Locate(key)
	if need == secret.ReadOnly {
		return []demand{{{p, []string{"read"}}}}
	}
	return []demand{{{p, []string{"create", "read", "update", "delete"}}}}
}

func (e kv2) demands(key string, need secret.Access) []demand {
	data := e.path("data", key)
	if need == secret.ReadOnly {
		return []demand{{{data, []string{"read"}}}}
	}
	return []demand{
		{{data, []string{"create", "read", "update"}}},
		// What Delete tries, one after the other.
		{
			{e.path("metadata", key), []string{"delete"}},
			{e.path("destroy", key), []string{"update"}},
			{e.path("delete", key), []string{"update"}},
			{data, []string{"delete"}},
		},
	}
}

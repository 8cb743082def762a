package hashicorpvault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// probe is the secret that a diagnosis writes and removes.
type probe struct {
	*diagnosis
	key     string
	data    string // the API path of the value
	removal demand // what Delete tries, one after the other
	version int    // written last; 0 on KV version 1, and if nothing was
	written bool   // it is there, or may be
	value   string
}

func (d *diagnosis) newProbe() *probe {
	// A name of its own, so that nothing of anybody's is ever in its place.
	p := &probe{diagnosis: d, key: "nexus-broker-probe/doctor-" + strings.ToLower(rand.Text())}
	switch e := d.found.(type) {
	case kv2:
		p.data = e.path("data", p.key)
		p.removal = e.demands(p.key, secret.ReadWrite)[1]
	default:
		p.data = d.b.Locate(p.key)
		p.removal = demand{{p.data, []string{"delete"}}}
	}
	return p
}

// below returns what a policy would say instead of the probe's own path.
func (p *probe) below(path string) string { return strings.TrimSuffix(path, p.key) + "*" }

// rights examines what the policies allow below the prefix.
func (d *diagnosis) rights(ctx context.Context) bool {
	p := d.newProbe()
	paths := []string{p.data}
	for _, r := range p.removal {
		paths = append(paths, r.path)
	}
	granted, told := d.capabilities(ctx, false, slices.Compact(paths)...)
	switch {
	case d.need == secret.ReadOnly:
		if p.read(ctx) && told {
			p.excess(granted)
		}
	case told && !p.removal.met(granted):
		p.asTold(ctx, granted)
	default:
		p.roundTrip(ctx, granted)
	}
	return true
}

// references examines whether what lies below the prefixes of references may be read,
// by a name that is not there. A policy may name the secrets one by one, which no
// question finds out without knowing their names: then it is a warning.
func (d *diagnosis) references(ctx context.Context) bool {
	const check = "references"
	places, _ := secret.ReferencePlaces(d.b, d.b.references) // below what is no path here nothing lies
	for _, place := range places {
		at := referencePath(d.found, place)
		_, err := d.found.readAt(ctx, strings.Join(place, "/")+"/nexus-broker-probe/doctor-"+strings.ToLower(rand.Text()), 0)
		switch {
		case err == nil:
			d.ok(check, "may be read below %s", at)
			continue
		case !deniedByPolicy(err):
			d.failed(check, err)
			return false
		}
		if granted, told := d.capabilities(ctx, false, at); told && allowed(granted, at, "read") {
			d.ok(check, "may be read at %s, and not below", at)
			continue
		}
		d.warn(check, fmt.Sprintf(`allow "read" on %s/*, unless a policy names each secret there that is referred to`, at),
			"no policy of the token allows to read %s/*, where SECRET_REF_ALLOWED_PREFIXES lets references lie", at)
	}
	return true
}

// excess warns of a token that could write although nobody needs it to.
func (p *probe) excess(granted map[string][]string) {
	var more []string
	for _, right := range []string{"create", "update"} {
		if allowed(granted, p.data, right) {
			more = append(more, right)
		}
	}
	if p.removal.met(granted) {
		more = append(more, "delete")
	}
	if len(more) > 0 {
		p.warn("least privilege", "give it the read-only policy", "the token may also %s %s, and only has to read", strings.Join(more, ", "), p.below(p.data))
	}
}

// asTold reports the rights that Vault tells, and writes nothing: a probe could not be
// removed again.
func (p *probe) asTold(ctx context.Context, granted map[string][]string) {
	const why = "what is written could not be deleted"
	p.told("create", granted, why)
	p.read(ctx)
	p.told("update", granted, why)
	p.denied("delete", p.removal[0].path)
}

// told reports a right that was not tried, and why.
func (p *probe) told(right string, granted map[string][]string, why string) {
	if allowed(granted, p.data, right) {
		p.ok(right, "allowed on %s; not tried: %s", p.below(p.data), why)
		return
	}
	p.denied(right, p.data)
}

// roundTrip writes the probe, reads it, writes it again and deletes it.
func (p *probe) roundTrip(ctx context.Context, granted map[string][]string) {
	defer p.clear(ctx)
	created, goOn := p.write(ctx, "create")
	if !goOn || !p.read(ctx) {
		return
	}
	switch {
	case created:
		_, goOn = p.write(ctx, "update")
	case granted != nil:
		p.told("update", granted, "nothing could be created")
	}
	if goOn {
		p.remove(ctx)
	}
}

// write writes the next version. goOn is false where the trouble is not a policy's.
func (p *probe) write(ctx context.Context, right string) (done, goOn bool) {
	value := "probe-" + rand.Text()
	var err error
	switch e := p.found.(type) {
	case kv2:
		var version int
		if version, err = e.put(ctx, p.key, newFields(value, ""), &p.version); err == nil {
			p.version = version
		}
	default:
		_, err = e.write(ctx, p.key, newFields(value, ""))
	}
	switch {
	case err == nil:
		p.value, p.written = value, true
		p.ok(right, "allowed on %s", p.below(p.data))
		return true, true
	case deniedByPolicy(err):
		p.denied(right, p.data)
		return false, true
	}
	p.written = true // for all that is known
	p.failed(right, err)
	return false, false
}

// read reads the probe, or a name where nothing is. It returns false where the trouble
// is not a policy's.
func (p *probe) read(ctx context.Context) bool {
	const right = "read"
	found, err := p.found.read(ctx, p.key)
	switch {
	case err == nil:
	case deniedByPolicy(err):
		p.denied(right, p.data)
		return true
	default:
		p.failed(right, err)
		return false
	}
	if p.value != "" {
		item, err := found.item(p.key)
		if !found.exists || err != nil || item.Value.Reveal() != p.value {
			p.fail(right, "check what stands between the broker and Vault", "another value was read than was written below %s", p.below(p.data))
			return true
		}
	}
	p.ok(right, "allowed on %s", p.below(p.data))
	return true
}

// remove deletes the probe in the way that leaves nothing, or else in the next best.
func (p *probe) remove(ctx context.Context) {
	const right = "delete"
	best := p.removal[0].path
	r := request{method: http.MethodDelete, path: best}
	a, err := p.b.call(ctx, r)
	switch {
	case err != nil:
		p.failed(right, err)
		return
	case a.ok(), a.missing():
		p.written = false
		p.ok(right, "allowed on %s", p.below(best))
		return
	case !a.denied():
		p.failed(right, fault(a, r, nil))
		return
	}
	e, is := p.found.(kv2)
	if !is {
		p.denied(right, best)
		return
	}
	switch err := e.deleteVersions(ctx, p.key, fault(a, r, nil)); {
	case err == nil:
		p.written = false
		p.warn(right, fmt.Sprintf(`allow "delete" on %s too`, p.below(best)),
			"values can be deleted, but something of them is left: no policy allows to delete %s", p.below(best))
	case deniedByPolicy(err):
		p.denied(right, best)
	default:
		p.failed(right, err)
	}
}

// clear removes the probe if that has not been done, also after ctx has ended.
func (p *probe) clear(ctx context.Context) {
	if !p.written {
		return
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*p.b.conn.timeout)
	defer cancel()
	if err := p.found.delete(bounded, p.key); err != nil {
		p.warn("probe", "delete it", "the probe at %s may still be there", p.b.Locate(p.key))
	}
}

func (p *probe) denied(right, path string) {
	p.fail(right, fmt.Sprintf("allow %q on %s", right, p.below(path)), "no policy of the token allows to %s %s", right, p.below(path))
}

// deniedByPolicy: another token might fare better with the same request.
func deniedByPolicy(err error) bool {
	return errors.Is(err, secret.ErrDenied) && !errors.Is(err, secret.ErrLogin)
}

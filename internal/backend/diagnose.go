package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// probeOwner marks what Diagnose writes.
const probeOwner = "nexus-broker/doctor"

// removalTime bounds the removal of a probe after ctx has ended.
const removalTime = 30 * time.Second

// Diagnose returns what b finds out about itself, if it is a [secret.Diagnoser]. Of
// another backend it returns what can be told of any: what its Probe says and, with
// ReadWrite, whether a key that nobody else uses can be created, read, replaced and
// deleted. The key is removed also if ctx ends meanwhile.
func Diagnose(ctx context.Context, b secret.SecretBackend, need secret.Access) []secret.Finding {
	all := secret.CapabilitiesOf(b)
	if all.Diagnoser != nil {
		return all.Diagnoser.Diagnose(ctx, need)
	}
	t := &trial{b: all, key: "nexus-broker-probe/doctor-" + strings.ToLower(rand.Text())}
	if all.Prober != nil && !t.note("probe", all.Prober.Probe(ctx, need)) {
		return t.findings
	}
	if need == secret.ReadOnly {
		_, err := all.Get(ctx, t.key)
		if errors.Is(err, secret.ErrNotFound) {
			err = nil // a name that is not there, read by somebody who may
		}
		t.note("read", err)
		return t.findings
	}
	t.roundTrip(ctx)
	return t.findings
}

// trial tries a backend out with one key.
type trial struct {
	b        secret.Capabilities
	key      string
	findings []secret.Finding
}

// note reports how a step went. An error's message ends with what to do about it.
func (t *trial) note(check string, err error) bool {
	f := secret.Finding{Check: check, Verdict: secret.Ok, Detail: "works"}
	if err != nil {
		f = secret.Finding{Check: check, Verdict: secret.Fail, Detail: err.Error(), Advice: "see to the secret backend"}
		if i := strings.LastIndex(f.Detail, ": "); i >= 0 && !endedBy(err) {
			f.Detail, f.Advice = f.Detail[:i], f.Detail[i+2:]
		}
	}
	t.findings = append(t.findings, f)
	return err == nil
}

func (t *trial) roundTrip(ctx context.Context) {
	first, second := "probe-"+rand.Text(), "probe-"+rand.Text()
	err := t.write(ctx, first, true)
	if errors.Is(err, secret.ErrDenied) {
		t.note("create", err)
		return
	}
	removed := false
	defer func() {
		if !removed {
			t.remove(ctx)
		}
	}()
	if !t.note("create", err) || !t.note("read", t.holds(ctx, first)) {
		return
	}
	if err = t.write(ctx, second, false); err == nil {
		err = t.holds(ctx, second)
	}
	t.note("update", err)
	if err = t.b.Delete(ctx, t.key); err == nil {
		removed = true
		if _, err = t.b.Get(ctx, t.key); errors.Is(err, secret.ErrNotFound) {
			err = nil
		} else if err == nil {
			err = fmt.Errorf("the key is still there after it was deleted: see to the store")
		}
	}
	t.note("delete", err)
}

func (t *trial) write(ctx context.Context, value string, create bool) (err error) {
	switch {
	case t.b.Owned == nil:
		err = t.b.Set(ctx, t.key, value)
	case create:
		_, err = t.b.Owned.Create(ctx, t.key, value, probeOwner)
	default:
		_, err = t.b.Owned.Replace(ctx, t.key, value, probeOwner, "")
	}
	return err
}

// holds checks that the key has the value.
func (t *trial) holds(ctx context.Context, value string) error {
	got, err := t.b.Get(ctx, t.key)
	if err == nil && got != value {
		err = errors.New("another value was read than was written: see to the store")
	}
	return err
}

func (t *trial) remove(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), removalTime)
	defer cancel()
	if t.b.Delete(bounded, t.key) == nil {
		return
	}
	place := t.key
	if t.b.Locator != nil {
		place = t.b.Locator.Locate(t.key)
	}
	t.findings = append(t.findings, secret.Finding{Check: "leftover", Verdict: secret.Warn,
		Detail: fmt.Sprintf("the probe at %s may still be there", place), Advice: "delete it"})
}

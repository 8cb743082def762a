// Package backend puts around a secret backend what every one of them needs and
// none should have to do itself: a deadline for each call, metrics, a trace span and a
// debug log.
package backend

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret"
)

// Options say how a backend is decorated.
type Options struct {
	Name    string           // what metrics, logs and errors call the backend
	Timeout time.Duration    // of one call; 0: none
	Metrics *metrics.Metrics // nil: not counted
	Logger  *slog.Logger     // nil: not logged
	Tracer  trace.Tracer     // nil: not traced
}

// Decorate returns what b can do, with a deadline, metrics, a span and a debug log around
// each call. What it cannot do is nil. Telling where a key lies needs nothing around it,
// and an administrator's calls (Diagnoser, PolicyWriter), which may be many requests
// each, have no deadline of ours. Closing b remains its owner's business.
//
// A call that takes longer than the timeout ends with an error that wraps
// [secret.ErrUnavailable] and context.DeadlineExceeded. A call whose own context
// ends wraps that context's error, as the contract says, and no sentinel.
func Decorate(b secret.SecretBackend, o Options) secret.Capabilities {
	if o.Metrics == nil {
		o.Metrics = metrics.New(nil)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Tracer == nil {
		o.Tracer = noop.NewTracerProvider().Tracer("")
	}
	c := &caller{o}
	can := secret.CapabilitiesOf(b)
	can.SecretBackend = plain{c, can.SecretBackend}
	if can.Owned != nil {
		can.Owned = owned{plain{c, can.Owned}, can.Owned}
	}
	if can.Versions != nil {
		can.Versions = versioned{c, can.Versions}
	}
	if can.Remnants != nil {
		can.Remnants = remnants{c, can.Remnants}
	}
	if can.Prober != nil {
		can.Prober = probed{c, can.Prober}
	}
	if can.Batch != nil {
		can.Batch = batched{c, can.Batch}
	}
	if can.References != nil {
		can.References = referenced{can.References, c}
	}
	return can
}

// plain decorates the three methods that every backend has.
type plain struct {
	*caller
	inner secret.SecretBackend
}

// Get implements secret.SecretBackend.
func (d plain) Get(ctx context.Context, key string) (value string, err error) {
	err = d.call(ctx, "get", key, func(ctx context.Context) error {
		value, err = d.inner.Get(ctx, key)
		return err
	})
	return value, err
}

// Set implements secret.SecretBackend.
func (d plain) Set(ctx context.Context, key, value string) error {
	return d.call(ctx, "set", key, func(ctx context.Context) error { return d.inner.Set(ctx, key, value) })
}

// Delete implements secret.SecretBackend.
func (d plain) Delete(ctx context.Context, key string) error {
	return d.call(ctx, "delete", key, func(ctx context.Context) error { return d.inner.Delete(ctx, key) })
}

// owned decorates a backend that keeps marks.
type owned struct {
	plain
	inner secret.OwnedBackend
}

// Read implements secret.OwnedBackend.
func (d owned) Read(ctx context.Context, key string) (item secret.Item, err error) {
	err = d.call(ctx, "read", key, func(ctx context.Context) error {
		item, err = d.inner.Read(ctx, key)
		return err
	})
	return item, err
}

// Create implements secret.OwnedBackend.
func (d owned) Create(ctx context.Context, key, value, owner string) (version string, err error) {
	err = d.call(ctx, "create", key, func(ctx context.Context) error {
		version, err = d.inner.Create(ctx, key, value, owner)
		return err
	})
	return version, err
}

// Replace implements secret.OwnedBackend.
func (d owned) Replace(ctx context.Context, key, value, owner, ifVersion string) (version string, err error) {
	err = d.call(ctx, "replace", key, func(ctx context.Context) error {
		version, err = d.inner.Replace(ctx, key, value, owner, ifVersion)
		return err
	})
	return version, err
}

// versioned decorates a backend that can take back a single write.
type versioned struct {
	*caller
	inner secret.VersionRemover
}

// RemoveVersion implements secret.VersionRemover.
func (d versioned) RemoveVersion(ctx context.Context, key, version string) error {
	return d.call(ctx, "remove_version", key, func(ctx context.Context) error {
		return d.inner.RemoveVersion(ctx, key, version)
	})
}

// remnants decorates a backend whose interrupted writes can leave something.
type remnants struct {
	*caller
	inner secret.RemnantRemover
}

// RemoveRemnant implements secret.RemnantRemover.
func (d remnants) RemoveRemnant(ctx context.Context, key string, mine func(owner string) bool) (removed bool, err error) {
	err = d.call(ctx, "remove_remnant", key, func(ctx context.Context) error {
		removed, err = d.inner.RemoveRemnant(ctx, key, mine)
		return err
	})
	return removed, err
}

// probed decorates a backend that can be probed.
type probed struct {
	*caller
	inner secret.Prober
}

// Probe implements secret.Prober.
func (d probed) Probe(ctx context.Context, need secret.Access) error {
	return d.call(ctx, "probe", "", func(ctx context.Context) error { return d.inner.Probe(ctx, need) })
}

// referenced decorates a backend that reads references; only reading one is a call.
type referenced struct {
	secret.ReferenceReader
	*caller
}

// ReadReference implements secret.ReferenceReader.
func (d referenced) ReadReference(ctx context.Context, ref secret.Reference) (item secret.Item, err error) {
	err = d.call(ctx, "read_reference", ref.String(), func(ctx context.Context) error {
		item, err = d.ReferenceReader.ReadReference(ctx, ref)
		return err
	})
	return item, err
}

package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret"
)

// openForDoctor opens the backends with nobody to log, count or trace for.
func openForDoctor(ctx context.Context, c config.Config, rows internalbackend.Rows) (*backends, error) {
	return openBackends(ctx, c, rows, metrics.New(prometheus.NewRegistry()), nil, slog.New(slog.DiscardHandler))
}

// backend examines a secret backend.
func (r *report) backend(ctx context.Context, area string, b secret.SecretBackend, need secret.Access) {
	bounded, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	for _, finding := range backend.Diagnose(bounded, b, need) {
		r.add(area, finding)
	}
}

// references examines whether references may be allowed where the configuration wants them
// to be: the broker does not start with a prefix that is no path in the selected backend.
func (r *report) references(c config.Secrets, b secret.Capabilities) {
	if b.References == nil {
		return
	}
	if _, err := secret.ReferencePlaces(b.References, c.RefAllowedPrefixes); err != nil {
		r.add(areaConfiguration, secret.Finding{Check: "SECRET_REF_ALLOWED_PREFIXES", Verdict: secret.Fail,
			Detail: err.Error(), Advice: "give paths as " + c.Backend + " has them"})
	}
}

// furtherBackends examines the backends that rows name beside the selected one.
func (r *report) furtherBackends(ctx context.Context, db database, c config.Config, environ []string, all *backends, need secret.Access) {
	bounded, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	named, err := db.NamedBackends(bounded)
	if err != nil {
		r.add(areaDatabase, failure("backends", err, "see the log of the database"))
		return
	}
	for _, n := range named {
		if n.Name != c.Secrets.Backend {
			r.furtherBackend(ctx, n, environ, all, need)
		}
	}
}

// furtherBackend examines one of them. If nothing but copies is there, which wait for
// "secrets scrub", no flow and no sweep needs it: what fails is a warning.
func (r *report) furtherBackend(ctx context.Context, n broker.NamedBackend, environ []string, all *backends, need secret.Access) {
	area := areaBackend + "/" + oneLine(n.Name)
	if n.Managed+n.Due+n.Kept == 0 {
		need = secret.ReadOnly // it is all somebody else's
	}
	own := &report{}
	own.ok(area, "rows", "%s", namedBy(n))
	b, err := openNamed(ctx, n.Name, environ, all)
	var wrong config.Problems
	switch {
	case errors.As(err, &wrong):
		for _, p := range wrong {
			own.add(area, secret.Finding{Check: p.Variable, Verdict: secret.Fail, Detail: p.Wrong, Advice: p.Want})
		}
	case err != nil:
		own.add(area, failure("configuration", err, "correct the configuration"))
	default:
		own.backend(ctx, area, b, need)
	}
	for _, found := range own.Checks {
		if found.Verdict == secret.Fail && n.Providers+n.Due == 0 {
			found.Verdict = secret.Warn
		}
		r.Checks = append(r.Checks, found)
	}
}

// openNamed opens a backend that rows name.
func openNamed(ctx context.Context, name string, environ []string, all *backends) (secret.SecretBackend, error) {
	if i := slices.IndexFunc(all.list, func(b credentials.Backend) bool { return b.Name == name }); i >= 0 {
		return all.list[i].Store, nil
	}
	if !slices.Contains(backendNames(), name) {
		return nil, errors.New("there is no such secret backend: use a version of the broker that has it")
	}
	b, err := all.openFurther(ctx, name, environ, metrics.New(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	return b.Store, err
}

// namedBy says what a backend is needed for.
func namedBy(n broker.NamedBackend) string {
	var parts []string
	if n.Providers > 0 {
		parts = append(parts, "holds the credentials of "+counted(n.Providers, "provider", "providers"))
	}
	if n.Due > 0 {
		parts = append(parts, counted(n.Due, "pair is", "pairs are")+" to be deleted there")
	}
	if n.Kept > 0 {
		parts = append(parts, counted(n.Kept, "pair waits", "pairs wait")+` there for "secrets scrub"`)
	}
	return strings.Join(parts, "; ")
}

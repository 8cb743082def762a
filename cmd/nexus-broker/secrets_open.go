package main

import (
	"context"
	"io"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/internal/broker"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
)

// moveHouse is what moving credentials needs of a broker: it serves nobody and sweeps
// nothing.
type moveHouse struct {
	service *broker.Service
	closers []io.Closer
}

func (m *moveHouse) close() {
	for _, c := range slices.Backward(m.closers) {
		_ = c.Close()
	}
}

// openMove opens the database and both backends.
func openMove(ctx context.Context, p program, f *secretsFlags) (_ *moveHouse, err error) {
	to := f.move.To
	if to == "" {
		to = f.move.From // scrub: the others are opened as rows name them
	}
	c, err := config.LoadMove(p.environ, f.move.From, to, f.config)
	if err != nil {
		return nil, err
	}
	m := &moveHouse{}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	db, err := connectDatabase(ctx, c.Database)
	if err != nil {
		return nil, err
	}
	m.closers = append(m.closers, db)
	if err := requireFinished(ctx, db); err != nil {
		return nil, err
	}
	// Lines of a log would be in the way of the report: only what is wrong is logged.
	log := newLogger(p.stderr, config.Log{Level: max(c.Log.Level, slog.LevelError), Format: c.Log.Format})
	counts := metrics.New(prometheus.NewRegistry())
	all := &backends{decoration: backend.Options{Timeout: c.To.Timeout, Metrics: counts, Logger: log}}
	m.closers = append(m.closers, all)
	all.add(config.BackendInternal, internalbackend.New(db, c.Keys.Encryption), false, c.Config)
	further := all.further(context.WithoutCancel(ctx), p.environ, counts, log)
	for _, name := range []string{f.move.From, to} {
		if name == config.BackendInternal || slices.ContainsFunc(all.list, func(b credentials.Backend) bool { return b.Name == name }) {
			continue
		}
		b, err := further(name)
		if err != nil {
			return nil, err
		}
		all.list = append(all.list, b)
	}
	creds, err := credentials.New(credentials.Options{
		Backends: all.list, WriteTo: to, ReadOnly: c.To.ReadOnly, Further: further,
		ReferencePrefixes: nil, Audit: db, Metrics: counts, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	m.closers = append(m.closers, closer(creds.Close))
	m.service = broker.New(broker.Config{SecretTimeout: c.To.Timeout}, broker.Deps{
		Store: db, Credentials: creds, Keyring: c.Keys.Encryption, Metrics: counts, Logger: log,
	})
	return m, nil
}

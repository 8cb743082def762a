package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/nexus-broker/nexus-broker/internal/backend"
	"github.com/nexus-broker/nexus-broker/internal/config"
	"github.com/nexus-broker/nexus-broker/internal/credentials"
	"github.com/nexus-broker/nexus-broker/internal/internalbackend"
	"github.com/nexus-broker/nexus-broker/internal/metrics"
	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
)

// backends are the secret backends that are configured. The internal one always is:
// a row may name it after SECRET_BACKEND has changed.
type backends struct {
	list     []credentials.Backend
	selected secret.Capabilities // that credentials are written to
	mu       sync.Mutex          // guards closers: a further backend may be opened at any time
	closers  []io.Closer

	decoration backend.Options
}

// Close ends the backends' own work, such as renewing a login.
func (all *backends) Close() error {
	all.mu.Lock()
	defer all.mu.Unlock()
	var errs []error
	for _, c := range all.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// openBackends builds the backends. No network is needed: a vault that is down now
// must not keep the broker from serving stored tokens.
func openBackends(ctx context.Context, c config.Config, rows internalbackend.Rows, m *metrics.Metrics, tracer trace.Tracer, log *slog.Logger) (*backends, error) {
	all := &backends{decoration: backend.Options{Timeout: c.Secrets.Timeout, Metrics: m, Logger: log, Tracer: tracer}}
	internal := internalbackend.New(rows, c.Keys.Encryption)
	all.add(config.BackendInternal, internal, false, c)
	if c.Secrets.Backend == config.BackendInternal {
		return all, nil
	}
	external, err := openExternal(ctx, c.Secrets, m, log)
	if err != nil {
		return nil, err // says itself which backend it is about
	}
	all.closers = append(all.closers, external)
	all.add(c.Secrets.Backend, external, true, c)
	return all, nil
}

// further opens a backend that is not selected, when a provider's row names it: by its own
// variables, as if SECRET_BACKEND named it.
func (all *backends) further(ctx context.Context, environ []string, m *metrics.Metrics, log *slog.Logger) func(string) (credentials.Backend, error) {
	return func(name string) (credentials.Backend, error) {
		b, err := all.openFurther(ctx, name, environ, m, log)
		var wrong config.Problems
		switch {
		case errors.As(err, &wrong):
			return b, wrong
		case err != nil:
			log.WarnContext(ctx, "a secret backend that a provider's row names cannot be opened", "backend", name, "error", err)
			return b, errors.New("it cannot be opened; the broker's log says why")
		}
		log.InfoContext(ctx, "opened a secret backend that a provider's row names", "backend", name)
		return b, nil
	}
}

// openFurther opens the named external backend. The error is a config.Problems if variables
// are missing or wrong.
func (all *backends) openFurther(ctx context.Context, name string, environ []string, m *metrics.Metrics, log *slog.Logger) (credentials.Backend, error) {
	c, wrong := config.LoadNamedBackend(environ, name)
	if len(wrong) > 0 {
		return credentials.Backend{}, wrong
	}
	b, err := openExternal(ctx, c, m, log)
	if err != nil {
		return credentials.Backend{}, err
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	all.closers = append(all.closers, b)
	o := all.decoration
	o.Name = name
	return credentials.Backend{Name: name, Store: backend.Decorate(b, o), External: true}, nil
}

// externalBackend is a backend with work or connections of its own to be ended.
type externalBackend interface {
	secret.SecretBackend
	io.Closer
}

// openExternal builds the external backend that is selected.
func openExternal(ctx context.Context, c config.Secrets, m *metrics.Metrics, log *slog.Logger) (externalBackend, error) {
	switch c.Backend {
	case config.BackendVault:
		return openVault(c, m, log)
	case config.BackendAWS:
		return openAWS(ctx, c, log)
	case config.BackendGCP:
		return openGCP(c, log) //nolint:contextcheck // nothing is sent before the first call, which has a context of its own
	}
	return nil, fmt.Errorf("there is no secret backend %q", c.Backend)
}

func (all *backends) add(name string, b secret.SecretBackend, external bool, c config.Config) {
	o := all.decoration
	o.Name = name
	decorated := backend.Decorate(b, o)
	all.list = append(all.list, credentials.Backend{Name: name, Store: decorated, External: external})
	if name == c.Secrets.Backend {
		all.selected = decorated
	}
}

func openVault(c config.Secrets, m *metrics.Metrics, log *slog.Logger) (externalBackend, error) {
	v := c.Vault
	b, err := hashicorpvault.New(hashicorpvault.Config{
		Address: v.Addr, Namespace: v.Namespace, AuthNamespace: v.AuthNamespace,
		Mount: v.Mount, PathPrefix: v.PathPrefix, KVVersion: v.KVVersion, Login: vaultLogin(v), ReferencePrefixes: c.RefAllowedPrefixes,
		TLS: hashicorpvault.TLS{
			CACertFile: v.CACert, CACertDir: v.CAPath, CACertPEM: []byte(v.CACertBytes),
			ClientCertFile: v.ClientCert, ClientKeyFile: v.ClientKey,
			ServerName: v.TLSServerName, InsecureSkipVerify: v.SkipVerify,
		},
	}, hashicorpvault.Options{
		Logger: log, Timeout: c.Timeout,
		OnLogin: func(err error) { m.SecretLogin(config.BackendVault, err) },
	})
	if err != nil {
		return nil, err
	}
	m.RegisterTokenTTL(config.BackendVault, b.TokenTTL)
	return b, nil
}

// vaultLogin returns the login that VAULT_AUTH_METHOD names, nil for none that is known.
func vaultLogin(v config.Vault) hashicorpvault.Login {
	switch v.AuthMethod {
	case config.VaultToken:
		return hashicorpvault.TokenLogin{Token: v.Token, File: v.TokenFile}
	case config.VaultAppRole:
		return hashicorpvault.AppRoleLogin{
			Mount: v.AuthMount, RoleID: v.RoleID, SecretID: v.SecretID, SecretIDFile: v.SecretIDFile,
			WrappedSecretID: v.SecretIDWrapped, WrappedSecretIDFile: v.SecretIDWrappedFile,
		}
	case config.VaultKubernetes:
		return hashicorpvault.KubernetesLogin{Mount: v.AuthMount, Role: v.Role, TokenFile: v.TokenPath}
	case config.VaultJWT:
		return hashicorpvault.JWTLogin{Mount: v.AuthMount, Role: v.Role, File: v.TokenPath}
	case config.VaultAWS:
		return hashicorpvault.AWSLogin{Mount: v.AuthMount, Role: v.Role}
	case config.VaultCert:
		return hashicorpvault.CertLogin{Mount: v.AuthMount, Role: v.Role}
	}
	return nil
}

func openAWS(ctx context.Context, c config.Secrets, log *slog.Logger) (externalBackend, error) {
	a := c.AWS
	b, err := awssecretsmanager.New(ctx, awssecretsmanager.Config{
		Region: a.Region, Prefix: a.Prefix, RoleARN: a.RoleARN, ExternalID: a.ExternalID,
		KMSKeyID: a.KMSKeyID, Tags: a.Tags, RecoveryDays: a.RecoveryDays, ReferencePrefixes: c.RefAllowedPrefixes,
	}, awssecretsmanager.Options{Logger: log, Timeout: c.Timeout})
	if err != nil {
		return nil, err
	}
	return b, nil
}

func openGCP(c config.Secrets, log *slog.Logger) (externalBackend, error) {
	g := c.GCP
	b, err := gcpsecretmanager.New(gcpsecretmanager.Config{
		ProjectID: g.ProjectID, Prefix: g.Prefix, Locations: g.Locations, Location: g.Location, KMSKey: g.KMSKey,
		KeepVersions: g.KeepVersions, ImpersonateServiceAccount: g.ImpersonateServiceAccount, EmulatorHost: g.EmulatorHost,
		ReferencePrefixes: c.RefAllowedPrefixes,
	}, gcpsecretmanager.Options{Logger: log, Timeout: c.Timeout})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// checkNamed opens the further backends that hold the credentials of some provider. One for
// which variables are missing is logged, and shows in GET /health/ready: the flows of those
// providers fail, and all else goes on.
func checkNamed(ctx context.Context, db database, creds *credentials.Service, log *slog.Logger) error {
	named, err := db.NamedBackends(ctx)
	for _, n := range named {
		if n.Providers > 0 && !creds.Configured(n.Name) {
			log.WarnContext(ctx, `a secret backend that holds credentials is not configured; "nexus-broker doctor" says what is missing`,
				"backend", n.Name, "providers", n.Providers)
		}
	}
	return err
}

// checkBackend asks the selected backend, without writing, whether it will do. A
// refused login always ends the start; a denied or unanswered probe only if the
// check is strict, since stored tokens can be served all the same.
func checkBackend(ctx context.Context, c config.Secrets, b *backends, log *slog.Logger) error {
	if b.selected.Prober == nil || c.StartupCheck == config.CheckOff {
		return nil
	}
	need := secret.ReadWrite
	if c.ReadOnly {
		need = secret.ReadOnly
	}
	err := b.selected.Prober.Probe(ctx, need)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, secret.ErrLogin), c.StartupCheck == config.CheckStrict:
		return fmt.Errorf("start-up check of %s: %w", c.Backend, err)
	}
	log.WarnContext(ctx, "start-up check of the secret backend failed; stored tokens are served, flows may fail",
		"backend", c.Backend, "error", err)
	return nil
}

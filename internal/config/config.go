// Package config reads the broker's configuration: environment variables, in one
// place, validated together.
//
// One table of variables drives everything: what is read and how, the defaults,
// what is wrong with a value and what a right one looks like, the effective
// configuration that "nexus-broker config" prints, and the test that
// docs/configuration.md is complete. A variable set to the empty string counts as
// unset.
//
// No value that was read is ever quoted in a problem or a warning: a secret that
// was put into the wrong variable stays unseen too.
package config

import (
	"slices"
	"time"
)

// Config is the broker's effective configuration.
type Config struct {
	Dev      Dev
	Server   Server
	Database Database
	Keys     Keys
	Access   Access
	Secrets  Secrets
	Outbound Outbound
	Audit    Audit
	Log      Log
	Tracing  Tracing
	Client   Client // read by LoadClient alone

	// Warnings are to be logged once at start, one line each.
	Warnings []string
	// Settings are the variables that have a say, in the order of the table.
	Settings []Setting
}

// Outbound rules the broker's own requests to providers.
type Outbound struct {
	// AllowPrivate: provider URLs may resolve to private, loopback and link-local
	// addresses.
	AllowPrivate bool
}

// Audit rules the audit log.
type Audit struct {
	Retention time.Duration // 0: events are kept for ever
}

// Setting is one line of the effective configuration.
type Setting struct {
	Name   string
	Value  string // "set" or "unset" for a secret; "" if it has none
	Source Source
}

// Source says where a value comes from.
type Source string

// The sources of a value.
const (
	FromDefault Source = "default"
	FromEnv     Source = "env"
	FromFile    Source = "file" // NAME_FILE
	FromDev     Source = "dev"  // a default of --dev
)

// Options select how the environment is read.
type Options struct {
	// Dev applies the defaults of --dev and makes the keys that are not there yet.
	Dev bool
	// DataDir is where --dev keeps its files; "" means "nexus-data".
	DataDir string
	// Inspect: look only. With Dev no file is made; keys that are not there yet are
	// made up and forgotten.
	Inspect bool
}

// Load reads the whole configuration from environ, which has the form of
// os.Environ. Everything that is wrong is reported together: the error is of type
// Problems. With an error, only Settings and Warnings are of use.
func Load(environ []string, o Options) (Config, error) {
	l := newLoader(environ, o)
	l.read(variables())
	l.checkServer()
	l.checkDatabase()
	l.checkKeys()
	l.checkAccess()
	l.checkBackends()
	l.checkTelemetry()
	l.checkSpelling()
	l.prepareDev()
	return l.result()
}

// LoadDatabase reads only what opening the database needs, as Load does. The rest
// of the Config is zero.
func LoadDatabase(environ []string, o Options) (Config, error) {
	l := newLoader(environ, o)
	l.read(databaseVariables())
	l.checkDatabase()
	l.prepareDev()
	return l.result()
}

// LoadBackend reads only what the selected secret backend needs, as Load does. The rest
// of the Config is zero.
func LoadBackend(environ []string, o Options) (Config, error) {
	l := newLoader(environ, o)
	l.read(backendVariables())
	l.checkBackends()
	return l.result()
}

// checkBackends checks what backendVariables have read.
func (l *loader) checkBackends() {
	l.checkSecrets()
	l.checkVault()
	l.checkAWS()
	l.checkGCP()
}

// backendVariables are the secret backends'.
func backendVariables() []variable {
	return slices.Concat(secretVariables(), vaultVariables(), awsVariables(), gcpVariables())
}

// variables returns the table, in the order in which it is read: a variable that
// others depend on comes before them.
func variables() []variable {
	var all []variable
	for _, group := range [][]variable{
		databaseVariables(), serverVariables(), keyVariables(), accessVariables(),
		generalVariables(), backendVariables(), telemetryVariables(),
	} {
		all = append(all, group...)
	}
	return all
}

// generalVariables belong to no larger subject.
func generalVariables() []variable {
	return []variable{
		{name: "OUTBOUND_ALLOW_PRIVATE", def: "true", set: boolean(func(c *Config) *bool { return &c.Outbound.AllowPrivate })},
		{name: "AUDIT_RETENTION", def: "0", set: duration(func(c *Config) *time.Duration { return &c.Audit.Retention })},
		{name: "REDIS_URL", secret: true, set: accepted},
		{name: "MIGRATIONS_DIR", set: accepted},
	}
}

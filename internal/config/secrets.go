package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The values of SECRET_BACKEND.
const (
	BackendInternal = "internal"
	BackendVault    = "hashicorp-vault"
	BackendAWS      = "aws-secrets-manager" // not in this build
	BackendGCP      = "gcp-secret-manager"  // not in this build
)

// The values of SECRET_STARTUP_CHECK.
const (
	CheckPermissions = "permissions"
	CheckStrict      = "strict"
	CheckOff         = "off"
)

// Secrets says where client credentials are kept and how they are read.
type Secrets struct {
	Backend string // BackendInternal or BackendVault
	// ReadOnly: every provider's credentials are somebody else's; nothing is written.
	ReadOnly bool
	// RefAllowedPrefixes are the paths below which credentials_ref may point, as the
	// backend writes them, beside its own place.
	RefAllowedPrefixes []string
	CacheTTL           time.Duration // 0: no cache
	CacheMaxStale      time.Duration // 0: an outage is never bridged
	Timeout            time.Duration // one call to the backend
	StartupCheck       string        // CheckPermissions, CheckStrict or CheckOff
	// RedactClientSecrets: the API shows no credentials of the internal backend either.
	RedactClientSecrets bool
	Vault               Vault // zero unless Backend is BackendVault
}

func secretVariables() []variable {
	return []variable{
		{name: "SECRET_BACKEND", def: BackendInternal, set: setBackend},
		{name: "SECRET_CACHE_TTL", def: "5m", set: duration(func(c *Config) *time.Duration { return &c.Secrets.CacheTTL })},
		{name: "SECRET_CACHE_MAX_STALE", def: "1h", set: duration(func(c *Config) *time.Duration { return &c.Secrets.CacheMaxStale })},
		{name: "SECRET_READ_ONLY", def: "false", set: boolean(func(c *Config) *bool { return &c.Secrets.ReadOnly })},
		{name: "SECRET_REF_ALLOWED_PREFIXES", set: setRefPrefixes},
		{name: "SECRET_TIMEOUT", def: "5s", set: positive(func(c *Config) *time.Duration { return &c.Secrets.Timeout })},
		{name: "SECRET_STARTUP_CHECK", def: CheckPermissions, set: oneOf(func(c *Config) *string { return &c.Secrets.StartupCheck },
			CheckPermissions, CheckStrict, CheckOff)},
		{name: "REDACT_CLIENT_SECRETS", def: "false", set: boolean(func(c *Config) *bool { return &c.Secrets.RedactClientSecrets })},
	}
}

func setBackend(c *Config, text string) *Problem {
	known := []string{BackendInternal, BackendVault, BackendAWS, BackendGCP}
	switch {
	case text == BackendInternal || text == BackendVault:
		c.Secrets.Backend = text
		return nil
	case slices.Contains(known, text):
		return invalid("names a backend that is not supported by this build", "give "+alternatives(known[:2]))
	}
	return invalid("is not a known backend", "give "+alternatives(known))
}

// setRefPrefixes takes the prefixes as they are: which characters a path may have is for
// the backend to say.
func setRefPrefixes(c *Config, text string) *Problem {
	for i, entry := range splitList(text) {
		if strings.Trim(entry, "/") == "" {
			return invalid(fmt.Sprintf("entry %d names no path", i+1),
				"give paths separated by commas, such as team-a,shared/oauth; there is none for the whole store")
		}
		c.Secrets.RefAllowedPrefixes = append(c.Secrets.RefAllowedPrefixes, entry)
	}
	return nil
}

func (l *loader) checkSecrets() {
	if len(l.cfg.Secrets.RefAllowedPrefixes) > 0 && l.cfg.Secrets.Backend == BackendInternal {
		l.warn("SECRET_REF_ALLOWED_PREFIXES is set but SECRET_BACKEND=%s", BackendInternal)
	}
	if l.cfg.Secrets.ReadOnly && l.cfg.Secrets.Backend == BackendInternal {
		l.warn("SECRET_READ_ONLY is true but SECRET_BACKEND=%s: no provider's credentials can be stored", BackendInternal)
	}
}

// laterBackendVariables belong to backends that are documented and not in this
// build. They are listed so that setting one is noticed.
func laterBackendVariables() []variable {
	defaults := []struct{ backend, names string }{
		{BackendAWS, "AWS_REGION AWS_SECRET_PREFIX=nexus/providers AWS_SECRET_ROLE_ARN AWS_SECRET_EXTERNAL_ID " +
			"AWS_SECRET_KMS_KEY_ID AWS_SECRET_TAGS AWS_SECRET_RECOVERY_DAYS=7 AWS_ENDPOINT_URL AWS_ENDPOINT_URL_SECRETS_MANAGER"},
		{BackendGCP, "GCP_PROJECT_ID GCP_SECRET_PREFIX=nexus-providers GCP_SECRET_LOCATIONS GCP_SECRET_LOCATION " +
			"GCP_SECRET_KMS_KEY GCP_SECRET_KEEP_VERSIONS=2 GCP_IMPERSONATE_SERVICE_ACCOUNT SECRET_MANAGER_EMULATOR_HOST"},
	}
	var list []variable
	for _, d := range defaults {
		for entry := range strings.FieldsSeq(d.names) {
			name, def, _ := strings.Cut(entry, "=")
			list = append(list, variable{name: name, def: def, only: []selection{{"SECRET_BACKEND", d.backend}}, set: notInThisBuild})
		}
	}
	return list
}

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
	BackendAWS      = "aws-secrets-manager"
	BackendGCP      = "gcp-secret-manager"
)

// The values of SECRET_STARTUP_CHECK.
const (
	CheckPermissions = "permissions"
	CheckStrict      = "strict"
	CheckOff         = "off"
)

// Secrets says where client credentials are kept and how they are read.
type Secrets struct {
	Backend string // one of the constants above
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

	// Each is zero unless Backend selects it.
	Vault Vault
	AWS   AWS
	GCP   GCP
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
	if !slices.Contains(known, text) {
		return invalid("is not a known backend", "give "+alternatives(known))
	}
	c.Secrets.Backend = text
	return nil
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

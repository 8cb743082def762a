package config

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Access says who may call, how often, and where browsers may be sent.
type Access struct {
	// RequireAPIKey: calls without a valid key are refused.
	RequireAPIKey bool
	// APIKey is a key verbatim, with the role admin; zero if there is none.
	APIKey secret.Value
	// APIKeys are entries of the form key or role:key.
	APIKeys []secret.Value
	// APIKeyFile and APIKeysFile hold such entries and are read again every
	// ReloadInterval; "" if there is none. Both could be read at start.
	APIKeyFile, APIKeysFile string
	ReloadInterval          time.Duration

	RequireAllowlist bool
	AllowedCIDRs     []netip.Prefix
	// TrustedProxies are the peers whose X-Forwarded-For counts.
	TrustedProxies []netip.Prefix

	EnforceReturnURL     bool
	AllowedReturnDomains []string // host names; "*.example.com" matches subdomains

	RateLimit float64 // requests per second and key; 0: no limit
}

// keySources are the variables that API keys may come from.
func keySources() []string { return []string{"API_KEY", "API_KEYS", "API_KEY_FILE", "API_KEYS_FILE"} }

func accessVariables() []variable {
	return []variable{
		{name: "API_KEY", secret: true, ownFile: true, set: setAPIKey},
		{name: "API_KEYS", secret: true, ownFile: true, set: setAPIKeys},
		{name: "API_KEY_FILE", set: apiKeyFile(func(c *Config) *string { return &c.Access.APIKeyFile }, false)},
		{name: "API_KEYS_FILE", set: apiKeyFile(func(c *Config) *string { return &c.Access.APIKeysFile }, true)},
		{name: "API_KEY_RELOAD_INTERVAL", def: "30s", set: positive(func(c *Config) *time.Duration { return &c.Access.ReloadInterval })},
		{name: "REQUIRE_API_KEY", set: boolean(func(c *Config) *bool { return &c.Access.RequireAPIKey })},
		{name: "REQUIRE_ALLOWLIST", def: "false", set: boolean(func(c *Config) *bool { return &c.Access.RequireAllowlist })},
		{name: "ALLOWED_CIDRS", def: "127.0.0.1/32,::1/128", set: prefixes(func(c *Config) *[]netip.Prefix { return &c.Access.AllowedCIDRs })},
		{name: "TRUSTED_PROXIES", set: prefixes(func(c *Config) *[]netip.Prefix { return &c.Access.TrustedProxies })},
		{name: "ENFORCE_RETURN_URL", def: "false", set: boolean(func(c *Config) *bool { return &c.Access.EnforceReturnURL })},
		{name: "ALLOWED_RETURN_DOMAINS", set: setReturnDomains},
		{name: "RATE_LIMIT", def: "0", set: setRateLimit},
	}
}

func setAPIKey(c *Config, text string) *Problem {
	// A header cannot carry spaces at either end: such a key would never match.
	if strings.TrimSpace(text) != text {
		return invalid("begins or ends with a space or a newline", "give the key alone")
	}
	c.Access.APIKey = secret.NewValue(text)
	return nil
}

func setAPIKeys(c *Config, text string) *Problem {
	entries := splitList(text)
	if wrong := checkKeyEntries(entries); wrong != "" {
		return invalid(wrong, "give keys separated by commas, each as key or role:key")
	}
	for _, entry := range entries {
		c.Access.APIKeys = append(c.Access.APIKeys, secret.NewValue(entry))
	}
	return nil
}

// apiKeyFile stores the path of a file of entries, one a line; a line may hold
// several, separated by commas, if commas is true. The file is read here only to
// see that it can be.
func apiKeyFile(field func(*Config) *string, commas bool) setter {
	return func(c *Config, text string) *Problem {
		const want = "name a file with a key on each line, as key or role:key"
		b, err := os.ReadFile(text)
		if err != nil {
			return invalid("names a file that cannot be read ("+reason(err)+")", want)
		}
		entries := strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' || r == '\r' || commas && r == ',' })
		if wrong := checkKeyEntries(entries); wrong != "" {
			return invalid("names a file that "+wrong, want)
		}
		*field(c) = text
		return nil
	}
}

// checkKeyEntries returns what is wrong with entries of the form key or role:key.
func checkKeyEntries(entries []string) (wrong string) {
	filled := 0
	for _, entry := range entries {
		entry = strings.TrimSpace(entry)
		role, key, found := strings.Cut(entry, ":")
		if found && slices.Contains([]string{"admin", "agent", "auditor"}, role) && strings.TrimSpace(key) == "" {
			return "holds a role without a key after it"
		}
		if entry != "" {
			filled++
		}
	}
	if filled == 0 {
		return "holds no key"
	}
	return ""
}

func setReturnDomains(c *Config, text string) *Problem {
	domain := regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
	for i, entry := range splitList(text) {
		if !domain.MatchString(entry) {
			return invalid(fmt.Sprintf("entry %d is not a host name", i+1),
				"give host names without scheme and port, separated by commas, such as app.example.com,*.example.com")
		}
		c.Access.AllowedReturnDomains = append(c.Access.AllowedReturnDomains, entry)
	}
	return nil
}

func setRateLimit(c *Config, text string) *Problem {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0) || math.IsInf(n, 0) {
		return invalid("is not a number of requests per second", "give a number such as 50, or 0 for no limit")
	}
	c.Access.RateLimit = n
	return nil
}

func (l *loader) checkAccess() {
	l.checkAPIKeys()
	a := l.cfg.Access
	if a.RequireAllowlist && len(a.AllowedCIDRs) == 0 {
		l.warn("REQUIRE_ALLOWLIST is true and ALLOWED_CIDRS is empty: every caller is refused")
	}
	if a.EnforceReturnURL && len(a.AllowedReturnDomains) == 0 {
		l.warn("ENFORCE_RETURN_URL is true and ALLOWED_RETURN_DOMAINS is empty: every consent is refused")
	}
}

// checkAPIKeys decides whether a key is required, and then wants one. Unset means
// what it meant to the existing broker, unless the credentials lie in an external
// backend.
func (l *loader) checkAPIKeys() {
	a := &l.cfg.Access
	why := ""
	if !l.isSet("REQUIRE_API_KEY") {
		if l.cfg.Secrets.Backend == "" {
			return // the default depends on it, and what is wrong with it has been said
		}
		a.RequireAPIKey = l.opts.Dev || l.cfg.Secrets.Backend != BackendInternal
		why = " by default with an external SECRET_BACKEND"
		if l.opts.Dev {
			why = " by default with --dev"
		}
		l.showDev("REQUIRE_API_KEY", strconv.FormatBool(a.RequireAPIKey))
	}
	switch hasKey := l.hasKeySource(); {
	case a.RequireAPIKey && !hasKey:
		l.problem("REQUIRE_API_KEY", "is true"+why+" but there is no key", "set "+alternatives(keySources()))
	case !a.RequireAPIKey && hasKey:
		l.warn("REQUIRE_API_KEY is false: API keys are configured, but WHOEVER REACHES THE BROKER CAN READ EVERY TOKEN WITHOUT ONE; set it to true")
	case !a.RequireAPIKey:
		l.warn("REQUIRE_API_KEY is false: WHOEVER REACHES THE BROKER CAN READ EVERY TOKEN; set it to true and give an API_KEY")
	}
}

// hasKeySource reports whether any source of API keys is set. One that is set
// wrongly has been reported: it is not missing too.
func (l *loader) hasKeySource() bool {
	wrong := func(p Problem) bool { return slices.Contains(keySources(), p.Variable) } // also one of --dev's, which nothing sets
	return !l.cfg.Access.APIKey.IsZero() || slices.ContainsFunc(keySources(), l.isSet) || slices.ContainsFunc(l.problems, wrong)
}

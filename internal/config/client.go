package config

import (
	"net/url"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Client says which broker the commands call that work on a broker over HTTP.
type Client struct {
	// BaseURL is the broker's address, without a trailing slash.
	BaseURL *url.URL
	APIKey  secret.Value // zero if there is none
}

// LoadClient reads only what calling a broker needs, as Load does. The rest of the
// Config is zero. brokerURL, unless it is "", stands for BROKER_BASE_URL.
func LoadClient(environ []string, brokerURL string) (Config, error) {
	if brokerURL != "" { // the first one counts
		environ = append([]string{"BROKER_BASE_URL=" + brokerURL}, environ...)
	}
	l := newLoader(environ, Options{})
	l.read(clientVariables())
	if l.isSet("API_KEY") && l.isSet("API_KEY_FILE") {
		l.problem("API_KEY", "and API_KEY_FILE are both set", "set one of them")
	}
	if u := l.cfg.Client.BaseURL; u != nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		l.warn("BROKER_BASE_URL is not https: the API key and client credentials cross the network in clear")
	}
	return l.result()
}

// clientVariables are read by LoadClient alone. The names of the key's are the broker's
// too: where the broker's own variables are set, its commands work.
func clientVariables() []variable {
	return []variable{
		{name: "BROKER_BASE_URL", required: true, want: "give the broker's address, such as https://broker.example.com, here or with --url", set: setBrokerURL},
		{name: "API_KEY", secret: true, ownFile: true, set: setClientKey},
		{name: "API_KEY_FILE", set: setClientKeyFile},
	}
}

func setBrokerURL(c *Config, text string) *Problem {
	u, wrong := parseHTTPURL(text)
	if wrong != "" {
		return invalid(wrong, "")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	c.Client.BaseURL = u
	return nil
}

func setClientKey(c *Config, text string) *Problem {
	if !sendable(text) {
		return invalid("is not a key", "give the key alone")
	}
	c.Client.APIKey = secret.NewValue(text)
	return nil
}

// setClientKeyFile reads a file of keys as the broker has it, one a line, each key or
// role:key. The first that is an admin's counts, else the first.
func setClientKeyFile(c *Config, path string) *Problem {
	const want = "name a file with a key, as key or role:key"
	b, err := os.ReadFile(path)
	if err != nil {
		return invalid("names a file that cannot be read ("+reason(err)+")", want)
	}
	for line := range strings.Lines(string(b)) {
		key, admin := strings.TrimSpace(line), true
		if role, rest, found := strings.Cut(key, ":"); found && slices.Contains([]string{"admin", "agent", "auditor"}, role) {
			key, admin = rest, role == "admin"
		}
		if !sendable(key) || !admin && !c.Client.APIKey.IsZero() {
			continue
		}
		c.Client.APIKey = secret.NewValue(key)
		if admin {
			return nil
		}
	}
	if c.Client.APIKey.IsZero() {
		return invalid("names a file that holds no key", want)
	}
	return nil
}

// sendable reports whether a header can carry the key.
func sendable(key string) bool {
	return key != "" && strings.TrimSpace(key) == key && !strings.ContainsFunc(key, unicode.IsControl)
}

// Environment returns a function that looks up a variable which a manifest names, "" if
// it is not set.
func Environment(environ []string) func(name string) string {
	l := newLoader(environ, Options{})
	return func(name string) string { return l.env[name] }
}

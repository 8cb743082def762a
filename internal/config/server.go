package config

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// Server is where the broker listens and how it is reached.
type Server struct {
	// BaseURL is the public URL, without a trailing slash. See PublicURL.
	BaseURL      *url.URL
	RedirectPath string // below BaseURL: where providers send the browser back to
	// ListenAddr is host:port; an empty host means all interfaces, port 0 one that
	// the kernel chooses.
	ListenAddr string
	// TLSCertFile and TLSKeyFile are PEM files, both set or none.
	TLSCertFile, TLSKeyFile string
	ShutdownGrace           time.Duration // how long requests in flight may take to finish

	followsPort bool // BaseURL is the default of --dev
}

// PublicURL returns the public URL of a broker that listens on port. It differs
// from BaseURL only with --dev and port 0, where nobody can know it before.
func (s Server) PublicURL(port int) *url.URL {
	u := *s.BaseURL
	if s.followsPort {
		u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(port))
	}
	return &u
}

// Log is what is logged and how.
type Log struct {
	Level  slog.Level
	Format string // "json" or "text"
}

func serverVariables() []variable {
	return []variable{
		{name: "BASE_URL", required: true, want: "give the public URL, such as https://broker.example.com", set: setBaseURL},
		{name: "REDIRECT_PATH", def: "/auth/callback", set: setRedirectPath},
		{name: "PORT", def: "8080", set: setPort},
		{name: "LISTEN_ADDR", set: setListenAddr},
		{name: "TLS_CERT_FILE", set: file(func(c *Config) *string { return &c.Server.TLSCertFile })},
		{name: "TLS_KEY_FILE", set: file(func(c *Config) *string { return &c.Server.TLSKeyFile })},
		{name: "SHUTDOWN_GRACE", def: "20s", set: duration(func(c *Config) *time.Duration { return &c.Server.ShutdownGrace })},
		{name: "LOG_LEVEL", def: "info", set: setLogLevel},
		{name: "LOG_FORMAT", def: "json", set: oneOf(func(c *Config) *string { return &c.Log.Format }, "json", "text")},
	}
}

func setBaseURL(c *Config, text string) *Problem {
	u, wrong := parseHTTPURL(text)
	if wrong != "" {
		return invalid(wrong, "")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	c.Server.BaseURL = u
	return nil
}

// parseHTTPURL reads an absolute URL that holds nothing but scheme, host and path.
func parseHTTPURL(text string) (u *url.URL, wrong string) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "does not begin with http:// or https://"
	case u.Hostname() == "":
		return nil, "names no host"
	case u.User != nil:
		return nil, "contains a user name or password"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, "contains a query or a fragment"
	}
	return u, ""
}

func setRedirectPath(c *Config, text string) *Problem {
	// It becomes a pattern of the mux, to which braces and spaces mean something.
	if !strings.HasPrefix(text, "/") || path.Clean(text) != text || text == "/" || strings.ContainsAny(text, "{}?# \t%") {
		return invalid("is not a plain absolute path", "give a path such as /auth/callback")
	}
	if isAPIPath(text) {
		return invalid("is a path of the broker's own API", "give another path, such as /auth/callback")
	}
	c.Server.RedirectPath = text
	return nil
}

// isAPIPath reports whether a path is one of the API's own, or below one. Browsers
// that providers send back would take it away from the API.
func isAPIPath(p string) bool {
	for _, own := range []string{
		"/providers", "/connections", "/auth/consent-spec", "/auth/capture-schema", "/auth/capture-credential",
		"/audit", "/health", "/metrics", "/openapi.yaml",
	} {
		if p == own || strings.HasPrefix(p, own+"/") {
			return true
		}
	}
	return false
}

func setPort(c *Config, text string) *Problem {
	if _, err := strconv.ParseUint(text, 10, 16); err != nil {
		return invalid("is not a port number", "give a number from 0 to 65535")
	}
	host := ""
	if c.Dev.Enabled {
		host = "127.0.0.1"
	}
	c.Server.ListenAddr = net.JoinHostPort(host, text)
	return nil
}

func setListenAddr(c *Config, text string) *Problem {
	host, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return invalid("is not host:port", "give an address such as 127.0.0.1:8080, [::1]:8080 or :8080")
	}
	if c.Dev.Enabled && !isLoopback(host) {
		return invalid("is not a loopback address, which --dev needs", "give 127.0.0.1:<port>, or leave --dev out")
	}
	c.Server.ListenAddr = text
	return nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func setLogLevel(c *Config, text string) *Problem {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, known := levels[strings.ToLower(text)]
	if !known {
		return invalid("is not a level", "give debug, info, warn or error")
	}
	c.Log.Level = level
	return nil
}

func (l *loader) checkServer() {
	s := &l.cfg.Server
	if l.isSet("TLS_CERT_FILE") != l.isSet("TLS_KEY_FILE") {
		set, missing := "TLS_CERT_FILE", "TLS_KEY_FILE"
		if l.isSet(missing) {
			set, missing = missing, set
		}
		l.problem(missing, "is not set but "+set+" is", "set both, or none of them")
	}
	if leaf := l.checkKeyPair("TLS_CERT_FILE", s.TLSCertFile, "TLS_KEY_FILE", s.TLSKeyFile); leaf != nil && time.Now().After(leaf.NotAfter) {
		l.problem("TLS_CERT_FILE", "names a file whose certificate has expired", "renew the certificate")
	}
	l.showDev("LISTEN_ADDR", s.ListenAddr)
	if s.BaseURL == nil {
		return
	}
	if l.opts.Dev && !l.isSet("BASE_URL") {
		_, port, _ := net.SplitHostPort(s.ListenAddr)
		s.BaseURL.Host = net.JoinHostPort(s.BaseURL.Hostname(), port)
		if s.TLSCertFile != "" {
			s.BaseURL.Scheme = "https"
		}
		s.followsPort = true
		l.show("BASE_URL", s.BaseURL.String())
	}
	if s.BaseURL.Scheme == "http" && !isLoopback(s.BaseURL.Hostname()) {
		l.warn("BASE_URL is not https: authorization codes and tokens cross the network in clear")
	}
}

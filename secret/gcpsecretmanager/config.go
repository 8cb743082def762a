package gcpsecretmanager

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"time"
)

// What an empty field of Config and Options means.
const (
	DefaultPrefix       = "nexus-providers"
	DefaultKeepVersions = 2
	DefaultTimeout      = 30 * time.Second
)

// Config says where the secrets lie and how they are made.
type Config struct {
	// ProjectID is the project's id, or its number.
	ProjectID string
	// Prefix begins the id of every secret; "" is DefaultPrefix. Letters, digits, "-"
	// and "_", at most 100 characters.
	Prefix string
	// Locations are the regions that a new secret is replicated to; none leaves it to
	// Google ("automatic"). Not together with Location.
	Locations []string
	// Location makes the secrets regional ones of this region, kept and served by its own
	// endpoint; "" makes them global.
	Location string
	// KMSKey encrypts what is written:
	// projects/<p>/locations/<l>/keyRings/<r>/cryptoKeys/<k>. Its location is "global" with
	// automatic replication, and Location for regional secrets. With Locations there is a
	// key in each of them: write "{location}" for <l>, unless there is one location only.
	KMSKey string
	// KeepVersions is how many versions of a secret a write leaves, the new one among
	// them; older ones are destroyed. 0 is DefaultKeepVersions.
	KeepVersions int
	// ImpersonateServiceAccount is the email address of the service account to act as;
	// "" acts as who the Application Default Credentials say.
	ImpersonateServiceAccount string
	// ReferencePrefixes are the paths below which a program lets references lie, beside
	// the backend's own place, as ReferenceSegments takes them. Policy grants to read
	// there, and Diagnose tries it; ReadReference reads everywhere.
	ReferencePrefixes []string
	// EmulatorHost is the host:port of a local server, spoken to without TLS and without
	// credentials; "" is Google's.
	EmulatorHost string
}

// Options are what the program around the backend provides. The zero Options are usable.
type Options struct {
	// Logger is told of logins and of what had to be left behind; nil discards.
	Logger *slog.Logger
	// Timeout ends a single request whose ctx does not end it earlier, as
	// secret.ErrUnavailable; 0 is DefaultTimeout.
	Timeout time.Duration
	// Now tells the time; nil is time.Now.
	Now func() time.Time
	// Endpoint is the host:port that is connected to, by TLS, in place of Google's public
	// one: a Private Service Connect endpoint.
	Endpoint string
	// RootCAs are those that Endpoint's certificate must be signed by; nil are the system's.
	RootCAs *x509.CertPool
	// LoginClient sends the requests of a login to Google's token services; nil is a
	// client of the library's. (The metadata server is asked directly.)
	LoginClient *http.Client
}

var (
	projectPattern  = regexp.MustCompile(`^([a-z][a-z0-9-]{4,28}[a-z0-9]|[a-z0-9.-]+:[a-z][a-z0-9-]{4,28}[a-z0-9]|[0-9]{1,20})$`)
	locationPattern = regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)+$`)
	keyPattern      = regexp.MustCompile(`^projects/[^/]+/locations/([a-z0-9-]+|\{location\})/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}$`)
	accountPattern  = regexp.MustCompile(`^[^@\s/]+@[^@\s/]+$`)
)

const maxPrefix = 100

// check returns every problem of the configuration.
func (c Config) check() error {
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !projectPattern.MatchString(c.ProjectID) {
		problem("the project must be an id like my-project-123, or a number")
	}
	if c.Prefix != "" && (!legalID(c.Prefix) || len(c.Prefix) > maxPrefix) {
		problem("the prefix must be 1 to %d letters, digits, hyphens and underscores", maxPrefix)
	}
	for _, l := range append([]string{c.Location}, c.Locations...) {
		if l != "" && !locationPattern.MatchString(l) {
			problem("location %q: a region looks like europe-west3", l)
		}
	}
	if c.Location != "" && len(c.Locations) > 0 {
		problem("regional secrets lie in one location and have no replication: give one of the two")
	}
	if c.KMSKey != "" {
		problems = append(problems, c.checkKMSKey())
	}
	if c.KeepVersions < 0 {
		problem("at least 1 version must be kept")
	}
	if c.ImpersonateServiceAccount != "" && !accountPattern.MatchString(c.ImpersonateServiceAccount) {
		problem("the service account to impersonate must be an email address")
	}
	return errors.Join(problems...)
}

func (c Config) checkKMSKey() error {
	m := keyPattern.FindStringSubmatch(c.KMSKey)
	switch {
	case m == nil:
		return errors.New("the KMS key must read projects/<p>/locations/<l>/keyRings/<r>/cryptoKeys/<k>")
	case c.Location != "" && m[1] != c.Location:
		return fmt.Errorf("the KMS key of regional secrets must lie in %s", c.Location)
	case c.Location == "" && len(c.Locations) == 0 && m[1] != "global":
		return errors.New("with automatic replication the KMS key must lie in the location global")
	case len(c.Locations) == 1 && m[1] != c.Locations[0] && m[1] != "{location}":
		return fmt.Errorf("the KMS key must lie in %s", c.Locations[0])
	case len(c.Locations) > 1 && m[1] != "{location}":
		return errors.New("each location needs a KMS key of its own: write {location} for the location in the key's name")
	}
	return nil
}

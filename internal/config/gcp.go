package config

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
)

// GCP is where Google Cloud Secret Manager keeps the credentials. The login is found
// by Application Default Credentials, which read their own variables and files.
type GCP struct {
	ProjectID string // or number
	Prefix    string // what secret ids begin with
	// Locations are those of user-managed replication; none: automatic.
	Locations []string
	Location  string // of regional secrets; "": global ones
	KMSKey    string // of new secrets; "": Google's own
	// KeepVersions is how many versions of a value are kept, the current one included.
	KeepVersions              int
	ImpersonateServiceAccount string // "": the login's own account
	EmulatorHost              string // host:port of a local server; "": Google's
}

func gcpVariables() []variable {
	gcp := []selection{{"SECRET_BACKEND", BackendGCP}}
	str := func(field func(*GCP) *string) func(*Config) *string {
		return func(c *Config) *string { return field(&c.Secrets.GCP) }
	}
	return []variable{
		{name: "GCP_PROJECT_ID", only: gcp, required: true, want: "give the id of the project of the secrets, such as my-project-123",
			set: matching(str(func(g *GCP) *string { return &g.ProjectID }), `(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]|[0-9]{1,20}`, "is not the id of a project")},
		{name: "GCP_SECRET_PREFIX", def: "nexus-providers", only: gcp, want: "give a prefix of letters, digits, _ and -, at most 100, such as nexus-providers",
			set: matching(str(func(g *GCP) *string { return &g.Prefix }), `[A-Za-z0-9_-]{1,100}`, "has a character that no secret's id has, or is too long")},
		{name: "GCP_SECRET_LOCATIONS", only: gcp, set: setLocations},
		{name: "GCP_SECRET_LOCATION", only: gcp, want: "give a location such as europe-west3",
			set: matching(str(func(g *GCP) *string { return &g.Location }), location, "is not a location")},
		{name: "GCP_SECRET_KMS_KEY", only: gcp, want: "give projects/…/locations/…/keyRings/…/cryptoKeys/…",
			set: matching(str(func(g *GCP) *string { return &g.KMSKey }), `projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+`, "is not the full name of a key")},
		{name: "GCP_SECRET_KEEP_VERSIONS", def: "2", only: gcp, set: setKeepVersions},
		{name: "GCP_IMPERSONATE_SERVICE_ACCOUNT", only: gcp, want: "give an account such as broker@my-project-123.iam.gserviceaccount.com",
			set: matching(str(func(g *GCP) *string { return &g.ImpersonateServiceAccount }), `[a-z0-9._-]+@[a-z0-9.-]+`, "is not the e-mail address of a service account")},
		{name: "SECRET_MANAGER_EMULATOR_HOST", only: gcp, set: setEmulatorHost},
	}
}

const location = `[a-z]+(?:-[a-z0-9]+)+`

var wholeLocation = regexp.MustCompile(`^` + location + `$`)

func setLocations(c *Config, text string) *Problem {
	const want = "give locations separated by commas, such as europe-west3,europe-west4"
	seen := map[string]bool{}
	list := splitList(text)
	for i, entry := range list {
		if !wholeLocation.MatchString(entry) || seen[entry] {
			return invalid(fmt.Sprintf("entry %d is not a location, or one that is there already", i+1), want)
		}
		seen[entry] = true
	}
	if len(list) == 0 {
		return invalid("holds no location", want)
	}
	c.Secrets.GCP.Locations = list
	return nil
}

func setKeepVersions(c *Config, text string) *Problem {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return invalid("is no number of versions", "give a number from 1 to 1000")
	}
	c.Secrets.GCP.KeepVersions = n
	return nil
}

func setEmulatorHost(c *Config, text string) *Problem {
	const want = "give host:port of a local server, such as 127.0.0.1:9090"
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return invalid("is not host:port", want)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return invalid("is not host:port", want)
	}
	c.Secrets.GCP.EmulatorHost = text
	return nil
}

func (l *loader) checkGCP() {
	if l.cfg.Secrets.Backend != BackendGCP {
		return
	}
	if l.isSet("GCP_SECRET_LOCATION") && l.isSet("GCP_SECRET_LOCATIONS") {
		l.problem("GCP_SECRET_LOCATION", "and GCP_SECRET_LOCATIONS are both set", "set the first for regional secrets, or the second for global ones that are replicated")
	}
	if host := l.cfg.Secrets.GCP.EmulatorHost; host != "" {
		l.warn("SECRET_MANAGER_EMULATOR_HOST is set: credentials go to that server, in clear and without a login")
	}
}

package awssecretsmanager

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"crypto/x509"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// What an empty field of Config and Options means.
const (
	DefaultPrefix  = "nexus/providers"
	DefaultTimeout = 30 * time.Second
)

// The limits of what can be configured.
const (
	// MaxPrefixBytes leaves room for the longest key within the 512 of a name.
	MaxPrefixBytes = 300
	// MaxTags leaves room for the backend's own among the 50 of a secret.
	MaxTags = 30
)

// Config says where the secrets lie and how to log in. What it does not say the SDK
// takes from where it always does: credentials from the environment, the shared
// configuration files, a web identity or the metadata services; and the endpoint from
// AWS_ENDPOINT_URL_SECRETS_MANAGER, AWS_ENDPOINT_URL, AWS_USE_FIPS_ENDPOINT and
// AWS_USE_DUALSTACK_ENDPOINT.
type Config struct {
	// Region of the secrets; "" is that of AWS_REGION or the profile.
	Region string
	// Prefix is what the names of all secrets begin with, before a "/"; "" is
	// DefaultPrefix. A leading slash counts, as it does to AWS; trailing ones do not.
	Prefix string
	// RoleARN is a role to assume with the credentials found; "" for none.
	RoleARN string
	// ExternalID is presented when the role is assumed; "" for none.
	ExternalID string
	// KMSKeyID is the key that new secrets are encrypted with: a key id, its ARN, an
	// alias ("alias/name") or its ARN; "" is AWS's own key aws/secretsmanager.
	KMSKeyID string
	// Tags are put on new secrets, beside managed-by=nexus-broker.
	Tags map[string]string
	// RecoveryDays is for how long AWS keeps what Delete has deleted, 7 to 30; 0 deletes
	// at once and for good.
	RecoveryDays int
	// ReferencePrefixes are the paths below which a program lets references lie, beside
	// the backend's own place, as ReferenceSegments takes them. Policy grants to read
	// there, and Diagnose tries it; ReadReference reads everywhere.
	ReferencePrefixes []string
	// Endpoint is the URL of Secrets Manager and of STS; "" leaves them to the SDK.
	Endpoint string
}

// Options are what the program around the backend provides. The zero Options are usable.
type Options struct {
	// Logger is told when the backend does with less than it should; nil discards.
	Logger *slog.Logger
	// Timeout ends an operation whose ctx does not end it earlier, as
	// secret.ErrUnavailable; 0 is DefaultTimeout.
	Timeout time.Duration
	// Credentials replaces the SDK's chain of credentials; nil keeps it.
	Credentials aws.CredentialsProvider
	// RootCAs are the CAs to trust; nil is the system's, and AWS_CA_BUNDLE's.
	RootCAs *x509.CertPool
}

var (
	legalPrefix = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]+$`)
	legalRegion = regexp.MustCompile(`^[a-z]{2,}(-[a-z0-9]+)+$`)
	legalRole   = regexp.MustCompile(`^arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$`)
	legalExtID  = regexp.MustCompile(`^[A-Za-z0-9_+=,.@:/-]+$`)
	legalKey    = regexp.MustCompile(`^[A-Za-z0-9/_:-]+$`)
	legalTag    = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+@-]*$`)
)

// check returns every problem of the configuration.
func (c Config) check() error {
	var problems []error
	note := func(wrong bool, format string, args ...any) {
		if wrong {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	p := c.prefix()
	note(c.Region != "" && !legalRegion.MatchString(c.Region), "region %q: it reads like eu-central-1", c.Region)
	note(len(p) > MaxPrefixBytes, "the prefix is %d bytes long, the limit is %d", len(p), MaxPrefixBytes)
	note(p == "" || !legalPrefix.MatchString(p), "prefix %q: it has characters of A-Z a-z 0-9 / _ + = . @ - and is not empty", p)
	note(strings.Contains(p, "//"), "prefix %q: it has an empty segment", p)
	note(c.RoleARN != "" && (len(c.RoleARN) > 2048 || !legalRole.MatchString(c.RoleARN)), "role %q: it reads like arn:aws:iam::123456789012:role/name", c.RoleARN)
	note(c.ExternalID != "" && c.RoleARN == "", "an external id without a role to assume")
	note(c.ExternalID != "" && (len(c.ExternalID) < 2 || len(c.ExternalID) > 1224 || !legalExtID.MatchString(c.ExternalID)), "the external id has 2 to 1224 characters of A-Z a-z 0-9 _ + = , . @ : / -")
	note(c.KMSKeyID != "" && (len(c.KMSKeyID) > 2048 || !legalKey.MatchString(c.KMSKeyID)), "KMS key %q: it is a key id, an alias (alias/name) or an ARN", c.KMSKeyID)
	note(c.RecoveryDays != 0 && (c.RecoveryDays < 7 || c.RecoveryDays > 30), "%d recovery days: they are 7 to 30, or 0 to delete for good", c.RecoveryDays)
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		note(err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil, "the endpoint must read https://host:port")
	}
	return errors.Join(append(problems, c.checkTags()...)...)
}

func (c Config) checkTags() []error {
	var problems []error
	if len(c.Tags) > MaxTags {
		problems = append(problems, fmt.Errorf("%d tags, the limit is %d", len(c.Tags), MaxTags))
	}
	for k, v := range c.Tags {
		switch {
		case k == "" || utf8.RuneCountInString(k) > 128 || utf8.RuneCountInString(v) > 256:
			problems = append(problems, fmt.Errorf("tag %q: a key has 1 to 128 characters and a value up to 256", k))
		case !legalTag.MatchString(k) || !legalTag.MatchString(v):
			problems = append(problems, fmt.Errorf("tag %q: key and value have letters, digits, spaces and _ . : / = + @ -", k))
		case strings.HasPrefix(strings.ToLower(k), "aws:"), k == managedTag, strings.HasPrefix(k, markPrefix):
			problems = append(problems, fmt.Errorf("tag %q: the key is reserved", k))
		}
	}
	return problems
}

// prefix returns the prefix in force.
func (c Config) prefix() string {
	if c.Prefix == "" {
		return DefaultPrefix
	}
	return strings.TrimRight(c.Prefix, "/")
}

package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// AWS is where AWS Secrets Manager keeps the credentials. The login is found by the
// SDK's default chain, which reads its own variables and files.
type AWS struct {
	Region     string
	Prefix     string // what secret names begin with
	RoleARN    string // to be assumed; "" for none
	ExternalID string // that the role's trust policy asks for
	KMSKeyID   string // of new secrets; "" for the account's default key
	Tags       map[string]string
	// RecoveryDays is how long a deleted secret can be restored; 0: not at all.
	RecoveryDays int
}

func awsVariables() []variable {
	aws := []selection{{"SECRET_BACKEND", BackendAWS}}
	str := func(field func(*AWS) *string) func(*Config) *string {
		return func(c *Config) *string { return field(&c.Secrets.AWS) }
	}
	return []variable{
		{name: "AWS_REGION", only: aws, required: true, want: "give the region of the secrets, such as eu-central-1",
			set: matching(str(func(a *AWS) *string { return &a.Region }), `[a-z]{2}(-[a-z]+)+-[0-9]+`, "is not the name of a region")},
		{name: "AWS_SECRET_PREFIX", def: "nexus/providers", only: aws, set: setAWSPrefix},
		{name: "AWS_SECRET_ROLE_ARN", only: aws, want: "give a role such as arn:aws:iam::123456789012:role/nexus-broker",
			set: matching(str(func(a *AWS) *string { return &a.RoleARN }), `arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+`, "is not the ARN of a role")},
		{name: "AWS_SECRET_EXTERNAL_ID", only: aws, want: "give the external id that the role's trust policy asks for",
			set: matching(str(func(a *AWS) *string { return &a.ExternalID }), `[\w+=,.@:/-]{2,}`, "is not an external id")},
		{name: "AWS_SECRET_KMS_KEY_ID", only: aws, want: "give a key's id, ARN or alias, such as alias/nexus-broker",
			set: matching(str(func(a *AWS) *string { return &a.KMSKeyID }), `[\w:/-]+`, "is not the name of a KMS key")},
		{name: "AWS_SECRET_TAGS", only: aws, set: setAWSTags},
		{name: "AWS_SECRET_RECOVERY_DAYS", def: "7", only: aws, set: setRecoveryDays},
		{name: "AWS_ENDPOINT_URL", only: aws, set: endpointURL},
		{name: "AWS_ENDPOINT_URL_SECRETS_MANAGER", only: aws, set: endpointURL},
	}
}

// matching stores a text that matches the whole of a pattern, which costs nothing where
// the variable is not set.
func matching(field func(*Config) *string, pattern, wrong string) setter {
	return func(c *Config, text string) *Problem {
		whole := regexp.MustCompile(`^(?:` + pattern + `)$`)
		if !whole.MatchString(text) {
			return invalid(wrong, "")
		}
		*field(c) = text
		return nil
	}
}

// awsName is what secret names are made of, slashes apart
// (CreateSecret, parameter Name).
var awsName = regexp.MustCompile(`^[A-Za-z0-9_+=.@-]+$`)

func setAWSPrefix(c *Config, text string) *Problem {
	const want = "give a prefix such as nexus/providers"
	prefix := strings.TrimRight(text, "/") // a leading slash counts: to AWS /a and a are two names
	for segment := range strings.SplitSeq(strings.TrimPrefix(prefix, "/"), "/") {
		if !awsName.MatchString(segment) || segment == "." || segment == ".." {
			return invalid("has a segment that is empty or has a character that no secret's name has", want)
		}
	}
	if len(prefix) > 200 {
		return invalid("is longer than 200 characters", want)
	}
	c.Secrets.AWS.Prefix = prefix
	return nil
}

// Limits of tags (Secrets Manager, "Quotas"; the broker needs some of the 50 itself).
const (
	maxTags     = 30
	maxTagKey   = 128
	maxTagValue = 256
)

// tagText is what the keys and values of tags are made of (TagResource).
var tagText = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

func setAWSTags(c *Config, text string) *Problem {
	const want = "give pairs separated by commas, such as team=platform,env=prod"
	tags := map[string]string{}
	for i, entry := range splitList(text) {
		key, value, isPair := strings.Cut(entry, "=")
		_, twice := tags[key]
		switch {
		case !isPair || key == "":
			return invalid(fmt.Sprintf("entry %d is not key=value", i+1), want)
		case twice:
			return invalid(fmt.Sprintf("entry %d has the key of an earlier one", i+1), want)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return invalid(fmt.Sprintf("entry %d has a key that begins with aws:, which is reserved", i+1), want)
		case key == "managed-by" || strings.HasPrefix(key, "nexus-broker"):
			return invalid(fmt.Sprintf("entry %d has a key that the broker sets itself", i+1), want)
		case utf8.RuneCountInString(key) > maxTagKey || utf8.RuneCountInString(value) > maxTagValue:
			return invalid(fmt.Sprintf("entry %d is longer than a tag may be", i+1), want)
		case !tagText.MatchString(key) || !tagText.MatchString(value):
			return invalid(fmt.Sprintf("entry %d has a character that a tag must not have", i+1), want)
		}
		tags[key] = value
	}
	if len(tags) > maxTags {
		return invalid(fmt.Sprintf("has more than %d tags", maxTags), want)
	}
	c.Secrets.AWS.Tags = tags
	return nil
}

func setRecoveryDays(c *Config, text string) *Problem {
	days, err := strconv.Atoi(text)
	if err != nil || days != 0 && (days < 7 || days > 30) {
		return invalid("is no recovery window", "give 0 to delete at once, or 7 to 30 days")
	}
	c.Secrets.AWS.RecoveryDays = days
	return nil
}

// endpointURL checks a URL that the SDK reads by itself.
func endpointURL(_ *Config, text string) *Problem {
	if _, wrong := parseHTTPURL(text); wrong != "" {
		return invalid(wrong, "give a URL such as https://vpce-1.secretsmanager.eu-central-1.vpce.amazonaws.com")
	}
	return nil
}

func (l *loader) checkAWS() {
	if l.cfg.Secrets.Backend != BackendAWS {
		return
	}
	if l.isSet("AWS_SECRET_EXTERNAL_ID") && !l.isSet("AWS_SECRET_ROLE_ARN") {
		l.problem("AWS_SECRET_EXTERNAL_ID", "is set but there is no role to assume", "set AWS_SECRET_ROLE_ARN too, or unset it")
	}
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER"} {
		if u, wrong := parseHTTPURL(l.env[name]); l.isSet(name) && wrong == "" && u.Scheme == "http" && !isLoopback(u.Hostname()) {
			l.warn("%s is not https: every credential crosses the network in clear", name)
		}
	}
}

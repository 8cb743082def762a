package config_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/internal/config"
)

// withAWS and withGCP are the least that a broker with one of these backends needs.
func withAWS() map[string]string {
	env := valid()
	env["SECRET_BACKEND"], env["AWS_REGION"], env["API_KEY"] = "aws-secrets-manager", "eu-central-1", "k"
	return env
}

func withGCP() map[string]string {
	env := valid()
	env["SECRET_BACKEND"], env["GCP_PROJECT_ID"], env["API_KEY"] = "gcp-secret-manager", "my-project-123", "k"
	return env
}

func TestAWS(t *testing.T) {
	c := load(t, withAWS())
	require.Equal(t, config.AWS{Region: "eu-central-1", Prefix: "nexus/providers", RecoveryDays: 7}, c.Secrets.AWS)
	require.True(t, c.Access.RequireAPIKey, "required with an external backend")
	require.Zero(t, c.Secrets.GCP)
	require.Empty(t, c.Warnings)

	c = load(t, withAWS(), "AWS_SECRET_PREFIX=/team-a/oauth_1/", "AWS_SECRET_ROLE_ARN=arn:aws-us-gov:iam::123456789012:role/path/nexus",
		"AWS_SECRET_EXTERNAL_ID=x:1", "AWS_SECRET_KMS_KEY_ID=alias/nexus", "AWS_SECRET_TAGS=team=platform, cost center=a=b,empty=",
		"AWS_SECRET_RECOVERY_DAYS=0", "AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_ENDPOINT_URL_SECRETS_MANAGER=http://sm.example.com")
	require.Equal(t, config.AWS{
		Region: "eu-central-1", Prefix: "/team-a/oauth_1", RoleARN: "arn:aws-us-gov:iam::123456789012:role/path/nexus",
		ExternalID: "x:1", KMSKeyID: "alias/nexus", Tags: map[string]string{"team": "platform", "cost center": "a=b", "empty": ""},
	}, c.Secrets.AWS)
	require.Len(t, c.Warnings, 1)
	require.Contains(t, c.Warnings[0], "AWS_ENDPOINT_URL_SECRETS_MANAGER is not https")

	checkProblems(t, withAWS, map[string]string{
		"AWS_REGION=":                                             "AWS_REGION is not set: give the region of the secrets, such as eu-central-1",
		"AWS_REGION=https://canary.example.com":                   "AWS_REGION is not the name of a region",
		"API_KEY=":                                                "REQUIRE_API_KEY is true by default with an external SECRET_BACKEND but there is no key",
		"AWS_SECRET_PREFIX=/":                                     "AWS_SECRET_PREFIX has a segment that is empty",
		"AWS_SECRET_PREFIX=a//canary":                             "AWS_SECRET_PREFIX has a segment that is empty",
		"AWS_SECRET_PREFIX=../canary":                             "AWS_SECRET_PREFIX has a segment that is empty or has a character",
		"AWS_SECRET_PREFIX=canary *":                              "AWS_SECRET_PREFIX has a segment that is empty or has a character",
		"AWS_SECRET_PREFIX=" + strings.Repeat("c", 201):           "AWS_SECRET_PREFIX is longer than 200 characters",
		"AWS_SECRET_ROLE_ARN=canary":                              "AWS_SECRET_ROLE_ARN is not the ARN of a role: give a role such as arn:aws:iam::123456789012:role/nexus-broker",
		"AWS_SECRET_EXTERNAL_ID=canary":                           "AWS_SECRET_EXTERNAL_ID is set but there is no role to assume: set AWS_SECRET_ROLE_ARN too, or unset it",
		"AWS_SECRET_KMS_KEY_ID=canary key":                        "AWS_SECRET_KMS_KEY_ID is not the name of a KMS key",
		"AWS_SECRET_TAGS=canary":                                  "AWS_SECRET_TAGS entry 1 is not key=value: give pairs separated by commas",
		"AWS_SECRET_TAGS=a=b,=canary":                             "AWS_SECRET_TAGS entry 2 is not key=value",
		"AWS_SECRET_TAGS=a=b,a=canary":                            "AWS_SECRET_TAGS entry 2 has the key of an earlier one",
		"AWS_SECRET_TAGS=AWS:canary=b":                            "AWS_SECRET_TAGS entry 1 has a key that begins with aws:",
		"AWS_SECRET_TAGS=managed-by=canary":                       "AWS_SECRET_TAGS entry 1 has a key that the broker sets itself",
		"AWS_SECRET_TAGS=a=canary\x01":                            "AWS_SECRET_TAGS entry 1 has a character that a tag must not have",
		"AWS_SECRET_TAGS=a=" + strings.Repeat("c", 257):           "AWS_SECRET_TAGS entry 1 is longer than a tag may be",
		"AWS_SECRET_RECOVERY_DAYS=6":                              "AWS_SECRET_RECOVERY_DAYS is no recovery window: give 0 to delete at once, or 7 to 30 days",
		"AWS_SECRET_RECOVERY_DAYS=31":                             "AWS_SECRET_RECOVERY_DAYS is no recovery window",
		"AWS_SECRET_RECOVERY_DAYS=canary":                         "AWS_SECRET_RECOVERY_DAYS is no recovery window",
		"AWS_ENDPOINT_URL=canary":                                 "AWS_ENDPOINT_URL does not begin with http:// or https://",
		"AWS_ENDPOINT_URL_SECRETS_MANAGER=https://u:canary@h.com": "AWS_ENDPOINT_URL_SECRETS_MANAGER contains a user name or password",
	})
}

func TestGCP(t *testing.T) {
	c := load(t, withGCP())
	require.Equal(t, config.GCP{ProjectID: "my-project-123", Prefix: "nexus-providers", KeepVersions: 2}, c.Secrets.GCP)
	require.True(t, c.Access.RequireAPIKey, "required with an external backend")
	require.Zero(t, c.Secrets.AWS)
	require.Empty(t, c.Warnings)

	const key = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/k"
	c = load(t, withGCP(), "GCP_PROJECT_ID=example.com:my-project", "GCP_SECRET_PREFIX=Team_a", "GCP_SECRET_LOCATIONS=europe-west3, us-east1",
		"GCP_SECRET_KMS_KEY="+key, "GCP_SECRET_KEEP_VERSIONS=1", "GCP_IMPERSONATE_SERVICE_ACCOUNT=b@p.iam.gserviceaccount.com",
		"SECRET_MANAGER_EMULATOR_HOST=127.0.0.1:9090")
	require.Equal(t, config.GCP{
		ProjectID: "example.com:my-project", Prefix: "Team_a", Locations: []string{"europe-west3", "us-east1"}, KMSKey: key,
		KeepVersions: 1, ImpersonateServiceAccount: "b@p.iam.gserviceaccount.com", EmulatorHost: "127.0.0.1:9090",
	}, c.Secrets.GCP)
	require.Len(t, c.Warnings, 1)
	require.Contains(t, c.Warnings[0], "SECRET_MANAGER_EMULATOR_HOST is set")
	require.Equal(t, "europe-west3", load(t, withGCP(), "GCP_SECRET_LOCATION=europe-west3").Secrets.GCP.Location)
	require.Equal(t, "123456789012", load(t, withGCP(), "GCP_PROJECT_ID=123456789012").Secrets.GCP.ProjectID)

	checkProblems(t, withGCP, map[string]string{
		"GCP_PROJECT_ID=":                                            "GCP_PROJECT_ID is not set: give the id of the project of the secrets, such as my-project-123",
		"GCP_PROJECT_ID=Canary":                                      "GCP_PROJECT_ID is not the id of a project",
		"API_KEY=":                                                   "REQUIRE_API_KEY is true by default with an external SECRET_BACKEND but there is no key",
		"GCP_SECRET_PREFIX=nexus/canary":                             "GCP_SECRET_PREFIX has a character that no secret's id has, or is too long",
		"GCP_SECRET_PREFIX=" + strings.Repeat("c", 101):              "GCP_SECRET_PREFIX has a character that no secret's id has, or is too long",
		"GCP_SECRET_LOCATIONS=europe-west3,canary":                   "GCP_SECRET_LOCATIONS entry 2 is not a location",
		"GCP_SECRET_LOCATIONS=us-east1,us-east1":                     "GCP_SECRET_LOCATIONS entry 2 is not a location, or one that is there already",
		"GCP_SECRET_LOCATIONS=,":                                     "GCP_SECRET_LOCATIONS holds no location",
		"GCP_SECRET_LOCATION=canary":                                 "GCP_SECRET_LOCATION is not a location: give a location such as europe-west3",
		"GCP_SECRET_LOCATION=us-east1|GCP_SECRET_LOCATIONS=us-east1": "GCP_SECRET_LOCATION and GCP_SECRET_LOCATIONS are both set",
		"GCP_SECRET_KMS_KEY=canary":                                  "GCP_SECRET_KMS_KEY is not the full name of a key: give projects/…/locations/…/keyRings/…/cryptoKeys/…",
		"GCP_SECRET_KEEP_VERSIONS=0":                                 "GCP_SECRET_KEEP_VERSIONS is no number of versions: give a number from 1 to 1000",
		"GCP_SECRET_KEEP_VERSIONS=canary":                            "GCP_SECRET_KEEP_VERSIONS is no number of versions",
		"GCP_IMPERSONATE_SERVICE_ACCOUNT=canary":                     "GCP_IMPERSONATE_SERVICE_ACCOUNT is not the e-mail address of a service account",
		"SECRET_MANAGER_EMULATOR_HOST=http://canary":                 "SECRET_MANAGER_EMULATOR_HOST is not host:port: give host:port of a local server",
		"SECRET_MANAGER_EMULATOR_HOST=canary:0":                      "SECRET_MANAGER_EMULATOR_HOST is not host:port",
	})
}

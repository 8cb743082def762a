package awssecretsmanager_test

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// given is what the environment of the tests says about AWS. Only the suite on an account
// reads it: TestMain takes it away from the others.
var given = map[string]string{}

func TestMain(m *testing.M) {
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "AWS_") {
			given[name] = value
			set(name, "")
		}
	}
	set("AWS_EC2_METADATA_DISABLED", "true")
	set("AWS_CONFIG_FILE", os.DevNull)
	set("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	os.Exit(servers.Main(m))
}

func set(name, value string) {
	if err := os.Setenv(name, value); err != nil {
		panic(err)
	}
}

// login are the credentials of a user.
func login(accessKeyID, secretAccessKey string) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(accessKeyID, secretAccessKey, "")
}

func adminLogin() aws.CredentialsProvider {
	return login(awsserver.AccessKeyID, awsserver.SecretAccessKey)
}

// open returns a backend that is closed when the test ends. What the test leaves empty
// is that of the server.
func open(t *testing.T, s *awsserver.Server, cfg awssecretsmanager.Config, opts awssecretsmanager.Options) *awssecretsmanager.AWSBackend {
	t.Helper()
	if cfg.Region == "" {
		cfg.Region = awsserver.Region
	}
	if cfg.Endpoint == "" {
		cfg.Endpoint = s.URL
	}
	if opts.Credentials == nil {
		opts.Credentials = adminLogin()
	}
	b, err := awssecretsmanager.New(t.Context(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func newLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

const key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

// quick are the configurations that run everywhere. The others take their time: "make
// test" runs them, and "go test ./..." shall be fast.
var quick = []string{"RecoveryWindow", "NoRecovery"}

func TestConformance(t *testing.T) {
	if os.Getenv("NEXUS_TEST_AWS") == "1" {
		t.Run("Account", onAnAccount)
	}
	const role = "arn:aws:iam::123456789012:role/nexus"
	for name, cfg := range map[string]struct {
		awssecretsmanager.Config
		lag time.Duration
	}{
		"RecoveryWindow": {Config: awssecretsmanager.Config{RecoveryDays: 7}},
		"NoRecovery":     {Config: awssecretsmanager.Config{Prefix: "a"}},
		"LagAndAssumedRole": {
			Config: awssecretsmanager.Config{RoleARN: role, ExternalID: "nexus-4711", RecoveryDays: 30},
			lag:    5 * time.Millisecond,
		},
		"LagNoRecoveryOddPrefixAndKey": {
			Config: awssecretsmanager.Config{
				Prefix:   "/odd.prefix/with-hyphens-abcdef/@x=+_///",
				KMSKeyID: key, Tags: map[string]string{"team": "payments", "cost center": "42"},
			},
			lag: 5 * time.Millisecond,
		},
	} {
		if !slices.Contains(quick, name) && os.Getenv("NEXUS_TEST_SERVERS") != "1" && os.Getenv("CI") != "true" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := awsserver.Start(t, awsserver.WithLag(cfg.lag))
			s.AddKey(key)
			s.AddRole(awsserver.Role{ARN: role, ExternalID: "nexus-4711"})
			stalled := awsserver.Start(t)
			stalled.Hang()
			closed := awsserver.Start(t)
			closed.Drop()
			on := func(s *awsserver.Server, opts awssecretsmanager.Options) secrettest.New {
				return func(t *testing.T) secret.SecretBackend { return open(t, s, cfg.Config, opts) }
			}
			nothing, err := awsserver.ParsePolicy(`{"Version": "2012-10-17", "Statement": []}`)
			if err != nil {
				t.Fatal(err)
			}
			s.AddUser("AKIANOTHING", "nothing", nothing)
			denied := on(s, awssecretsmanager.Options{Credentials: login("AKIANOTHING", "nothing")})
			if cfg.RoleARN != "" {
				powerless := awsserver.Start(t)
				powerless.AddRole(awsserver.Role{ARN: role, ExternalID: "nexus-4711", Policy: nothing})
				denied = on(powerless, awssecretsmanager.Options{})
			}
			secrettest.Run(t, on(s, awssecretsmanager.Options{}),
				secrettest.WithName(awssecretsmanager.Name),
				secrettest.WithUnreachable(on(closed, awssecretsmanager.Options{})),
				secrettest.WithStalled(on(stalled, awssecretsmanager.Options{})),
				secrettest.WithDenied(denied),
				secrettest.WithRemnants(remnantsOn(s, cfg.Config, cfg.lag)))
		})
	}
}

// onAnAccount runs the suite on AWS itself: test/awsserver/README.md says how. Without an
// account there is no such test, which nobody can take for one that has passed.
func onAnAccount(t *testing.T) {
	for _, name := range []string{"AWS_EC2_METADATA_DISABLED", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		t.Setenv(name, "")
	}
	for name, value := range given {
		t.Setenv(name, value)
	}
	for name, days := range map[string]int{"NoRecovery": 0, "RecoveryWindow": 7} {
		t.Run(name, func(t *testing.T) {
			secrettest.Run(t, func(t *testing.T) secret.SecretBackend {
				b, err := awssecretsmanager.New(t.Context(), awssecretsmanager.Config{
					Prefix: "nexus-broker-test/" + name, RecoveryDays: days, KMSKeyID: os.Getenv("NEXUS_TEST_AWS_KMS_KEY"),
					RoleARN: os.Getenv("NEXUS_TEST_AWS_ROLE"), ExternalID: os.Getenv("NEXUS_TEST_AWS_EXTERNAL_ID"),
				}, awssecretsmanager.Options{Logger: newLogger(t)})
				if err != nil {
					t.Fatal(err)
				}
				return b
			}, secrettest.WithName(awssecretsmanager.Name))
		})
	}
}

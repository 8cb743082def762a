package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

const awsPrefix = "nexus/providers"

// The brokers' users at AWS. They may do what doctor prints, and nothing else.
const (
	awsKeyID, awsKey             = "AKIANEXUSBROKER00001", "CANARY-aws-secret-access-key"
	awsReaderKeyID, awsReaderKey = "AKIANEXUSREADER00001", "CANARY-aws-secret-access-key-of-the-reader"
)

// cloudAWS is an AWS of the test's own, its administrator, and a world whose broker
// keeps its credentials there.
type cloudAWS struct {
	*awsserver.Server
	admin *secretsmanager.Client
	world world
	// policy is what the broker may do.
	policy *awsserver.Policy
}

// newAWS is w with its credentials in AWS Secrets Manager.
func newAWS(t *testing.T, w world, recoveryDays string) cloudAWS {
	t.Helper()
	server := awsserver.Start(t)
	a := cloudAWS{Server: server, world: w, admin: secretsmanager.New(secretsmanager.Options{
		Region: awsserver.Region, BaseEndpoint: aws.String(server.URL), HTTPClient: &http.Client{Timeout: 30 * time.Second},
		Credentials: awscredentials.NewStaticCredentialsProvider(awsserver.AccessKeyID, awsserver.SecretAccessKey, ""),
	})}
	a.world.name, a.world.external = "AWS Secrets Manager, "+w.name, true
	a.world.env = w.env.with(env{
		"SECRET_BACKEND": "aws-secrets-manager", "AWS_REGION": awsserver.Region, "AWS_SECRET_RECOVERY_DAYS": recoveryDays,
		"AWS_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": awsKeyID, "AWS_SECRET_ACCESS_KEY": awsKey,
	})
	a.policy = a.printedPolicy(t, nil)
	server.AddUser(awsKeyID, awsKey, a.policy)
	server.AddUser(awsReaderKeyID, awsReaderKey, a.printedPolicy(t, env{"SECRET_READ_ONLY": "true"}))
	a.world.path = func(key string) string { return awsPrefix + "/" + key }
	a.world.set, a.world.look, a.world.gone = a.set, a.look, a.gone
	return a
}

// printedPolicy is the policy that doctor prints for the world's broker.
func (a cloudAWS) printedPolicy(t *testing.T, more env) *awsserver.Policy {
	t.Helper()
	p, err := awsserver.ParsePolicy(printedPolicy(t, a.world.env.with(more)))
	require.NoError(t, err)
	return p
}

// set stores a value as an administrator does.
func (a cloudAWS) set(t *testing.T, key, value string) {
	t.Helper()
	a.store(t, key, &value, nil)
}

func (a cloudAWS) store(t *testing.T, key string, text *string, binary []byte) {
	t.Helper()
	name := aws.String(awsPrefix + "/" + key)
	put := &secretsmanager.PutSecretValueInput{SecretId: name, SecretString: text, SecretBinary: binary}
	_, err := a.admin.PutSecretValue(t.Context(), put)
	var missing *types.ResourceNotFoundException
	var deleted *types.InvalidRequestException
	switch {
	case errors.As(err, &deleted): // in its recovery window
		_, err = a.admin.RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: name})
		require.NoError(t, err)
		_, err = a.admin.PutSecretValue(t.Context(), put)
	case errors.As(err, &missing):
		_, err = a.admin.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: name, SecretString: text, SecretBinary: binary})
	}
	require.NoError(t, err)
}

func (a cloudAWS) look(t *testing.T, key string) string {
	t.Helper()
	out, err := a.admin.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String(awsPrefix + "/" + key)})
	var missing *types.ResourceNotFoundException
	var deleted *types.InvalidRequestException
	if errors.As(err, &missing) || errors.As(err, &deleted) {
		return ""
	}
	require.NoError(t, err)
	return aws.ToString(out.SecretString) + string(out.SecretBinary)
}

// gone: deleted for good, or in its recovery window.
func (a cloudAWS) gone(t *testing.T, key string) {
	t.Helper()
	out, err := a.admin.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(awsPrefix + "/" + key)})
	var missing *types.ResourceNotFoundException
	if !errors.As(err, &missing) {
		require.NoError(t, err)
		require.NotNil(t, out.DeletedDate, "%s has not been deleted", key)
	}
}

// external is a for the tests that are about every external backend.
func (a cloudAWS) external() external {
	a.world.env = a.world.env.with(env{"SECRET_TIMEOUT": vaultTime.String(), "SECRET_CACHE_TTL": "0"})
	return external{
		world: a.world, faults: a.faults(), down: a.Drop, up: a.Heal,
		ways: map[string]func(*testing.T, string, string){
			"as the broker writes": a.set,
			"as binary":            func(t *testing.T, key, value string) { a.store(t, key, nil, []byte(value)) },
		},
		odd: func(t *testing.T, key string) { a.store(t, key, nil, []byte{0xff, 0xfe}) },
		remove: func(t *testing.T, key string) {
			_, err := a.admin.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: aws.String(awsPrefix + "/" + key)})
			require.NoError(t, err)
		},
		history: func(t *testing.T, key string) any {
			out, err := a.admin.DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(awsPrefix + "/" + key)})
			require.NoError(t, err)
			return fmt.Sprint(out.VersionIdsToStages, out.Tags, aws.ToTime(out.LastChangedDate), aws.ToTime(out.DeletedDate))
		},
		reader: func() env { return env{"AWS_ACCESS_KEY_ID": awsReaderKeyID, "AWS_SECRET_ACCESS_KEY": awsReaderKey} },
		forget: a.Forget,
		wrote: func() (calls []string) {
			for _, r := range a.Requests() {
				_, action, _ := strings.Cut(r.Action, ":")
				if !strings.HasPrefix(action, "Get") && !strings.HasPrefix(action, "Describe") && !strings.HasPrefix(action, "BatchGet") {
					calls = append(calls, r.Action)
				}
			}
			return calls
		},
	}
}

func (a cloudAWS) faults() []fault {
	outage := func(name string, begin func()) fault {
		return fault{name, begin, a.Heal, 503, "secret_backend_unavailable", "unavailable", 5}
	}
	throttled := outage("throttled", func() { a.Throttle(7 * time.Second) })
	throttled.retryAfter = 7
	nothing, err := awsserver.ParsePolicy(`{"Version":"2012-10-17","Statement":[]}`)
	if err != nil {
		panic(err) // it is ours
	}
	return []fault{
		outage("connections cut", a.Drop),
		outage("frozen", a.Hang),
		outage("slow", func() { a.Latency(10 * vaultTime) }),
		outage("internal failure", func() { a.Outage(500) }),
		outage("away", func() { a.Outage(503) }),
		outage("a page with 200", func() { a.HTML(200) }),
		outage("a page with 502", func() { a.HTML(502) }),
		outage("throttled without a wait", func() { a.Throttle(0) }),
		throttled,
		{"policy taken away", func() { a.SetPolicy(awsKeyID, nothing) }, func() { a.SetPolicy(awsKeyID, a.policy) },
			502, "secret_backend_denied", "denied", 0},
	}
}

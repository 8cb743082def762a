package awsserver_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

// step is one request, and what the answer has in it: the code of an error, or a text.
type step struct{ action, body, want string }

// walk makes requests one after the other.
func walk(t *testing.T, s *awsserver.Server, steps ...step) {
	t.Helper()
	for _, x := range steps {
		status, _, body := send(t, s.URL, "secretsmanager."+x.action, []byte(x.body), time.Now())
		require.Contains(t, string(body), x.want, "%s %s", x.action, x.body)
		isError := strings.HasSuffix(x.want, "Exception") || strings.HasSuffix(x.want, "Failure")
		require.Equal(t, isError, status == http.StatusBadRequest, "%s %s: %s", x.action, x.body, body)
	}
}

const (
	one   = "00000000-0000-4000-8000-000000000001"
	two   = "00000000-0000-4000-8000-000000000002"
	three = "00000000-0000-4000-8000-000000000003"
)

func TestSignatures(t *testing.T) {
	s := awsserver.Start(t)
	good := aws.Credentials{AccessKeyID: awsserver.AccessKeyID, SecretAccessKey: awsserver.SecretAccessKey}
	get := func(change func(*http.Request), c aws.Credentials, at time.Time, service, region string) string {
		req := signed(t, s.URL, "secretsmanager.GetSecretValue", []byte(`{"SecretId":"a"}`), at, c, service, region)
		if change != nil {
			change(req)
		}
		_, _, body := do(t, req)
		var answer map[string]string
		require.NoError(t, json.Unmarshal(body, &answer))
		return answer["__type"]
	}
	now := time.Now()
	require.Equal(t, "ResourceNotFoundException", get(nil, good, now, "secretsmanager", awsserver.Region))
	require.Equal(t, "ResourceNotFoundException", get(nil, good, now.Add(-4*time.Minute), "secretsmanager", awsserver.Region))
	for _, at := range []time.Time{now.Add(-6 * time.Minute), now.Add(6 * time.Minute)} {
		require.Equal(t, "InvalidSignatureException", get(nil, good, at, "secretsmanager", awsserver.Region))
	}
	require.Equal(t, "InvalidSignatureException", get(nil, good, now, "sts", awsserver.Region))
	require.Equal(t, "InvalidSignatureException", get(nil, good, now, "secretsmanager", "us-east-1"))
	require.Equal(t, "InvalidSignatureException", get(nil, aws.Credentials{AccessKeyID: awsserver.AccessKeyID, SecretAccessKey: "wrong"}, now, "secretsmanager", awsserver.Region))
	require.Equal(t, "UnrecognizedClientException", get(nil, aws.Credentials{AccessKeyID: "AKIAX", SecretAccessKey: "x"}, now, "secretsmanager", awsserver.Region))
	require.Equal(t, "UnrecognizedClientException", get(nil, aws.Credentials{AccessKeyID: awsserver.AccessKeyID, SecretAccessKey: awsserver.SecretAccessKey, SessionToken: "x"}, now, "secretsmanager", awsserver.Region))
	for name, change := range map[string]func(*http.Request){
		"a header that was changed": func(r *http.Request) { r.Header.Set("X-Amz-Target", "secretsmanager.DeleteSecret") },
		"a header that was added":   func(r *http.Request) { r.Header.Set("X-Amz-Meta", "x") },
		"another host":              func(r *http.Request) { r.Host = "example.com" },
		"another path":              func(r *http.Request) { r.URL.Path = "/x" },
		"a query":                   func(r *http.Request) { r.URL.RawQuery = "x=1" },
	} {
		require.Equal(t, "InvalidSignatureException", get(change, good, now, "secretsmanager", awsserver.Region), name)
	}
	require.Equal(t, "MissingAuthenticationTokenException", get(func(r *http.Request) { r.Header.Del("Authorization") }, good, now, "secretsmanager", awsserver.Region))
	require.Equal(t, "IncompleteSignatureException", get(func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x") }, good, now, "secretsmanager", awsserver.Region))
}

func TestDeletionWindows(t *testing.T) {
	var ahead time.Duration
	s := awsserver.Start(t, awsserver.WithClock(func() time.Time { return time.Now().Add(ahead) }), awsserver.WithForceDelay(time.Hour))
	walk(t, s,
		step{"DeleteSecret", `{"SecretId":"a"}`, "ResourceNotFoundException"},
		step{"DeleteSecret", `{"SecretId":"a","ForceDeleteWithoutRecovery":true}`, "DeletionDate"},
		step{"CreateSecret", `{"Name":"a","SecretString":"v"}`, "ARN"},
		step{"CreateSecret", `{"Name":"a","SecretString":"v"}`, "ResourceExistsException"},
		step{"DeleteSecret", `{"SecretId":"a","RecoveryWindowInDays":6}`, "InvalidParameterException"},
		step{"DeleteSecret", `{"SecretId":"a","RecoveryWindowInDays":31}`, "InvalidParameterException"},
		step{"DeleteSecret", `{"SecretId":"a","RecoveryWindowInDays":7,"ForceDeleteWithoutRecovery":true}`, "InvalidParameterException"},
		step{"DeleteSecret", `{"SecretId":"a","RecoveryWindowInDays":7}`, "DeletionDate"},
		step{"DeleteSecret", `{"SecretId":"a"}`, "InvalidRequestException"},
		step{"CreateSecret", `{"Name":"a","SecretString":"v"}`, "InvalidRequestException"},
		step{"GetSecretValue", `{"SecretId":"a"}`, "InvalidRequestException"},
		step{"PutSecretValue", `{"SecretId":"a","SecretString":"v"}`, "InvalidRequestException"},
		step{"UpdateSecret", `{"SecretId":"a","SecretString":"v"}`, "InvalidRequestException"},
		step{"TagResource", `{"SecretId":"a","Tags":[]}`, "InvalidRequestException"},
		step{"UntagResource", `{"SecretId":"a","TagKeys":[]}`, "InvalidRequestException"},
		step{"UpdateSecretVersionStage", `{"SecretId":"a","VersionStage":"x"}`, "InvalidRequestException"},
		step{"DescribeSecret", `{"SecretId":"a"}`, "DeletedDate"},
		step{"ListSecrets", `{}`, `"SecretList":[]`},
		step{"ListSecrets", `{"IncludePlannedDeletion":true}`, `"Name":"a"`},
		step{"BatchGetSecretValue", `{"SecretIdList":["a","b"]}`, `"ErrorCode":"InvalidRequestException"`},
		step{"RestoreSecret", `{"SecretId":"a"}`, "ARN"},
		step{"GetSecretValue", `{"SecretId":"a"}`, `"SecretString":"v"`},
		step{"DeleteSecret", `{"SecretId":"a","RecoveryWindowInDays":7}`, "DeletionDate"},
	)
	ahead = 4 * time.Minute // what a signature allows
	walk(t, s, step{"DescribeSecret", `{"SecretId":"a"}`, "DeletedDate"},
		step{"DeleteSecret", `{"SecretId":"a","ForceDeleteWithoutRecovery":true}`, "DeletionDate"},
		step{"RestoreSecret", `{"SecretId":"a"}`, "InvalidRequestException"},
		step{"CreateSecret", `{"Name":"a","SecretString":"v"}`, "InvalidRequestException"})
}

func TestTheForcedDeletionEnds(t *testing.T) {
	s := awsserver.Start(t, awsserver.WithForceDelay(0))
	walk(t, s,
		step{"CreateSecret", `{"Name":"a","SecretString":"v"}`, "ARN"},
		step{"DeleteSecret", `{"SecretId":"a","ForceDeleteWithoutRecovery":true}`, "DeletionDate"},
		step{"DescribeSecret", `{"SecretId":"a"}`, "ResourceNotFoundException"},
		step{"CreateSecret", `{"Name":"a","SecretString":"w"}`, "ARN"})
}

func TestVersionStages(t *testing.T) {
	s := awsserver.Start(t)
	walk(t, s,
		step{"CreateSecret", `{"Name":"a"}`, "ARN"},
		step{"GetSecretValue", `{"SecretId":"a"}`, "ResourceNotFoundException"},
		step{"PutSecretValue", `{"SecretId":"a","SecretString":"1","ClientRequestToken":"` + one + `","VersionStages":["P"]}`, `"VersionStages":["AWSCURRENT","P"]`},
		step{"PutSecretValue", `{"SecretId":"a","SecretString":"2","ClientRequestToken":"` + two + `","VersionStages":["P"]}`, `"VersionStages":["P"]`},
		step{"PutSecretValue", `{"SecretId":"a","SecretString":"2","ClientRequestToken":"` + two + `"}`, `"VersionStages":["P"]`},
		step{"PutSecretValue", `{"SecretId":"a","SecretString":"3","ClientRequestToken":"` + two + `"}`, "ResourceExistsException"},
		step{"CreateSecret", `{"Name":"a","SecretString":"2","ClientRequestToken":"` + two + `"}`, two},
		step{"UpdateSecretVersionStage", `{"SecretId":"a","VersionStage":"AWSCURRENT","MoveToVersionId":"` + two + `"}`, "InvalidParameterException"},
		step{"UpdateSecretVersionStage", `{"SecretId":"a","VersionStage":"AWSCURRENT","MoveToVersionId":"` + two + `","RemoveFromVersionId":"` + two + `"}`, "InvalidParameterException"},
		step{"UpdateSecretVersionStage", `{"SecretId":"a","VersionStage":"AWSCURRENT","RemoveFromVersionId":"` + one + `"}`, "InvalidParameterException"},
		step{"UpdateSecretVersionStage", `{"SecretId":"a","VersionStage":"AWSCURRENT","MoveToVersionId":"` + three + `","RemoveFromVersionId":"` + one + `"}`, "ResourceNotFoundException"},
		step{"UpdateSecretVersionStage", `{"SecretId":"a","VersionStage":"AWSCURRENT","MoveToVersionId":"` + two + `","RemoveFromVersionId":"` + one + `"}`, "ARN"},
		step{"DescribeSecret", `{"SecretId":"a"}`, `"` + one + `":["AWSPREVIOUS"]`},
		step{"GetSecretValue", `{"SecretId":"a"}`, `"SecretString":"2"`},
		step{"UpdateSecretVersionStage", `{"SecretId":"a","VersionStage":"AWSPREVIOUS","RemoveFromVersionId":"` + one + `"}`, "ARN"},
		step{"GetSecretValue", `{"SecretId":"a","VersionId":"` + one + `"}`, `"SecretString":"1"`},
		step{"ListSecretVersionIds", `{"SecretId":"a","IncludeDeprecated":true}`, one},
	)
	_, _, body := send(t, s.URL, "secretsmanager.DescribeSecret", []byte(`{"SecretId":"a"}`), time.Now())
	require.NotContains(t, string(body), one, "a version without a label is not described")
}

func TestNamesQuotasAndARNs(t *testing.T) {
	s := awsserver.Start(t)
	walk(t, s,
		step{"CreateSecret", `{"Name":"a b","SecretString":"v"}`, "ValidationException"},
		step{"CreateSecret", `{"Name":"` + strings.Repeat("a", 513) + `","SecretString":"v"}`, "ValidationException"},
		step{"CreateSecret", `{"Name":"a","SecretString":"` + strings.Repeat("v", 65537) + `"}`, "ValidationException"},
		step{"CreateSecret", `{"Name":"a","SecretString":"v","SecretBinary":"AA=="}`, "InvalidParameterException"},
		step{"CreateSecret", `{"Name":"a","SecretString":"` + strings.Repeat("v", 65536) + `","ClientRequestToken":"` + one + `"}`, "ARN"},
		step{"CreateSecret", `{"Name":"team-abcdef","SecretString":"v"}`, "ARN"},
		step{"GetSecretValue", `{"SecretId":"team-abcdef"}`, "SecretString"},
		// By a partial ARN it is not found: that is why no name should end like this.
		step{"GetSecretValue", `{"SecretId":"arn:aws:secretsmanager:eu-central-1:123456789012:secret:team-abcdef"}`, "ResourceNotFoundException"},
		step{"GetSecretValue", `{"SecretId":"arn:aws:secretsmanager:eu-central-1:123456789012:secret:a"}`, "SecretString"},
		step{"BatchGetSecretValue", `{"SecretIdList":[` + strings.Repeat(`"a",`, 20) + `"a"]}`, "ValidationException"},
	)
	tags := strings.TrimSuffix(strings.Repeat(`{"Key":"k%","Value":"v"},`, 51), ",")
	for i := range 51 {
		tags = strings.Replace(tags, "%", string(rune('A'+i)), 1)
	}
	walk(t, s, step{"TagResource", `{"SecretId":"a","Tags":[` + strings.ReplaceAll(tags, `\`, "x") + `]}`, "InvalidParameterException"})
	labels := strings.TrimSuffix(strings.Repeat(`"L%",`, 20), ",")
	for i := range 20 {
		labels = strings.Replace(labels, "%", string(rune('a'+i)), 1)
	}
	walk(t, s, step{"PutSecretValue", `{"SecretId":"a","SecretString":"v","VersionStages":[` + labels + `]}`, "LimitExceededException"})
}

func TestReadsLagBehindWrites(t *testing.T) {
	s := awsserver.Start(t, awsserver.WithLag(time.Hour))
	walk(t, s,
		step{"CreateSecret", `{"Name":"a","SecretString":"v"}`, "ARN"},
		step{"GetSecretValue", `{"SecretId":"a"}`, "ResourceNotFoundException"},
		step{"DescribeSecret", `{"SecretId":"a"}`, "ResourceNotFoundException"},
		step{"CreateSecret", `{"Name":"a","SecretString":"v"}`, "ResourceExistsException"},
	)
	s.Lag(0)
	walk(t, s, step{"GetSecretValue", `{"SecretId":"a"}`, `"SecretString":"v"`})
}

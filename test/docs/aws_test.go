package docs_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
)

// The policies in docs/aws.md are those that the backend prints.
func TestTheAWSPoliciesAreThoseThatArePrinted(t *testing.T) {
	t.Setenv("AWS_CA_BUNDLE", "")
	t.Setenv("AWS_PROFILE", "")
	policies := regexp.MustCompile("(?s)```json\n(.+?)```").FindAllStringSubmatch(read(t, "docs/aws.md"), -1)
	require.Len(t, policies, 3)
	const key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	for i, want := range []struct {
		key  string
		need secret.Access
	}{{"", secret.ReadWrite}, {"", secret.ReadOnly}, {key, secret.ReadWrite}} {
		b, err := awssecretsmanager.New(t.Context(), awssecretsmanager.Config{Region: "eu-central-1", KMSKeyID: want.key}, awssecretsmanager.Options{})
		require.NoError(t, err)
		text, err := b.Policy(t.Context(), want.need)
		require.NoError(t, err)
		require.Equal(t, text, policies[i][1])
	}
}

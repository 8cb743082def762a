package awssecretsmanager_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

func errorIs(err, target error) bool { return errors.Is(err, target) }

func TestABatchIsOneRequest(t *testing.T) {
	t.Parallel()
	for _, omit := range []bool{false, true} {
		s := awsserver.Start(t)
		b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
		version, err := b.Create(t.Context(), "a/client_id", "id", "o")
		require.NoError(t, err)
		require.NoError(t, b.Set(t.Context(), "a/client_secret", "secret"))
		require.NoError(t, b.Set(t.Context(), "gone/client_id", "x"))
		require.NoError(t, b.Delete(t.Context(), "gone/client_id"))
		_, err = person(s).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("nexus/providers/odd/client_id"), SecretBinary: []byte{0xff, 0}})
		require.NoError(t, err)
		if omit {
			s.OmitMissing()
		}
		s.Forget()
		got := b.ReadBatch(t.Context(), []string{"a/client_secret", "a/client_id"})
		require.Len(t, s.Requests(), 1)
		require.Equal(t, "secret", got[0].Item.Value.Reveal())
		require.Equal(t, "id", got[1].Item.Value.Reveal())
		require.Equal(t, version, got[1].Item.Version)
		require.Empty(t, got[1].Item.Owner)

		got = b.ReadBatch(t.Context(), []string{"missing/client_id", "a/client_id", "no key", "gone/client_id", "odd/client_id", "a/client_id"})
		only(t, got[0].Err, secret.ErrNotFound, "missing")
		require.Equal(t, "id", got[1].Item.Value.Reveal())
		only(t, got[2].Err, secret.ErrInvalid, "no key")
		only(t, got[3].Err, secret.ErrNotFound, "deleted")
		only(t, got[4].Err, secret.ErrInvalid, "binary")
		require.Equal(t, "id", got[5].Item.Value.Reveal())
		for i, key := range []string{"missing/client_id", "", "", "gone/client_id", "odd/client_id"} {
			if key != "" {
				require.ErrorContains(t, got[i].Err, "aws-secrets-manager: read nexus/providers/"+key)
			}
		}
	}
}

func TestABatchOfMany(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	var keys []string
	for i := range 45 {
		keys = append(keys, fmt.Sprintf("p%d/client_id", i))
		require.NoError(t, b.Set(t.Context(), keys[i], fmt.Sprint(i)))
	}
	s.Forget()
	for i, o := range b.ReadBatch(t.Context(), keys) {
		require.NoError(t, o.Err)
		require.Equal(t, fmt.Sprint(i), o.Item.Value.Reveal())
	}
	require.Equal(t, 3, s.Calls("BatchGetSecretValue"))
	require.Empty(t, b.ReadBatch(t.Context(), nil))
}

// Where no policy allows the batch, keys are read one by one, and AWS is not asked again
// each time.
func TestADeniedBatch(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	require.NoError(t, b.Set(t.Context(), "a/client_id", "id"))
	require.NoError(t, b.Set(t.Context(), "a/client_secret", "secret"))
	s.Deny("secretsmanager:BatchGetSecretValue")
	s.Forget()
	for range 5 {
		got := b.ReadBatch(t.Context(), []string{"a/client_id", "a/client_secret"})
		require.NoError(t, got[0].Err)
		require.NoError(t, got[1].Err)
	}
	require.Equal(t, 1, s.Calls("BatchGetSecretValue"))
	require.Equal(t, 10, s.Calls("GetSecretValue"))
}

func TestGetIsOneRequest(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	require.NoError(t, b.Set(t.Context(), "a/b", "v"))
	s.Forget()
	_, err := b.Get(t.Context(), "a/b")
	require.NoError(t, err)
	require.Len(t, s.Requests(), 1)
	_, err = b.Get(t.Context(), "a/missing")
	only(t, err, secret.ErrNotFound, "Get")
	require.Len(t, s.Requests(), 2)
}

func TestWhatAPersonHasStored(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	p := person(s)
	b := open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{})
	for name, c := range map[string]struct {
		text   *string
		binary []byte
		want   string
		err    error
	}{
		"text":   {text: aws.String("plain"), want: "plain"},
		"binary": {binary: []byte("🔐 as bytes"), want: "🔐 as bytes"},
		"noUTF8": {binary: []byte("canary-\xff"), err: secret.ErrInvalid},
		"large":  {text: aws.String("canary-" + strings.Repeat("x", secret.MaxValueBytes)), err: secret.ErrInvalid},
	} {
		_, err := p.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("nexus/providers/a/" + name), SecretString: c.text, SecretBinary: c.binary})
		require.NoError(t, err)
		got, err := b.Get(t.Context(), "a/"+name)
		require.Equal(t, c.want, got)
		if c.err != nil {
			only(t, err, c.err, name)
			require.NotContains(t, err.Error(), "canary")
			continue
		}
		require.NoError(t, err)
		item, err := b.Read(t.Context(), "a/"+name)
		require.NoError(t, err)
		require.Empty(t, item.Owner)
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	p := person(s)
	b := open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{})
	made, err := p.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("team-a/salesforce"), SecretString: aws.String(`{"id":"old","n":1}`)})
	require.NoError(t, err)
	_, err = p.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: made.ARN, SecretString: aws.String(`{"id":"canary-new","n":1}`)})
	require.NoError(t, err)
	for ref, c := range map[string]struct {
		want string
		err  error
	}{
		"team-a/salesforce#id":                                   {want: "canary-new"},
		"team-a/salesforce@AWSPREVIOUS#id":                       {want: "old"},
		"team-a/salesforce@" + *made.VersionId + "#id":           {want: "old"},
		*made.ARN + "#id":                                        {want: "canary-new"},
		"team-a/salesforce":                                      {want: `{"id":"canary-new","n":1}`},
		"team-a/salesforce#n":                                    {err: secret.ErrInvalid},
		"team-a/salesforce#missing":                              {err: secret.ErrInvalid},
		"team-a/salesforce@NOSTAGE":                              {err: secret.ErrNotFound},
		"team-a/salesforce@00000000-0000-4000-8000-000000000000": {err: secret.ErrNotFound},
		"team-a/missing":                                         {err: secret.ErrNotFound},
		"team-a//salesforce":                                     {err: secret.ErrInvalid},
		"team-a/../salesforce":                                   {err: secret.ErrInvalid},
		"team a":                                                 {err: secret.ErrInvalid},
		"arn:aws:s3:::bucket":                                    {err: secret.ErrInvalid},
		"arn:aws:secretsmanager:us-east-1:123456789012:secret:x": {err: secret.ErrInvalid},
	} {
		parsed, err := secret.ParseReference(ref)
		require.NoError(t, err)
		item, err := b.ReadReference(t.Context(), parsed)
		if c.err != nil {
			only(t, err, c.err, ref)
			require.ErrorContains(t, err, ref)
			require.NotContains(t, err.Error(), "canary")
			continue
		}
		require.NoError(t, err, ref)
		require.Equal(t, c.want, item.Value.Reveal(), ref)
		require.NotEmpty(t, item.Version)
		require.Equal(t, ref, b.LocateReference(parsed))
	}
}

func TestReferenceSegments(t *testing.T) {
	t.Parallel()
	b := open(t, awsserver.Start(t), awssecretsmanager.Config{Prefix: "/nexus/providers/"}, awssecretsmanager.Options{})
	require.Equal(t, []string{"/nexus", "providers"}, b.ReferencePrefix())
	for path, want := range map[string][]string{
		"a/b": {"a", "b"}, "/a/b": {"/a", "b"}, "a/b/": {"a", "b"}, "a": {"a"},
		"arn:aws:secretsmanager:eu-central-1:999999999999:secret:a/b-AbCdEf": {"arn:aws:secretsmanager:eu-central-1:999999999999:secret", "a", "b-AbCdEf"},
	} {
		got, err := b.ReferenceSegments(path)
		require.NoError(t, err, path)
		require.Equal(t, want, got, path)
	}
	for _, path := range []string{"", "/", "//a", "a//b", "./a", "a/..", "a b", "a\n", "a*", "a?", "a:b", "ärger", strings.Repeat("a", 513), "arn:aws:secretsmanager:eu-central-1:1:secret:a"} {
		_, err := b.ReferenceSegments(path)
		only(t, err, secret.ErrInvalid, path)
	}
}

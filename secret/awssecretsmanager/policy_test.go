package awssecretsmanager_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

func policyOf(t *testing.T, b *awssecretsmanager.AWSBackend, need secret.Access) *awsserver.Policy {
	t.Helper()
	text, err := b.Policy(t.Context(), need)
	require.NoError(t, err)
	p, err := awsserver.ParsePolicy(text)
	require.NoError(t, err, text)
	return p
}

// life does everything that a broker does to a key.
func life(t *testing.T, b *awssecretsmanager.AWSBackend) error {
	ctx := t.Context()
	var failed error
	try := func(err error) {
		if err != nil && failed == nil {
			failed = err
		}
	}
	v, err := b.Create(ctx, "a/client_secret", "one", "o/1")
	try(err)
	for range 10 { // until marks are taken away
		v, err = b.Replace(ctx, "a/client_secret", "two", "o/1", v)
		try(err)
	}
	_, err = b.Read(ctx, "a/client_secret")
	try(err)
	for _, o := range b.ReadBatch(ctx, []string{"a/client_secret", "a/client_id"}) {
		if !errors.Is(o.Err, secret.ErrNotFound) {
			try(o.Err)
		}
	}
	try(b.Set(ctx, "a/client_id", "id"))
	try(b.RemoveVersion(ctx, "a/client_secret", v))
	try(b.Delete(ctx, "a/client_id"))
	try(b.Set(ctx, "a/client_id", "id again"))
	_, err = b.Get(ctx, "a/client_id")
	try(err)
	try(b.Delete(ctx, "a/client_id"))
	try(b.Probe(ctx, secret.ReadWrite))
	return failed
}

// The printed policy allows every action that is called, and none that never is.
func TestThePolicySufficesAndIsTheLeast(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]awssecretsmanager.Config{
		"plain": {RecoveryDays: 7},
		"KMS":   {RecoveryDays: 7, KMSKeyID: key},
		"alias": {RecoveryDays: 7, KMSKeyID: "alias/nexus"},
		"keyID": {RecoveryDays: 7, KMSKeyID: "1234abcd-12ab-34cd-56ef-1234567890ab"},
	} {
		t.Run(name, func(t *testing.T) {
			s := awsserver.Start(t)
			s.AddKey(cfg.KMSKeyID)
			b := open(t, s, cfg, awssecretsmanager.Options{})
			p := policyOf(t, b, secret.ReadWrite)
			s.SetPolicy(awsserver.AccessKeyID, p)
			require.NoError(t, life(t, b))
			require.Equal(t, p.Actions(), s.Actions())
			for _, r := range s.Requests() {
				require.NotEqual(t, "AccessDeniedException", r.Error, r.Action)
			}
			_, err := open(t, s, awssecretsmanager.Config{Prefix: "nexus/providers-2"}, awssecretsmanager.Options{}).Get(t.Context(), "a/b")
			require.ErrorIs(t, err, secret.ErrDenied, "outside of the prefix")
		})
	}
}

// Without any one of its actions something does not work, or works as documented with less.
func TestEachActionOfThePolicyIsNeeded(t *testing.T) {
	t.Parallel()
	less := []string{ // what the backend does without, as its documentation says
		"secretsmanager:BatchGetSecretValue", // reads one by one
		"secretsmanager:UntagResource",       // leaves old marks until there are too many
	}
	full := policyOf(t, open(t, awsserver.Start(t), awssecretsmanager.Config{RecoveryDays: 7, KMSKeyID: key}, awssecretsmanager.Options{}), secret.ReadWrite)
	for _, action := range full.Actions() {
		t.Run(action, func(t *testing.T) {
			s := awsserver.Start(t)
			s.AddKey(key)
			b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7, KMSKeyID: key}, awssecretsmanager.Options{})
			s.SetPolicy(awsserver.AccessKeyID, full.Without(action))
			err := life(t, b)
			if slices.Contains(less, action) {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, secret.ErrDenied)
			require.NotErrorIs(t, err, secret.ErrLogin)
		})
	}
}

func TestTheReadOnlyPolicySufficesToRead(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	s.AddKey(key)
	cfg := awssecretsmanager.Config{RecoveryDays: 7, KMSKeyID: key}
	admin := open(t, s, cfg, awssecretsmanager.Options{})
	require.NoError(t, admin.Set(t.Context(), "a/client_id", "id"))
	require.NoError(t, admin.Set(t.Context(), "a/client_secret", "secret"))
	p := policyOf(t, admin, secret.ReadOnly)
	s.AddUser("AKIAREADER", "reader", p)
	s.Forget()
	b := open(t, s, cfg, awssecretsmanager.Options{Credentials: login("AKIAREADER", "reader")})
	for _, o := range b.ReadBatch(t.Context(), []string{"a/client_id", "a/client_secret"}) {
		require.NoError(t, o.Err)
	}
	_, err := b.Get(t.Context(), "a/client_id")
	require.NoError(t, err)
	require.NoError(t, b.Probe(t.Context(), secret.ReadOnly))
	require.Equal(t, p.Actions(), s.Actions())
	item, err := b.Read(t.Context(), "a/client_id")
	require.NoError(t, err, "who may not see tags reads without the owner")
	require.Empty(t, item.Owner)
	require.ErrorIs(t, b.Probe(t.Context(), secret.ReadWrite), secret.ErrDenied)
	require.ErrorIs(t, b.Set(t.Context(), "a/client_id", "x"), secret.ErrDenied)
}

// What SECRET_REF_ALLOWED_PREFIXES allows the policy grants to read, and no more; and a
// diagnosis tells whether it is granted.
func TestThePolicyReadsReferences(t *testing.T) {
	t.Parallel()
	const theirs = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:team-c"
	s := awsserver.Start(t)
	for _, name := range []string{"team-a/crm", "team-a/x/y", "team-ab/crm", "shared/oauth"} {
		prefix, key, _ := strings.Cut(name, "/")
		require.NoError(t, open(t, s, awssecretsmanager.Config{Prefix: prefix}, awssecretsmanager.Options{}).Set(t.Context(), key, "value"))
	}
	b := open(t, s, awssecretsmanager.Config{ReferencePrefixes: []string{"team-a", "nexus/providers/acme", "shared/oauth", theirs}}, awssecretsmanager.Options{})
	references := func() (list []string) {
		return slices.DeleteFunc(verdicts(b.Diagnose(t.Context(), secret.ReadOnly)), func(v string) bool { return !strings.HasPrefix(v, "references") })
	}
	s.SetPolicy(awsserver.AccessKeyID, policyOf(t, open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{}), secret.ReadOnly))
	require.Equal(t, []string{"references warn", "references warn"}, references())
	for _, need := range []secret.Access{secret.ReadOnly, secret.ReadWrite} {
		s.SetPolicy(awsserver.AccessKeyID, policyOf(t, b, need))
		for path, want := range map[string]error{"team-a/crm": nil, "team-a/x/y": nil, "shared/oauth": nil, "team-ab/crm": secret.ErrDenied} {
			_, err := b.ReadReference(t.Context(), secret.Reference{Path: path})
			require.ErrorIs(t, err, want, path)
		}
		require.Equal(t, []string{"references ok", "references ok"}, references())
		text, err := b.Policy(t.Context(), need)
		require.NoError(t, err)
		require.Contains(t, text, `"`+theirs+`/*"`)
	}
	_, err := open(t, s, awssecretsmanager.Config{ReferencePrefixes: []string{"a b"}}, awssecretsmanager.Options{}).Policy(t.Context(), secret.ReadOnly)
	require.ErrorIs(t, err, secret.ErrInvalid)
}

func TestThePolicyOfOtherPartitions(t *testing.T) {
	t.Parallel()
	for region, want := range map[string]string{
		"eu-central-1": `"arn:aws:secretsmanager:eu-central-1:*:secret:nexus/providers/*"`, "cn-north-1": `"arn:aws-cn:secretsmanager:cn-north-1:*:secret:nexus/providers/*"`,
		"us-gov-west-1": `"arn:aws-us-gov:kms:us-gov-west-1:*:key/*"`,
	} {
		b := open(t, awsserver.Start(t), awssecretsmanager.Config{Region: region, KMSKeyID: "arn:aws:kms:eu-central-1:123456789012:alias/nexus"}, awssecretsmanager.Options{})
		text, err := b.Policy(t.Context(), secret.ReadWrite)
		require.NoError(t, err)
		require.Contains(t, text, want)
		require.Contains(t, text, `"kms:ResourceAliases": "alias/nexus"`)
	}
}

package awssecretsmanager_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

// The table of requests in docs/aws.md is what the server counts.
func TestTheDocumentedRequestsAreThoseThatAreMade(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	ctx := t.Context()
	var version string
	counts := map[string]string{}
	for _, op := range []struct {
		row string
		do  func() error
	}{
		{"a new credential", func() (err error) { version, err = b.Create(ctx, "a/client_id", "id", "o"); return }},
		{"another new credential", func() error { return b.Set(ctx, "a/client_secret", "x") }},
		{"both credentials of a provider", func() error { return firstError(b.ReadBatch(ctx, []string{"a/client_id", "a/client_secret"})) }},
		{"one credential", func() error { _, err := b.Get(ctx, "a/client_id"); return err }},
		{"one credential with its owner", func() error { _, err := b.Read(ctx, "a/client_id"); return err }},
		{"a change of a credential", func() (err error) { _, err = b.Replace(ctx, "a/client_id", "id2", "o", version); return }},
		{"a deletion of a credential", func() error { return b.Delete(ctx, "a/client_id") }},
		{"a new credential in the recovery window", func() error { _, err := b.Create(ctx, "a/client_id", "id", "o"); return err }},
		{"a probe of a broker that writes", func() error { return b.Probe(ctx, secret.ReadWrite) }},
		{"a probe of a broker that reads", func() error { return b.Probe(ctx, secret.ReadOnly) }},
	} {
		s.Forget()
		require.NoError(t, op.do(), op.row)
		var names []string
		for _, r := range s.Requests() {
			names = append(names, "`"+strings.TrimPrefix(r.Action, "secretsmanager:")+"`")
		}
		counts[op.row] = strings.Join(names, ", ")
	}
	delete(counts, "another new credential")
	raw, err := os.ReadFile("../../docs/aws.md")
	require.NoError(t, err)
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| (an? [a-z -]+|both [a-z ]+|one [a-z ]+) \\| ([0-9]+) \\| (`.+`) \\|$").FindAllStringSubmatch(string(raw), -1) {
		rows[m[1]] = m[3]
		require.Equal(t, m[2], strconv.Itoa(strings.Count(m[3], ",")+1), m[1])
	}
	require.Equal(t, counts, rows)
}

func firstError(outcomes []secret.Outcome) error {
	for _, o := range outcomes {
		if o.Err != nil {
			return o.Err
		}
	}
	return nil
}

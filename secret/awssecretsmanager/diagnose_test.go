package awssecretsmanager_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

// verdicts lists findings as "check verdict".
func verdicts(findings []secret.Finding) []string {
	var list []string
	for _, f := range findings {
		list = append(list, f.Check+" "+string(f.Verdict))
	}
	return list
}

func TestDiagnose(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	reading := []string{"credentials ok", "connection ok", "TLS warn", "clock ok", "read ok", "batch read ok"}
	require.Equal(t, reading, verdicts(b.Diagnose(t.Context(), secret.ReadOnly)))
	require.Empty(t, s.Names(), "a diagnosis with ReadOnly has written")
	all := append(reading, "create ok", "read back ok", "update ok", "delete ok", "write again ok", "remove ok")
	require.Equal(t, all, verdicts(b.Diagnose(t.Context(), secret.ReadWrite)))
	require.Equal(t, all, verdicts(b.Diagnose(t.Context(), secret.ReadWrite)), "the second time")
	_, err := b.Get(t.Context(), "nexus-broker-probe/client_id")
	require.ErrorIs(t, err, secret.ErrNotFound)

	for name, c := range map[string]struct {
		fault func()
		last  string
	}{
		"no create":  {func() { s.Deny("secretsmanager:CreateSecret") }, "create fail"},
		"no restore": {func() { s.Deny("secretsmanager:RestoreSecret") }, "create fail"},
		"no tags":    {func() { s.Deny("secretsmanager:TagResource") }, "create fail"},
		"no put":     {func() { s.Deny("secretsmanager:PutSecretValue") }, "create fail"},
		"no read":    {func() { s.Deny("secretsmanager:GetSecretValue") }, "create fail"},
		"outage":     {func() { s.Outage(503) }, "connection fail"},
		"HTML":       {func() { s.HTML(200) }, "connection fail"},
		"unknown":    {func() { s.RemoveUser(awsserver.AccessKeyID) }, "login fail"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no create" { // a name that was never used
				b = open(t, s, awssecretsmanager.Config{Prefix: "other", RecoveryDays: 7}, awssecretsmanager.Options{})
			}
			c.fault()
			findings := b.Diagnose(t.Context(), secret.ReadWrite)
			list := verdicts(findings)
			if name == "no read" {
				require.Contains(t, list, "read fail")
			} else {
				require.Equal(t, c.last, list[len(list)-1])
				require.NotEmpty(t, findings[len(findings)-1].Advice)
			}
			s.Heal()
			s.AddUser(awsserver.AccessKeyID, awsserver.SecretAccessKey, nil)
			b = open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
			require.False(t, strings.Contains(fmt.Sprintf("%+v", findings), awsserver.SecretAccessKey))
		})
	}
	s.Deny("secretsmanager:BatchGetSecretValue")
	require.Contains(t, verdicts(b.Diagnose(t.Context(), secret.ReadOnly)), "batch read warn")
}

// The SDK puts the signature right by itself where the clocks differ; the diagnosis tells.
func TestDiagnoseTellsThatTheClocksDiffer(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t, awsserver.WithClock(func() time.Time { return time.Now().Add(20 * time.Minute) }))
	b := open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{})
	list := verdicts(b.Diagnose(t.Context(), secret.ReadOnly))
	require.True(t, slices.Contains(list, "clock warn"), "%v", list)
	require.True(t, slices.Contains(list, "read ok"), "%v", list)
}

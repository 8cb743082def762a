package awssecretsmanager_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

// only checks that err wraps want and none of the other sentinels.
func only(t *testing.T, err, want error, what string) {
	t.Helper()
	require.ErrorIs(t, err, want, what)
	for _, other := range []error{secret.ErrNotFound, secret.ErrDenied, secret.ErrUnavailable, secret.ErrThrottled, secret.ErrInvalid} {
		if !errors.Is(want, other) {
			require.NotErrorIs(t, err, other, what)
		}
	}
}

// everyCall runs each method, all at once, and hands its error to check.
func everyCall(t *testing.T, b *awssecretsmanager.AWSBackend, check func(op string, err error)) {
	t.Helper()
	ctx := t.Context()
	var calls sync.WaitGroup
	results := make(chan func(), 16)
	call := func(op string, run func() error) {
		calls.Go(func() {
			err := run()
			results <- func() { check(op, err) }
		})
	}
	call("Get", func() error { _, err := b.Get(ctx, "a/b"); return err })
	call("Read", func() error { _, err := b.Read(ctx, "a/b"); return err })
	call("Create", func() error { _, err := b.Create(ctx, "a/new", "canary-value", "o"); return err })
	call("Replace", func() error { _, err := b.Replace(ctx, "a/newer", "canary-value", "o", ""); return err })
	call("Set", func() error { return b.Set(ctx, "a/newest", "canary-value") })
	call("Delete", func() error { return b.Delete(ctx, "a/old") })
	call("RemoveVersion", func() error { return b.RemoveVersion(ctx, "a/new", "1") })
	call("Probe", func() error { return b.Probe(ctx, secret.ReadWrite) })
	call("ReadReference", func() error {
		_, err := b.ReadReference(ctx, secret.Reference{Path: "nexus/providers/a/b"})
		return err
	})
	for at := range 2 {
		call("ReadBatch", func() error { return b.ReadBatch(ctx, []string{"a/b", "a/c"})[at].Err })
	}
	calls.Wait()
	close(results)
	for check := range results {
		check()
	}
}

func TestFaultsAndRecovery(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		begin func(*awsserver.Server)
		want  error
	}{
		"outage 500": {func(s *awsserver.Server) { s.Outage(500) }, secret.ErrUnavailable},
		"outage 503": {func(s *awsserver.Server) { s.Outage(503) }, secret.ErrUnavailable},
		"cut":        {func(s *awsserver.Server) { s.Drop() }, secret.ErrUnavailable},
		"HTML 200":   {func(s *awsserver.Server) { s.HTML(200) }, secret.ErrUnavailable},
		"HTML 403":   {func(s *awsserver.Server) { s.HTML(403) }, secret.ErrUnavailable},
		"HTML 404":   {func(s *awsserver.Server) { s.HTML(404) }, secret.ErrUnavailable},
		"HTML 502":   {func(s *awsserver.Server) { s.HTML(502) }, secret.ErrUnavailable},
		"throttled":  {func(s *awsserver.Server) { s.Throttle(0) }, secret.ErrThrottled},
		"hang":       {func(s *awsserver.Server) { s.Hang() }, secret.ErrUnavailable},
		"denied": {func(s *awsserver.Server) {
			s.SetPolicy(awsserver.AccessKeyID, &awsserver.Policy{Version: "2012-10-17"})
		}, secret.ErrDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := awsserver.Start(t)
			b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{Timeout: 10 * time.Second})
			require.NoError(t, b.Set(t.Context(), "a/b", "before"))
			require.NoError(t, b.Set(t.Context(), "a/c", "before"))
			impatient := b
			if timeout, limited := map[string]time.Duration{"hang": time.Second, "throttled": 2 * time.Second}[name]; limited {
				impatient = open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{Timeout: timeout})
			}
			fault.begin(s)
			everyCall(t, impatient, func(op string, err error) {
				only(t, err, fault.want, op)
				require.NotErrorIs(t, err, context.DeadlineExceeded, op)
				require.NotErrorIs(t, err, secret.ErrLogin, op)
				for _, foreign := range []string{"canary-value", "Please log in", "Rate exceeded", "is not authorized to perform"} {
					require.NotContains(t, fmt.Sprintf("%v %+v %#v %q", err, err, err, err), foreign, op)
				}
			})
			s.Heal()
			s.SetPolicy(awsserver.AccessKeyID, nil)
			value, err := b.Get(t.Context(), "a/b")
			require.NoError(t, err)
			require.Equal(t, "before", value)
			require.NoError(t, b.Set(t.Context(), "a/new", "x"))
		})
	}
}

func TestThrottlingSaysForHowLong(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{Timeout: 2 * time.Second})
	s.Throttle(7 * time.Second)
	_, err := b.Get(t.Context(), "a/b")
	wait, ok := secret.RetryAfter(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, 7*time.Second, wait)
}

// Throttling that passes within the deadline is not noticed.
func TestThrottlingIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{})
	require.NoError(t, b.Set(t.Context(), "a/b", "v"))
	s.Forget()
	s.Throttle(0)
	go func() {
		for s.Calls("GetSecretValue") == 0 {
			time.Sleep(time.Millisecond)
		}
		s.Heal()
	}()
	_, err := b.Get(t.Context(), "a/b")
	require.NoError(t, err)
	require.Greater(t, s.Calls("GetSecretValue"), 1)
}

// Throttling that has passed holds nobody back: a broker reads little for hours and then
// much at once, which says nothing of what AWS allows it.
func TestABurstAfterThrottling(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{Timeout: 2 * time.Second})
	require.NoError(t, b.Set(t.Context(), "a/b", "v"))
	s.Throttle(0)
	everyCall(t, b, func(op string, err error) { require.ErrorIs(t, err, secret.ErrThrottled, op) })
	s.Heal()
	var burst errgroup.Group
	for range 200 {
		burst.Go(func() error { _, err := b.Get(t.Context(), "a/b"); return err })
	}
	require.NoError(t, burst.Wait())
}

// The deadline of a caller ends a call as such, whatever the server does.
func TestADeadlineIsADeadline(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{})
	s.Hang()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Get(ctx, "a/b")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, secret.ErrUnavailable)
	for _, o := range b.ReadBatch(ctx, []string{"a/b", "a/c"}) {
		require.ErrorIs(t, o.Err, context.DeadlineExceeded)
	}
}

func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	const role = "arn:aws:iam::123456789012:role/nexus"
	s := awsserver.Start(t)
	s.AddRole(awsserver.Role{ARN: role, ExternalID: "right"})
	for name, c := range map[string]struct {
		cfg  awssecretsmanager.Config
		opts awssecretsmanager.Options
		says string
	}{
		"unknown key":       {opts: awssecretsmanager.Options{Credentials: login("AKIAUNKNOWN", "x")}, says: "does not know"},
		"wrong secret":      {opts: awssecretsmanager.Options{Credentials: login(awsserver.AccessKeyID, "wrong")}, says: "signature"},
		"wrong region":      {cfg: awssecretsmanager.Config{Region: "us-east-1"}, says: "region"},
		"wrong external id": {cfg: awssecretsmanager.Config{RoleARN: role, ExternalID: "wrong"}, says: "external id"},
		"no external id":    {cfg: awssecretsmanager.Config{RoleARN: role}, says: "external id"},
		"unknown role":      {cfg: awssecretsmanager.Config{RoleARN: role + "2"}, says: "external id"},
		"role, wrong key":   {cfg: awssecretsmanager.Config{RoleARN: role}, opts: awssecretsmanager.Options{Credentials: login(awsserver.AccessKeyID, "wrong")}, says: "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, s, c.cfg, c.opts)
			everyCall(t, b, func(op string, err error) {
				only(t, err, secret.ErrDenied, op)
				require.ErrorIs(t, err, secret.ErrLogin, op)
				require.Contains(t, err.Error(), c.says, op)
			})
		})
	}
	require.Empty(t, s.Names())
}

func TestAnExpiredSessionIsARefusedLoginAndTheNextOneWorks(t *testing.T) {
	t.Parallel()
	const role = "arn:aws:iam::123456789012:role/nexus"
	s := awsserver.Start(t)
	s.AddRole(awsserver.Role{ARN: role})
	cfg := awssecretsmanager.Config{RoleARN: role}
	b := open(t, s, cfg, awssecretsmanager.Options{})
	require.NoError(t, b.Set(t.Context(), "a/b", "v"))
	require.Equal(t, 1, s.Calls("AssumeRole"), "a login for each call")
	s.ExpireSessions()
	_, err := b.Get(t.Context(), "a/b")
	require.NoError(t, err, "AWS has ended the session early: the backend logs in again")
	require.Equal(t, 2, s.Calls("AssumeRole"))
	s.Deny("sts:AssumeRole")
	s.ExpireSessions()
	_, err = b.Get(t.Context(), "a/b")
	require.ErrorIs(t, err, secret.ErrLogin)
}

// An STS that is away is an outage, not a refusal.
func TestSTSOutage(t *testing.T) {
	t.Parallel()
	const role = "arn:aws:iam::123456789012:role/nexus"
	for name, fault := range map[string]func(*awsserver.Server){
		"500": func(s *awsserver.Server) { s.Outage(500) }, "cut": func(s *awsserver.Server) { s.Drop() }, "HTML": func(s *awsserver.Server) { s.HTML(503) },
	} {
		t.Run(name, func(t *testing.T) {
			s := awsserver.Start(t)
			s.AddRole(awsserver.Role{ARN: role})
			b := open(t, s, awssecretsmanager.Config{RoleARN: role}, awssecretsmanager.Options{})
			fault(s)
			_, err := b.Get(t.Context(), "a/b")
			only(t, err, secret.ErrUnavailable, name)
			s.Heal()
			require.NoError(t, b.Set(t.Context(), "a/b", "v"))
		})
	}
}

// Without credentials anywhere the program starts, and says what is missing.
func TestNoCredentials(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b, err := awssecretsmanager.New(t.Context(), awssecretsmanager.Config{Region: awsserver.Region, Endpoint: s.URL}, awssecretsmanager.Options{})
	require.NoError(t, err)
	_, err = b.Get(t.Context(), "a/b")
	require.Error(t, err)
	require.Contains(t, err.Error(), "AWS_PROFILE")
	only(t, err, secret.ErrDenied, "Get")
	require.ErrorIs(t, err, secret.ErrLogin)
}

// What the environment says is used as the SDK documents it.
func TestTheEnvironment(t *testing.T) {
	s := awsserver.Start(t)
	t.Setenv("AWS_REGION", awsserver.Region)
	t.Setenv("AWS_ACCESS_KEY_ID", awsserver.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", awsserver.SecretAccessKey)
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", s.URL)
	b, err := awssecretsmanager.New(t.Context(), awssecretsmanager.Config{}, awssecretsmanager.Options{Logger: newLogger(t)})
	require.NoError(t, err)
	require.NoError(t, b.Set(t.Context(), "a/b", "v"))
	require.Equal(t, []string{"nexus/providers/a/b"}, s.Names())
	t.Setenv("AWS_REGION", "")
	_, err = awssecretsmanager.New(t.Context(), awssecretsmanager.Config{}, awssecretsmanager.Options{})
	require.ErrorContains(t, err, "AWS_REGION")
}

func TestAKMSKeyThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	s.AddKey(key)
	b := open(t, s, awssecretsmanager.Config{KMSKeyID: key, RecoveryDays: 7}, awssecretsmanager.Options{})
	require.NoError(t, b.Set(t.Context(), "a/b", "v"))
	for name, c := range map[string]struct{ begin, end func() }{
		"denied":   {func() { s.Deny("kms:Decrypt") }, s.Heal},
		"disabled": {func() { s.DisableKey(key, true) }, func() { s.DisableKey(key, false) }},
	} {
		c.begin()
		_, err := b.Get(t.Context(), "a/b")
		only(t, err, secret.ErrDenied, name)
		require.NotErrorIs(t, err, secret.ErrLogin)
		require.Contains(t, err.Error(), "KMS key")
		only(t, b.Set(t.Context(), "a/b", "w"), secret.ErrDenied, name)
		only(t, b.Set(t.Context(), "a/new", "w"), secret.ErrDenied, name)
		for _, o := range b.ReadBatch(t.Context(), []string{"a/b", "a/c"})[:1] {
			only(t, o.Err, secret.ErrDenied, name)
			require.Contains(t, o.Err.Error(), "KMS key")
		}
		c.end()
		_, err = b.Get(t.Context(), "a/b")
		require.NoError(t, err)
	}
	unknown := open(t, s, awssecretsmanager.Config{KMSKeyID: "alias/unknown"}, awssecretsmanager.Options{})
	only(t, unknown.Set(t.Context(), "a/c", "w"), secret.ErrDenied, "a key that is not there")
}

// Twenty versions of a secret may have labels: a person's many are a quota, no throttling.
func TestAQuotaIsNoThrottling(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{}, awssecretsmanager.Options{})
	var err error
	for range 120 {
		if err = b.Set(t.Context(), "a/b", strings.Repeat("v", 3)); err != nil {
			break
		}
	}
	only(t, err, secret.ErrInvalid, "more than 100 versions in a day")
	require.Contains(t, err.Error(), "quota")
}

func TestConfigurationProblems(t *testing.T) {
	t.Parallel()
	_, err := awssecretsmanager.New(t.Context(), awssecretsmanager.Config{
		Region: "Frankfurt", Prefix: "a//b c", RoleARN: "role", KMSKeyID: "a b", RecoveryDays: 3, Endpoint: "vpce",
		Tags: map[string]string{"aws:x": "1", "managed-by": "me", "": "x", "k": "a#b"},
	}, awssecretsmanager.Options{})
	require.Error(t, err)
	for _, part := range []string{"region", "prefix", "role", "KMS key", "3 recovery days", "endpoint", `"aws:x"`, `"managed-by"`, `tag ""`, `tag "k"`} {
		require.ErrorContains(t, err, part)
	}
	_, err = awssecretsmanager.New(t.Context(), awssecretsmanager.Config{Region: "eu-central-1", ExternalID: "x"}, awssecretsmanager.Options{})
	require.ErrorContains(t, err, "without a role")
}

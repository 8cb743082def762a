package awssecretsmanager_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

// untilRefused returns a context that ends when the server has refused a request of
// action, which it does until Heal.
func untilRefused(t *testing.T, s *awsserver.Server, action string) context.Context {
	t.Helper()
	before := s.Calls(action)
	s.Throttle(0, "secretsmanager:"+action)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for ctx.Err() == nil && s.Calls(action) == before {
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return ctx
}

// remnantsOn leaves what a Create leaves in a recovery window that does not get to store
// its value. Readings lag behind for lag.
func remnantsOn(s *awsserver.Server, cfg awssecretsmanager.Config, lag time.Duration) secrettest.Remnants {
	cfg.RecoveryDays = max(cfg.RecoveryDays, 7)
	return secrettest.Remnants{
		Leave: func(t *testing.T, _ secret.SecretBackend, key, owner string) {
			t.Helper()
			earlier := open(t, s, cfg, awssecretsmanager.Options{})
			_, err := earlier.Create(t.Context(), key, "earlier", "owner/earlier")
			require.NoError(t, err)
			require.NoError(t, earlier.Delete(t.Context(), key))
			defer s.Heal()
			// Not through b, which would go on slowly after that: the SDK makes way for a throttled service.
			_, err = earlier.Create(untilRefused(t, s, "PutSecretValue"), key, "lost", owner)
			require.Error(t, err)
			time.Sleep(2 * lag)
		},
		Left: func(t *testing.T, b secret.SecretBackend, key string) bool {
			t.Helper()
			time.Sleep(2 * lag)
			return there(t, s, b.(*awssecretsmanager.AWSBackend).Locate(key))
		},
	}
}

// there reports whether the secret exists and is not scheduled for deletion.
func there(t *testing.T, s *awsserver.Server, name string) bool {
	t.Helper()
	out, err := person(s).DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(name)})
	if missing := new(types.ResourceNotFoundException); errors.As(err, &missing) {
		return false
	}
	require.NoError(t, err)
	return out.DeletedDate == nil
}

// marks lists the owners' marks, and the version that waits to become the current one.
func marks(t *testing.T, s *awsserver.Server) (list []string) {
	t.Helper()
	out, err := person(s).DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(name)})
	require.NoError(t, err)
	for version, labels := range out.VersionIdsToStages {
		if slices.Contains(labels, "nexus-broker-pending") && !slices.Contains(labels, "AWSCURRENT") {
			list = append(list, version+" waits")
		}
	}
	for _, tag := range out.Tags {
		if version, isMark := strings.CutPrefix(*tag.Key, "nexus-broker/owner/"); isMark {
			list = append(list, version+" is "+*tag.Value)
		}
	}
	slices.Sort(list)
	return list
}

func isOwner(owner string) func(string) bool {
	return func(o string) bool { return o == owner }
}

func wantRemoved(t *testing.T, b *awssecretsmanager.AWSBackend, mine func(string) bool, want bool) {
	t.Helper()
	removed, err := b.RemoveRemnant(t.Context(), "a/b", mine)
	require.NoError(t, err)
	require.Equal(t, want, removed, "removed")
}

// cut begins a Create whose requests of action are refused.
func cut(t *testing.T, s *awsserver.Server, action, owner string) {
	t.Helper()
	defer s.Heal()
	_, err := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{}).
		Create(untilRefused(t, s, action), "a/b", "new", owner)
	require.Error(t, err)
}

// A Create in a recovery window is cut off before each of the requests after the
// restoration, and another process clears up: the secret is in its recovery window again
// with nothing of the Create's on it, and what was deleted before can still be restored.
func TestNothingIsLeftOfACreateInARecoveryWindow(t *testing.T) {
	t.Parallel()
	for _, days := range []int{0, 7} {
		for _, action := range []string{"TagResource", "PutSecretValue", "UpdateSecretVersionStage"} {
			t.Run(action, func(t *testing.T) {
				s := awsserver.Start(t)
				deleted(t, s)
				before := marks(t, s)
				cut(t, s, action, "o/new")
				require.True(t, there(t, s, name), "nothing is left: the test proves nothing")
				b := open(t, s, awssecretsmanager.Config{RecoveryDays: days}, awssecretsmanager.Options{})
				if action != "TagResource" { // there is a mark
					claimed := marks(t, s)
					require.NotEqual(t, before, claimed)
					wantRemoved(t, b, isOwner("o/other"), false)
					require.True(t, there(t, s, name))
					require.Equal(t, claimed, marks(t, s))
				}
				wantRemoved(t, b, isOwner("o/new"), true)
				require.False(t, there(t, s, name))
				require.Equal(t, before, marks(t, s))
				wantRemoved(t, b, isOwner("o/new"), false)

				_, err := person(s).RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: aws.String(name)})
				require.NoError(t, err)
				out, err := person(s).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String(name)})
				require.NoError(t, err)
				require.Equal(t, "deleted", *out.SecretString)
				_, err = b.Create(t.Context(), "a/b", "again", "o/3")
				require.NoError(t, err)
			})
		}
	}
}

// deleted leaves a secret that the backend has deleted, in its recovery window.
func deleted(t *testing.T, s *awsserver.Server) {
	t.Helper()
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	version, err := b.Create(t.Context(), "a/b", "oldest", "o/earlier")
	require.NoError(t, err)
	for _, value := range []string{"older", "deleted"} {
		version, err = b.Replace(t.Context(), "a/b", value, "o/earlier", version)
		require.NoError(t, err)
	}
	require.NoError(t, b.Delete(t.Context(), "a/b"))
	require.Len(t, marks(t, s), 3, "old marks are there, and are no claims")
}

// Of two that were cut off at one key each takes what is its own, and the last one puts
// the secret back.
func TestTwoRemnantsAtOneKey(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	deleted(t, s)
	before := marks(t, s)
	cut(t, s, "PutSecretValue", "o/1")
	cut(t, s, "UpdateSecretVersionStage", "o/2")
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	wantRemoved(t, b, isOwner("o/1"), true)
	require.True(t, there(t, s, name))
	wantRemoved(t, b, isOwner("o/1"), false)
	wantRemoved(t, b, isOwner("o/2"), true)
	require.False(t, there(t, s, name))
	require.Equal(t, before, marks(t, s))
}

// Who is between the restoration and his mark when another one clears up gets his value
// stored all the same.
func TestACreateUnderWayOutlivesTheRemovalOfARemnant(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	deleted(t, s)
	arrived, release := make(chan struct{}), make(chan struct{})
	held := sync.OnceFunc(func() { close(arrived); <-release })
	target, err := url.Parse(s.URL)
	require.NoError(t, err)
	onward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // it is signed
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".TagResource") {
			held()
		}
		onward.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	letGo := sync.OnceFunc(func() { close(release) })
	defer letGo() // before the proxy waits for its requests
	slow := open(t, s, awssecretsmanager.Config{RecoveryDays: 7, Endpoint: proxy.URL}, awssecretsmanager.Options{Timeout: time.Minute})
	done := make(chan error, 1)
	go func() {
		_, err := slow.Create(t.Context(), "a/b", "new", "o/1")
		done <- err
	}()
	<-arrived
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	wantRemoved(t, b, isOwner("o/2"), true)
	letGo()
	require.NoError(t, <-done)
	item, err := b.Read(t.Context(), "a/b")
	require.NoError(t, err)
	require.Equal(t, "new o/1", item.Value.Reveal()+" "+item.Owner)
	wantRemoved(t, b, isOwner("o/1"), false)
	require.True(t, there(t, s, name))
}

// A secret that a person has made without a value keeps everything but the Create's mark;
// one that he had deleted, and that the Create has restored, is readable and stays.
func TestTheSecretOfAPersonIsNoRemnant(t *testing.T) {
	t.Parallel()
	anybody := func(string) bool { return true }
	t.Run("without a value", func(t *testing.T) {
		s := awsserver.Start(t)
		_, err := person(s).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(name), Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String("x")}}})
		require.NoError(t, err)
		b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
		wantRemoved(t, b, anybody, false)
		cut(t, s, "PutSecretValue", "o/1")
		wantRemoved(t, b, isOwner("o/2"), false)
		require.Len(t, marks(t, s), 1)
		wantRemoved(t, b, isOwner("o/1"), true)
		require.True(t, there(t, s, name))
		require.Empty(t, marks(t, s))
		wantRemoved(t, b, anybody, false)
	})
	t.Run("deleted by a person", func(t *testing.T) {
		s := awsserver.Start(t)
		p := person(s)
		_, err := p.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(name), SecretString: aws.String("a person's")})
		require.NoError(t, err)
		_, err = p.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: aws.String(name)})
		require.NoError(t, err)
		cut(t, s, "PutSecretValue", "o/1")
		b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
		wantRemoved(t, b, anybody, false)
		value, err := b.Get(t.Context(), "a/b")
		require.NoError(t, err)
		require.Equal(t, "a person's", value)
	})
}

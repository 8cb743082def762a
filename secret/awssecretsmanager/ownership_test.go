package awssecretsmanager_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

// person returns a client of the vendor's, with which somebody else works at the store.
func person(s *awsserver.Server) *secretsmanager.Client {
	return secretsmanager.New(secretsmanager.Options{Region: awsserver.Region, BaseEndpoint: aws.String(s.URL), Credentials: adminLogin()})
}

const name = "nexus/providers/a/b"

// A write that is cut off after any number of its requests leaves the old value with its
// old owner, or the new one with the new owner.
func TestAWriteThatIsCutOffNeverLiesAboutTheOwner(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"DescribeSecret", "TagResource", "PutSecretValue", "UpdateSecretVersionStage", "UntagResource", "GetSecretValue"} {
		t.Run(action, func(t *testing.T) {
			s := awsserver.Start(t)
			b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
			version, err := b.Create(t.Context(), "a/b", "old", "owner/old")
			require.NoError(t, err)
			for _, lost := range []bool{false, true} { // the request, or only its answer
				if lost {
					s.LoseAnswers("secretsmanager:" + action)
				} else {
					s.Throttle(0, "secretsmanager:"+action)
				}
				_, err = open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{Timeout: 400 * time.Millisecond}).
					Replace(t.Context(), "a/b", "new", "owner/new", version)
				s.Heal()
				item, readErr := b.Read(t.Context(), "a/b")
				require.NoError(t, readErr)
				switch item.Value.Reveal() {
				case "old":
					require.Error(t, err)
					require.Equal(t, "owner/old", item.Owner)
					require.Equal(t, version, item.Version)
				case "new":
					require.Equal(t, "owner/new", item.Owner)
				}
				version, err = b.Replace(t.Context(), "a/b", "old", "owner/old", item.Version)
				require.NoError(t, err, "the next write")
			}
		})
	}
}

// The late half of a write that was given up cannot hit a newer value: it is fenced by
// the version that it was to replace.
func TestALateWriteIsFenced(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	other := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	first, err := b.Create(t.Context(), "a/b", "first", "o/1")
	require.NoError(t, err)
	s.Latency(100 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	s.Forget()
	go func() {
		_, err := b.Replace(ctx, "a/b", "late", "o/late", first)
		done <- err
	}()
	require.Eventually(t, func() bool { return s.Calls("PutSecretValue") > 0 }, 10*time.Second, time.Millisecond)
	s.Heal()
	_, err = other.Replace(t.Context(), "a/b", "second", "o/2", first)
	lateErr := <-done
	cancel()
	item, readErr := other.Read(t.Context(), "a/b")
	require.NoError(t, readErr)
	if err == nil {
		require.ErrorIs(t, lateErr, secret.ErrChanged)
		require.Equal(t, "second o/2", item.Value.Reveal()+" "+item.Owner)
	} else {
		require.ErrorIs(t, err, secret.ErrChanged)
		require.NoError(t, lateErr)
		require.Equal(t, "late o/late", item.Value.Reveal()+" "+item.Owner)
	}
}

// Two processes have no lock in common: AWS keeps them apart.
func TestProcessesCompete(t *testing.T) {
	t.Parallel()
	for _, days := range []int{0, 7} {
		t.Run(fmt.Sprintf("recovery %d", days), func(t *testing.T) {
			s := awsserver.Start(t)
			var bs []*awssecretsmanager.AWSBackend
			for range 6 {
				bs = append(bs, open(t, s, awssecretsmanager.Config{RecoveryDays: days}, awssecretsmanager.Options{}))
			}
			for round := range 6 {
				if round%2 == 1 {
					require.NoError(t, bs[0].Delete(t.Context(), "a/b"))
				} else {
					require.NoError(t, bs[0].Delete(t.Context(), "a/b"))
					require.NoError(t, bs[0].Delete(t.Context(), "a/b"))
				}
				version := race(t, bs, secret.ErrExists, func(b *awssecretsmanager.AWSBackend, value, owner string) (string, error) {
					return b.Create(t.Context(), "a/b", value, owner)
				})
				race(t, bs, secret.ErrChanged, func(b *awssecretsmanager.AWSBackend, value, owner string) (string, error) {
					return b.Replace(t.Context(), "a/b", value, owner, version)
				})
			}
		})
	}
}

// race lets all write at once, of whom one must win, and checks that what is stored is
// his with his owner.
func race(t *testing.T, bs []*awssecretsmanager.AWSBackend, lost error, write func(b *awssecretsmanager.AWSBackend, value, owner string) (string, error)) string {
	t.Helper()
	var wg sync.WaitGroup
	var winners atomic.Int32
	var won atomic.Value
	for i, b := range bs {
		wg.Go(func() {
			value, owner := fmt.Sprintf("value %d", i), fmt.Sprintf("owner/%d", i)
			version, err := write(b, value, owner)
			if err == nil {
				winners.Add(1)
				won.Store(value + " " + owner + " " + version)
				return
			}
			if !errorIs(err, lost) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, winners.Load())
	item, err := bs[0].Read(t.Context(), "a/b")
	require.NoError(t, err)
	require.Equal(t, won.Load(), item.Value.Reveal()+" "+item.Owner+" "+item.Version)
	return item.Version
}

// What the broker has deleted is not read while a new value is on its way, and a restored
// secret that nobody has written anew stays deleted.
func TestADeletedValueDoesNotComeBackWithItsSecret(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	_, err := b.Create(t.Context(), "a/b", "deleted", "o/1")
	require.NoError(t, err)
	require.NoError(t, b.Delete(t.Context(), "a/b"))
	// Cut off between the restoration and the new value.
	s.Throttle(0, "secretsmanager:PutSecretValue")
	_, err = open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{Timeout: 2 * time.Second}).Create(t.Context(), "a/b", "new", "o/2")
	only(t, err, secret.ErrThrottled, "Create")
	require.Equal(t, 1, s.Calls("RestoreSecret"))
	s.Heal()
	_, err = b.Get(t.Context(), "a/b")
	only(t, err, secret.ErrNotFound, "Get")
	for _, o := range b.ReadBatch(t.Context(), []string{"a/b", "a/c"}) {
		only(t, o.Err, secret.ErrNotFound, "ReadBatch")
	}
	_, err = b.Create(t.Context(), "a/b", "newer", "o/3")
	require.NoError(t, err)
	item, err := b.Read(t.Context(), "a/b")
	require.NoError(t, err)
	require.Equal(t, "newer o/3", item.Value.Reveal()+" "+item.Owner)
	// A person brings the old value back, as the documentation says.
	require.NoError(t, b.Delete(t.Context(), "a/b"))
	p := person(s)
	_, err = p.RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: aws.String(name)})
	require.NoError(t, err)
	_, err = p.UpdateSecretVersionStage(t.Context(), &secretsmanager.UpdateSecretVersionStageInput{
		SecretId: aws.String(name), VersionStage: aws.String("nexus-broker-deleted"), RemoveFromVersionId: aws.String(item.Version),
	})
	require.NoError(t, err)
	value, err := b.Get(t.Context(), "a/b")
	require.NoError(t, err)
	require.Equal(t, "newer", value)
}

// A name that a person has deleted is restored and overwritten, and his value stays the
// previous one: taking the write back leaves it to be restored.
func TestANameInAPersonsDeletionWindow(t *testing.T) {
	t.Parallel()
	for _, days := range []int{0, 7} {
		clock := new(atomic.Int64)
		now := func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
		s := awsserver.Start(t, awsserver.WithClock(now))
		p := person(s)
		_, err := p.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(name), SecretString: aws.String("a person's")})
		require.NoError(t, err)
		clock.Store(int64(-2 * time.Minute)) // deleted a while ago
		_, err = p.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: aws.String(name), RecoveryWindowInDays: aws.Int64(30)})
		require.NoError(t, err)
		clock.Store(0)
		b := open(t, s, awssecretsmanager.Config{RecoveryDays: days}, awssecretsmanager.Options{})
		version, err := b.Create(t.Context(), "a/b", "mine", "o/1")
		require.NoError(t, err)
		item, err := b.Read(t.Context(), "a/b")
		require.NoError(t, err)
		require.Equal(t, "mine o/1", item.Value.Reveal()+" "+item.Owner)
		require.NoError(t, b.RemoveVersion(t.Context(), "a/b", version))
		_, err = b.Get(t.Context(), "a/b")
		only(t, err, secret.ErrNotFound, "Get")
		_, err = p.RestoreSecret(t.Context(), &secretsmanager.RestoreSecretInput{SecretId: aws.String(name)})
		require.NoError(t, err, "recovery %d: what a person had there is lost", days)
		out, err := p.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String(name), VersionStage: aws.String("AWSPREVIOUS")})
		require.NoError(t, err)
		require.Equal(t, "a person's", *out.SecretString)
	}
}

// A secret that a person has made without a value is empty, and can be filled.
func TestASecretWithoutAValue(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	_, err := person(s).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String(name)})
	require.NoError(t, err)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	_, err = b.Get(t.Context(), "a/b")
	only(t, err, secret.ErrNotFound, "Get")
	version, err := b.Create(t.Context(), "a/b", "v", "o/1")
	require.NoError(t, err)
	item, err := b.Read(t.Context(), "a/b")
	require.NoError(t, err)
	require.Equal(t, "v o/1 "+version, item.Value.Reveal()+" "+item.Owner+" "+item.Version)
}

// Marks of old versions do not fill the 50 tags that a secret can have.
func TestOldMarksGo(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7, Tags: map[string]string{"team": "x"}}, awssecretsmanager.Options{})
	version, err := b.Create(t.Context(), "a/b", "v", "o")
	require.NoError(t, err)
	for i := range 60 {
		version, err = b.Replace(t.Context(), "a/b", fmt.Sprint(i), "o", version)
		require.NoError(t, err)
	}
	out, err := person(s).DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: aws.String(name)})
	require.NoError(t, err)
	tags := map[string]string{}
	for _, tag := range out.Tags {
		tags[*tag.Key] = *tag.Value
	}
	require.LessOrEqual(t, len(tags), 13)
	require.Equal(t, "nexus-broker", tags["managed-by"])
	require.Equal(t, "x", tags["team"])
	require.Equal(t, "o", tags["nexus-broker/owner/"+version])
	require.LessOrEqual(t, len(out.VersionIdsToStages), 3)
}

package awssecretsmanager_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/awssecretsmanager"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
	"github.com/nexus-broker/nexus-broker/test/awsserver"
)

// misread is what AWS asks a name not to end in.
var misread = regexp.MustCompile(`-.{6}$`)

var aKey = rapid.StringMatching(`[A-Za-z0-9_.-]{1,12}(/[A-Za-z0-9_.-]{1,12}){0,3}|[a-]{1,10}/[a-]{1,14}|x{100}/[x-]{90,99}`).
	Filter(func(k string) bool { return secret.CheckKey(k) == nil })

var aPrefix = rapid.SampledFrom([]string{"nexus/providers", "a", "/a", "a=", "x-abcdef", "p@q+r", strings.Repeat("p", awssecretsmanager.MaxPrefixBytes)})

func TestNamesAreLegalAndReversible(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		prefix, key := aPrefix.Draw(t, "prefix"), aKey.Draw(t, "key")
		name := awssecretsmanager.Encode(prefix, key)
		if len(name) > 512 || !regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]+$`).MatchString(name) {
			t.Fatalf("%q is no name of AWS's", name)
		}
		if misread.MatchString(name) {
			t.Fatalf("AWS could misread %q", name)
		}
		if !strings.HasPrefix(name, prefix+"/"+key) {
			t.Fatalf("%q is not readable as %q", name, key)
		}
		if back, ok := awssecretsmanager.Decode(prefix, name); !ok || back != key {
			t.Fatalf("decode(encode(%q)) = %q, %t", key, back, ok)
		}
	})
}

func TestDifferentKeysHaveDifferentNames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		prefix, a, b := aPrefix.Draw(t, "prefix"), aKey.Draw(t, "a"), aKey.Draw(t, "b")
		if a != b && awssecretsmanager.Encode(prefix, a) == awssecretsmanager.Encode(prefix, b) {
			t.Fatalf("%q and %q are one name", a, b)
		}
	})
}

func TestDecodeRefusesWhatEncodeDoesNotMake(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"nexus/providers", "other/a", "nexus/providers/a=", "nexus/providers/a-abcdef", "nexus/providers/a-abcdef=="} {
		_, ok := awssecretsmanager.Decode("nexus/providers", name)
		require.False(t, ok, name)
	}
}

func TestNamesOfKeysAtTheStore(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	for key, name := range map[string]string{
		"google/client_id": "nexus/providers/google/client_id",
		"google/a-abcdef":  "nexus/providers/google/a-abcdef=",
		"google/--abcde":   "nexus/providers/google/--abcde==",
		"google/---------": "nexus/providers/google/---------=======",
	} {
		require.NoError(t, b.Set(t.Context(), key, "v"))
		require.Contains(t, s.Names(), name)
		require.Equal(t, name, b.Locate(key))
	}
	require.Equal(t, "nexus/providers/google", b.Locate("google"))
	require.Equal(t, "nexus/providers/x-abcdef", b.Locate("x-abcdef"))
}

// What the suite stores has no name either that AWS could misread.
func TestTheSuiteLeavesNoAmbiguousName(t *testing.T) {
	t.Parallel()
	s := awsserver.Start(t)
	b := open(t, s, awssecretsmanager.Config{RecoveryDays: 7}, awssecretsmanager.Options{})
	secrettest.Run(t, func(*testing.T) secret.SecretBackend { return minimal{b} })
	require.NotEmpty(t, s.Names())
	for _, name := range s.Names() {
		require.False(t, misread.MatchString(name), name)
	}
}

// minimal hides what a backend can do beyond the three methods.
type minimal struct{ secret.SecretBackend }

package secrettest

import (
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

func (s *suite) missing(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_id")
	wantMissing(t, b, key)
	mustSet(t, b, key+"/below", "x")
	s.cleanup(t, b, key+"/below")
	wantMissing(t, b, key) // a folder is no value
	wantMissing(t, b, s.prefix())
}

// confusable are the ends of keys that an encoding might map to one name.
var confusable = []string{
	"a", "A", "a/b", "a/B", "A/b", "a.b", "a-b", "a_b", "a__b", "a--b", "a..b", "a.-b", "a_-b", "a-_b", "a_.b",
	"ab", "a/b/c", "a/b.c", "a.b/c", "a/bc", "ab/c", "a_/b", "a/_b", "a_/_b", "a___b", "a_b/c", "a/b_c",
	"a_2f_b", "a_2Fb", "a-2fb", "a.2fb", "a0", "a00", "a-0", "-a", "_a", ".a", "a-", "a_", "a.", "...", "a/...", ".../a",
	"data", "data/a", "metadata/a", "value", "client_id", "client_secret", "managed_by", "latest", "versions/1",
	"a-AbCdEf", "a-abcdef", "a-123456",
}

func (s *suite) distinctKeys(t *testing.T, b secret.SecretBackend) {
	prefix := s.prefix()
	for _, rest := range confusable {
		s.cleanup(t, b, prefix+"/"+rest)
		mustSet(t, b, prefix+"/"+rest, "the value of "+rest)
	}
	for _, rest := range confusable {
		wantValue(t, b, prefix+"/"+rest, "the value of "+rest)
	}
}

func (s *suite) legalKeys(t *testing.T, b secret.SecretBackend) {
	prefix := s.prefix()
	fill := func(n int) string { return strings.Repeat("k", n) }
	ends := map[string]string{
		"TwoSegments":       "/client_secret",
		"EightSegments":     "/2/3/4/5/6/7/8",
		"LongestSegment":    "/" + fill(secret.MaxSegmentBytes),
		"LongestKey":        "/" + fill(secret.MaxSegmentBytes) + "/" + fill(secret.MaxKeyBytes-len(prefix)-secret.MaxSegmentBytes-2),
		"LongestKeyOfEight": "/2/3/4/5/6/" + fill(90) + "/" + fill(secret.MaxKeyBytes-len(prefix)-len("/2/3/4/5/6/")-91),
		"EveryCharacter":    "/ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-",
		"OneSegment":        "",
		"Hyphens":           "/---",
		"Underscores":       "/___/__/_",
		"Dots":              "/.../....",
		"UUID":              "/id.0b6cf4a4-6a63-4b8e-9f0f-3f5f1c2d4e5f/client_id",
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			key := prefix + end
			if err := secret.CheckKey(key); err != nil {
				t.Fatalf("the suite's own key: %v", err)
			}
			s.cleanup(t, b, key)
			mustSet(t, b, key, "value of "+name)
			wantValue(t, b, key, "value of "+name)
			mustDelete(t, b, key)
			wantMissing(t, b, key)
		})
	}
}

var illegalKeys = []string{
	"", "/", "//", "a/", "/a", "a//b", ".", "..", "./a", "../a", "a/.", "a/..", "a/../b", "a/./b", "a b", " a", "a ", "a\n", "a\tb",
	"a\x00b", "ä", "a\xff", "日本", "a%2Fb", "a\\b", "a:b", "a*", "a+", "a?b", "a#b", "{a}", "$a", "~", "a@1", "a,b", "a=b", "a&b",
	"1/2/3/4/5/6/7/8/9", "a\r\nX-Vault-Token: b",
	strings.Repeat("k", secret.MaxSegmentBytes+1),
	strings.Repeat("k", 100) + "/" + strings.Repeat("k", 100),
}

func (s *suite) illegalKeys(t *testing.T, b secret.SecretBackend) {
	for _, key := range illegalKeys {
		for _, c := range calls(b) {
			wantOnly(t, c.do(bounded(t), key, "value", owner), secret.ErrInvalid, c.name+" of the key "+shorten(key))
		}
	}
}

func (s *suite) deletes(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_secret")
	for _, value := range []string{"first", "second", "third"} {
		mustSet(t, b, key, value)
		wantValue(t, b, key, value)
	}
	mustDelete(t, b, key)
	wantMissing(t, b, key)
	wantMissing(t, b, key)
}

func (s *suite) deleteMissing(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_secret")
	mustDelete(t, b, key)
	mustSet(t, b, key, "value")
	for range 3 {
		mustDelete(t, b, key)
	}
	wantMissing(t, b, key)
}

func (s *suite) setAfterDelete(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_secret")
	for range 3 {
		value := s.value()
		mustSet(t, b, key, value)
		wantValue(t, b, key, value)
		mustDelete(t, b, key)
		wantMissing(t, b, key)
	}
}

func (s *suite) deleteOne(t *testing.T, b secret.SecretBackend) {
	prefix := s.prefix()
	rest := []string{"a", "a/b", "a/b/c", "ab", "a.b", "b", "a-b"}
	for _, r := range rest {
		s.cleanup(t, b, prefix+"/"+r)
		mustSet(t, b, prefix+"/"+r, r)
	}
	mustDelete(t, b, prefix+"/a")
	mustDelete(t, b, prefix+"/a/b")
	wantMissing(t, b, prefix+"/a")
	wantMissing(t, b, prefix+"/a/b")
	for _, r := range rest[2:] {
		wantValue(t, b, prefix+"/"+r, r)
	}
}

package secrettest

import (
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

// legalValues are values that stores, encodings and careless code change.
var legalValues = map[string]string{
	"OneByte":         "x",
	"Spaces":          "  spaces before and after \t ",
	"OneSpace":        " ",
	"Newlines":        "\nline\r\nline\rline\n\n",
	"Quotes":          "\"double\" 'single' `back` \\backslash\\ \\n \\u0041",
	"JSONObject":      `{"value":"inner","data":{"value":1},"n":1.0e3}`,
	"JSONString":      `"quoted"`,
	"JSONNull":        "null",
	"Number":          "0012.50",
	"Base64":          "c2VjcmV0LXZhbHVlCg==",
	"Markup":          "<b>&amp;</b> %2F%20+%s%d ${HOME} $(id) {{.}} #hash ?a=b",
	"Emoji":           "🔐👩‍👩‍👧‍👦🇩🇪",
	"Scripts":         "naïve 日本語 עברית ﷽",
	"NotNormalised":   "e\u0301 \u00e9 \u212b \ufb01",
	"Control":         "\x00\x01\x1b[0m\x7f\u0085",
	"Separators":      "\ufeff\u2028\u2029\u200b\u202e",
	"Replacement":     "\ufffd\U0010ffff",
	"MaxLength":       strings.Repeat("m", secret.MaxValueBytes),
	"MaxLengthEmoji":  strings.Repeat("🔐", secret.MaxValueBytes/len("🔐")),
	"MaxLengthEscape": strings.Repeat("\"\x01\\<", secret.MaxValueBytes/4),
}

var illegalValues = map[string]string{
	"Empty":       "",
	"TooLong":     strings.Repeat("canary-l", secret.MaxValueBytes/8) + "x",
	"NotUTF8":     "canary-\xff\xfe",
	"CutUTF8":     "canary-🔐"[:len("canary-🔐")-1],
	"Surrogate":   "canary-\xed\xa0\x80",
	"OverlongNUL": "canary-\xc0\x80",
}

func (s *suite) roundTrip(t *testing.T, b secret.SecretBackend) {
	for name, value := range legalValues {
		t.Run(name, func(t *testing.T) {
			key := s.key(t, b, "client_secret")
			mustSet(t, b, key, value)
			wantValue(t, b, key, value)
		})
	}
}

func (s *suite) illegalValues(t *testing.T, b secret.SecretBackend) {
	for name, value := range illegalValues {
		key := s.key(t, b, "client_secret")
		for _, c := range calls(b) {
			if c.value {
				wantOnly(t, c.do(bounded(t), key, value, owner), secret.ErrInvalid, c.name+" of a value that is "+name)
			}
		}
		wantMissing(t, b, key)
	}
}

func (s *suite) refusedSet(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_secret")
	mustSet(t, b, key, "the value before")
	for _, value := range illegalValues {
		_ = b.Set(bounded(t), key, value)
		wantValue(t, b, key, "the value before")
	}
}

func (s *suite) replaces(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_secret")
	for _, value := range []string{"first, the longer one", "second", "third 🔐", "second", "second"} {
		mustSet(t, b, key, value)
		wantValue(t, b, key, value)
	}
}

func (s *suite) readAfterWrite(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_secret")
	for range 10 {
		// Before each write a read, which a cache would remember.
		_, _ = b.Get(bounded(t), key)
		value := s.value()
		mustSet(t, b, key, value)
		wantValue(t, b, key, value)
		wantValue(t, b, key, value)
	}
}

package secrettest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

func (s *suite) messages(t *testing.T, b secret.SecretBackend) {
	key := s.key(t, b, "client_secret")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range calls(b) {
		failures := map[string]error{"a ctx that has ended": c.do(ended, key, "value", owner)}
		if c.value {
			failures["an illegal value"] = c.do(bounded(t), key, "", owner)
		}
		if !c.value && !slices.Contains([]string{"Delete", "RemoveVersion", "RemoveRemnant"}, c.name) {
			failures["a missing key"] = c.do(bounded(t), key, "value", owner)
		}
		for why, err := range failures {
			s.wantNamed(t, c, key, err, why)
		}
	}
}

// wantNamed checks that the message names what it has to.
func (s *suite) wantNamed(t *testing.T, c call, key string, err error, why string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s with %s: no error", c.name, why)
		return
	}
	text := err.Error()
	if !strings.Contains(text, key) {
		t.Errorf("%s with %s: the message does not name the key: %s", c.name, why, text)
	}
	if !strings.Contains(text, s.name) {
		t.Errorf("%s with %s: the message does not name the backend: %s", c.name, why, text)
	}
	if !slices.ContainsFunc(c.words, func(w string) bool { return strings.Contains(strings.ToLower(text), w) }) {
		t.Errorf("%s with %s: the message does not name the operation: %s", c.name, why, text)
	}
}

func (s *suite) errorsShowNoValue(t *testing.T, b secret.SecretBackend) {
	key, empty := s.key(t, b, "client_secret"), s.key(t, b, "empty")
	before := s.value()
	mustSet(t, b, key, before)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range calls(b) {
		value := s.value()
		for _, err := range []error{
			c.do(ended, key, value, owner),
			c.do(ended, empty, value, owner),
			c.do(bounded(t), "no key", value, owner),
			c.do(bounded(t), empty, value+strings.Repeat(value, secret.MaxValueBytes/len(value)), owner),
			c.do(bounded(t), empty, value+"\xff", owner),
			c.do(bounded(t), key, value, "no owner"),
		} {
			wantNoTrace(t, c.name, err, before)
			wantNoTrace(t, c.name, err, value)
		}
	}
}

// wantNoTrace checks that err, however it is printed, shows nothing of value.
func wantNoTrace(t *testing.T, what string, err error, value string) {
	t.Helper()
	if err == nil {
		return
	}
	if form := trace(fmt.Sprintf("%v\n%+v\n%#v\n%q", err, err, err, err), value); form != "" {
		t.Errorf("%s: the error shows the value (%s)", what, form)
	}
}

// trace returns the form in which text shows value, "" if it does not.
func trace(text, value string) string {
	sum := sha256.Sum256([]byte(value))
	asJSON, _ := json.Marshal(value) // a string can be marshalled
	for form, s := range map[string]string{
		"as it is":     value,
		"its core":     strings.TrimRight(value, "+/="),
		"in quotes":    strings.Trim(strconv.Quote(value), `"`),
		"as JSON":      strings.Trim(string(asJSON), `"`),
		"in base64":    strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(value)), "="),
		"in base64url": strings.TrimRight(base64.URLEncoding.EncodeToString([]byte(value)), "="),
		"in hex":       hex.EncodeToString([]byte(value)),
		"URL-encoded":  url.QueryEscape(value),
		"hashed":       hex.EncodeToString(sum[:]),
		"as bytes":     strings.Trim(fmt.Sprint([]byte(value)), "[]"),
	} {
		if strings.Contains(text, s) {
			return form
		}
	}
	return ""
}

func (s *suite) printed(t *testing.T, b secret.SecretBackend) {
	key, value := s.key(t, b, "client_secret"), s.value()
	mustSet(t, b, key, value)
	wantValue(t, b, key, value)
	var text bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&text, verb+"\n", b)
		fmt.Fprintf(&text, verb+"\n", struct{ Exported, hidden any }{b, b})
	}
	slog.New(slog.NewTextHandler(&text, nil)).Info("backend", "b", b)
	slog.New(slog.NewJSONHandler(&text, nil)).Info("backend", "b", b)
	if asJSON, err := json.Marshal(b); err == nil {
		text.Write(asJSON)
	}
	if form := trace(text.String(), value); form != "" {
		t.Errorf("the backend shows the value when it is printed (%s)", form)
	}
}

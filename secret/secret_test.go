package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nexus-broker/nexus-broker/secret"
)

var sentinels = []error{
	secret.ErrNotFound, secret.ErrDenied, secret.ErrUnavailable, secret.ErrThrottled, secret.ErrInvalid,
	secret.ErrExists, secret.ErrChanged, secret.ErrLogin,
}

func TestSentinelsAreDistinct(t *testing.T) {
	for i, a := range sentinels {
		for j, b := range sentinels {
			if errors.Is(a, b) != (i == j) {
				t.Errorf("errors.Is(%q, %q) = %t", a, b, i != j)
			}
		}
	}
}

func TestCheckKey(t *testing.T) {
	for _, key := range []string{
		"a", "google/client_id", "A-Z_a.z/0-9", "...", "a..b", "-", "_", "1/2/3/4/5/6/7/8",
		strings.Repeat("k", secret.MaxSegmentBytes),
		strings.Repeat("k", secret.MaxSegmentBytes) + "/" + strings.Repeat("k", secret.MaxKeyBytes-secret.MaxSegmentBytes-1),
	} {
		if err := secret.CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.", "a b", "a\n", "a\x00", "ä", "a%2e", "a\\b", "a:b", "*",
		"1/2/3/4/5/6/7/8/9",
		strings.Repeat("k", secret.MaxSegmentBytes+1),
		strings.Repeat("k", 100) + "/" + strings.Repeat("k", secret.MaxKeyBytes-100),
	} {
		err := secret.CheckKey(key)
		if !errors.Is(err, secret.ErrInvalid) {
			t.Errorf("%q: %v", key, err)
			continue
		}
		if len(key) <= secret.MaxKeyBytes && !strings.Contains(err.Error(), fmt.Sprintf("%q", key)) {
			t.Errorf("the error does not quote the key %q: %v", key, err)
		}
		if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 2000 {
			t.Errorf("the error is not fit for a log: %q", err)
		}
	}
}

// FuzzCheckKey compares CheckKey with the grammar, written once more.
func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{"google/client_id", "", "a//b", "..", "a/../b", "1/2/3/4/5/6/7/8/9", "a b", "ä/ö", strings.Repeat("k", 129)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		segments := strings.Split(key, "/")
		legal := len(key) <= 200 && len(segments) <= 8
		for _, s := range segments {
			legal = legal && len(s) >= 1 && len(s) <= 128 && s != "." && s != ".." &&
				strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
		}
		err := secret.CheckKey(key)
		if (err == nil) != legal {
			t.Errorf("CheckKey(%q) = %v, want legal: %t", key, err, legal)
		}
		if err != nil && (!errors.Is(err, secret.ErrInvalid) || !utf8.ValidString(err.Error())) {
			t.Errorf("CheckKey(%q) = %q", key, err)
		}
	})
}

func TestCheckValue(t *testing.T) {
	for _, value := range []string{"x", " ", "\n", "\x00", "🔐", strings.Repeat("x", secret.MaxValueBytes), "\ufffd"} {
		if err := secret.CheckValue(value); err != nil {
			t.Errorf("%.10q: %v", value, err)
		}
	}
	for _, value := range []string{"", "canary\xff", strings.Repeat("canary", secret.MaxValueBytes/6+1), "canary\xed\xa0\x80"} {
		err := secret.CheckValue(value)
		if !errors.Is(err, secret.ErrInvalid) {
			t.Errorf("%.10q: %v", value, err)
		} else if strings.Contains(err.Error(), "canary") {
			t.Errorf("the error shows the value: %v", err)
		}
	}
}

func TestCheckOwner(t *testing.T) {
	for _, owner := range []string{"x", "/", "..", "nexus-broker/0b6c/1", strings.Repeat("x", secret.MaxOwnerBytes)} {
		if err := secret.CheckOwner(owner); err != nil {
			t.Errorf("%q: %v", owner, err)
		}
	}
	for _, owner := range []string{"", " ", "a b", "a\n", "ä", "a:b", strings.Repeat("x", secret.MaxOwnerBytes+1)} {
		if err := secret.CheckOwner(owner); !errors.Is(err, secret.ErrInvalid) {
			t.Errorf("%q: %v", owner, err)
		}
	}
}

func TestThrottled(t *testing.T) {
	err := fmt.Errorf("vault: %w", secret.Throttled("slow down", 7*time.Second))
	if !errors.Is(err, secret.ErrThrottled) || err.Error() != "vault: slow down" {
		t.Errorf("%v", err)
	}
	if wait, ok := secret.RetryAfter(err); !ok || wait != 7*time.Second {
		t.Errorf("RetryAfter = %s, %t", wait, ok)
	}
	for _, other := range []error{nil, secret.ErrThrottled, secret.ErrUnavailable, secret.Throttled("slow down", 0), secret.Throttled("x", -time.Second)} {
		if wait, ok := secret.RetryAfter(other); ok || wait != 0 {
			t.Errorf("RetryAfter(%v) = %s, %t", other, wait, ok)
		}
	}
	for _, s := range sentinels {
		if errors.Is(err, s) != errors.Is(s, secret.ErrThrottled) {
			t.Errorf("it is %v", s)
		}
	}
}

const canary = "canary-c4n4ry"

// carriers hold a Value in every way that a careless type might.
func carriers() map[string]any {
	v := secret.NewValue(canary)
	type exported struct{ V secret.Value }
	type hidden struct{ v secret.Value }
	type pointer struct{ v *secret.Value }
	type nested struct {
		A exported
		h hidden
		m map[string]secret.Value
		s []secret.Value
		a [1]secret.Value
		i any
	}
	return map[string]any{
		"value": v, "pointer": &v, "exported": exported{v}, "hidden": hidden{v}, "pointer field": pointer{&v},
		"pointer to struct": &hidden{v}, "slice": []secret.Value{v}, "array": [2]secret.Value{v, v},
		"map value": map[string]secret.Value{"k": v}, "map key": map[secret.Value]int{v: 1}, "interface": []any{v, &v},
		"nested": nested{exported{v}, hidden{v}, map[string]secret.Value{"k": v}, []secret.Value{v}, [1]secret.Value{v}, v},
		"item":   secret.Item{Value: v, Version: "1", Owner: "o"},
		"error":  fmt.Errorf("x %v %s %+v: %w", v, v, hidden{v}, secret.ErrInvalid),
	}
}

func TestAValueIsNotShown(t *testing.T) {
	for name, c := range carriers() {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%t", "%c", "%U", "%e", "%b", "%o", "%T", "%20.3s", "%w", "%!"} {
			fmt.Fprintf(&out, verb+"\n", c)
		}
		fmt.Fprint(&out, c)
		fmt.Fprintln(&out, c)
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).With("with", c).Error("message", "attr", c, slog.Group("g", "in", c))
		}
		if b, err := json.Marshal(c); err == nil {
			out.Write(b)
		}
		if b, err := xml.Marshal(c); err == nil {
			out.Write(b)
		}
		for _, form := range []string{
			canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("% x", canary),
			strings.Trim(fmt.Sprint([]byte(canary)), "[]"), "Y2FuYXJ5",
		} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%s shows it as %q:\n%s", name, form, out.String())
			}
		}
	}
}

func TestAValueSaysThatItIsThere(t *testing.T) {
	full, empty, zero := secret.NewValue(canary), secret.NewValue(""), secret.Value{}
	if full.String() != "[redacted]" || empty.String() != "" || zero.String() != "" {
		t.Errorf("%q %q %q", full, empty, zero)
	}
	if full.Reveal() != canary || empty.Reveal() != "" || zero.Reveal() != "" {
		t.Error("Reveal does not return the string")
	}
	if full.IsZero() || !empty.IsZero() || !zero.IsZero() {
		t.Error("IsZero is wrong")
	}
	if !full.Equal(secret.NewValue(canary)) || full.Equal(zero) || !empty.Equal(zero) {
		t.Error("Equal is wrong")
	}
	b, err := json.Marshal(map[string]secret.Value{"a": full, "b": zero})
	if err != nil || string(b) != `{"a":"[redacted]","b":""}` {
		t.Errorf("%s, %v", b, err)
	}
}

// paths is a store whose paths are what they look like, and whose own place is "own".
type paths struct{ secret.ReferenceReader }

func (paths) ReferenceSegments(path string) ([]string, error) {
	if path == "wrong" {
		return nil, secret.ErrInvalid
	}
	return strings.Split(path, "/"), nil
}

func (paths) ReferencePrefix() []string { return []string{"own"} }

func TestReferencePlaces(t *testing.T) {
	for _, c := range []struct {
		prefixes, want string
		err            error
	}{
		{"a/b,own/x,c/,a,ab,c,own", "[[c] [a] [ab]]", nil},
		{"wrong,a", "[[a]]", secret.ErrInvalid}, // the others are no less places
	} {
		places, err := secret.ReferencePlaces(paths{}, strings.Split(c.prefixes, ","))
		if got := fmt.Sprint(places); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %s, %v", c.prefixes, got, err)
		}
	}
}

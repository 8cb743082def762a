package hashicorpvault_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/hashicorpvault"
)

const denied = `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`

// foreign is part of every answer that must not be quoted.
const foreign = "canary-of-a-foreign-body"

func TestAnswersAndTheirSentinels(t *testing.T) {
	t.Parallel()
	const (
		html    = "<!doctype html><html>" + foreign + "</html>"
		deleted = `{"request_id":"1","data":{"data":null,"metadata":{"version":3,"deletion_time":"2026-01-01T00:00:00Z","destroyed":false}}}`
		v1Path  = `{"request_id":"1","data":null,"warnings":["Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."]}`
		route   = `{"errors":["no handler for route \"secret/data/a/b\". route entry not found."]}`
		sealed  = `{"errors":["Vault is sealed"]}`
	)
	for _, test := range []struct {
		name    string
		version int
		status  int
		body    string
		want    error
		says    string
	}{
		{"nothing there", 2, 404, `{"errors":[]}`, secret.ErrNotFound, ""},
		{"nothing there", 1, 404, `{"errors":[]}`, secret.ErrNotFound, ""},
		{"a deleted version", 2, 404, deleted, secret.ErrNotFound, ""},
		{"no such mount", 2, 404, route, secret.ErrUnavailable, "check the mount"},
		{"no such mount", 1, 404, route, secret.ErrUnavailable, "check the mount"},
		{"a proxy's 404", 2, 404, html, secret.ErrUnavailable, "not Vault's"},
		{"an empty 404", 2, 404, "", secret.ErrUnavailable, "not Vault's"},
		{"a JSON API's 404", 2, 404, `{"message":"` + foreign + `"}`, secret.ErrUnavailable, "not Vault's"},
		{"a JSON API's other 404", 2, 404, `{"errors":[{"detail":"` + foreign + `"}]}`, secret.ErrUnavailable, "not Vault's"},
		{"an empty object", 2, 404, `{}`, secret.ErrUnavailable, "not Vault's"},
		{"version 2 behind version 1", 1, 404, v1Path, secret.ErrUnavailable, "VAULT_KV_VERSION"},
		{"version 1 behind version 2", 2, 200, `{"request_id":"1","data":{"value":"` + foreign + `"}}`, secret.ErrUnavailable, "VAULT_KV_VERSION"},

		{"sealed", 2, 503, sealed, secret.ErrUnavailable, "unseal"},
		{"standby", 2, 400, `{"errors":["Vault is in standby mode"]}`, secret.ErrUnavailable, "standby"},
		{"performance standby", 2, 473, `{"errors":[]}`, secret.ErrUnavailable, "standby"},
		{"DR secondary", 2, 472, `{"errors":[]}`, secret.ErrUnavailable, "disaster recovery"},
		{"DR secondary in words", 2, 400, `{"errors":["path disabled in replication DR secondary mode"]}`, secret.ErrUnavailable, "disaster recovery"},
		{"upgrading", 2, 400, `{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period"]}`, secret.ErrUnavailable, "upgraded"},
		{"internal error", 2, 500, `{"errors":["1 error occurred: ` + foreign + `"]}`, secret.ErrUnavailable, "status 500"},
		{"maintenance", 2, 503, html, secret.ErrUnavailable, "not Vault's"},
		{"bad gateway", 2, 502, html, secret.ErrUnavailable, "not Vault's"},
		{"gateway timeout", 2, 504, "", secret.ErrUnavailable, "not Vault's"},
		{"overloaded", 2, 503, `{"errors":["overloaded, try again later"]}`, secret.ErrUnavailable, "503"},
		{"lags behind", 2, 412, `{"errors":["required index state not present"]}`, secret.ErrUnavailable, "caught up"},
		{"rate limit", 2, 429, `{"errors":["rate limit quota exceeded"]}`, secret.ErrThrottled, "quota"},
		{"a proxy's rate limit", 2, 429, html, secret.ErrThrottled, "quota"},
		{"denied", 2, 403, denied, secret.ErrDenied, "secret/data/a/b"},
		{"denied", 1, 403, denied, secret.ErrDenied, "read secret/a/b"},
		{"a firewall's 403", 2, 403, html, secret.ErrUnavailable, "not Vault's"},
		{"a proxy's 401", 2, 401, html, secret.ErrUnavailable, "not Vault's"},
		{"rejected", 2, 400, `{"errors":["` + foreign + `"]}`, secret.ErrInvalid, "rejects"},
		{"unsupported", 2, 405, `{"errors":["1 error occurred:\n\t* unsupported operation\n\n"]}`, secret.ErrUnavailable, "check the mount"},

		{"HTML with 200", 2, 200, html, secret.ErrUnavailable, "not Vault's"},
		{"nothing with 200", 2, 200, "", secret.ErrUnavailable, "not Vault's"},
		{"other JSON with 200", 2, 200, `{"data":{"data":{"value":"` + foreign + `"}}}`, secret.ErrUnavailable, "not Vault's"},
		{"a list with 200", 2, 200, `["` + foreign + `"]`, secret.ErrUnavailable, "not Vault's"},
		{"cut off JSON", 2, 200, `{"request_id":"1","data":{"data":{"value":"` + foreign, secret.ErrUnavailable, "not Vault's"},
		{"204 to a read", 2, 204, "", secret.ErrUnavailable, "KV engine"},
		{"204 to a read", 1, 204, "", secret.ErrUnavailable, "KV engine"},
		{"no data", 2, 200, `{"request_id":"1","data":null}`, secret.ErrUnavailable, "KV engine"},
		{"data of another form", 2, 200, `{"request_id":"1","data":{"data":["` + foreign + `"],"metadata":{"version":1}}}`, secret.ErrUnavailable, "KV engine"},
		{"data of another form", 1, 200, `{"request_id":"1","data":"` + foreign + `"}`, secret.ErrUnavailable, "KV engine"},

		{"no field", 2, 200, secretOf(`{}`), secret.ErrInvalid, "no field at all"},
		{"other fields", 2, 200, secretOf(`{"id":"` + foreign + `","note":"` + foreign + `"}`), secret.ErrInvalid, `"id", "note"`},
		{"other fields", 1, 200, `{"request_id":"1","data":{"id":"` + foreign + `"}}`, secret.ErrInvalid, `"id"`},
		{"a number", 2, 200, secretOf(`{"value":4711}`), secret.ErrInvalid, "not a string"},
		{"an object", 2, 200, secretOf(`{"value":{"x":"` + foreign + `"}}`), secret.ErrInvalid, "not a string"},
		{"null", 2, 200, secretOf(`{"value":null,"b":"` + foreign + `"}`), secret.ErrInvalid, "not a string"},
		{"an empty value", 2, 200, secretOf(`{"value":""}`), secret.ErrInvalid, "empty"},
		{"a value that is too long", 2, 200, secretOf(`{"value":"` + foreign + strings.Repeat("x", secret.MaxValueBytes) + `"}`), secret.ErrInvalid, "longer"},
		{"many fields", 2, 200, secretOf(manyFields()), secret.ErrInvalid, "and 84 more"},
	} {
		t.Run(fmt.Sprintf("%s v%d", test.name, test.version), func(t *testing.T) {
			v := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/auth/token/lookup-self" {
					answer(w, 200, `{"request_id":"1","data":{"ttl":0}}`)
					return
				}
				answer(w, test.status, test.body)
			})
			b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: test.version, Login: staticToken}, hashicorpvault.Options{})
			_, err := b.Get(t.Context(), "a/b")
			if !isOnly(t, err, test.want) {
				t.Errorf("%v; want %v", err, test.want)
			}
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.HasPrefix(err.Error(), "hashicorp-vault: get secret/a/b: ") {
				t.Errorf("the message is %v", err)
			}
			if strings.Contains(fmt.Sprintf("%+v %#v", err, err), foreign) {
				t.Errorf("the answer is quoted: %v", err)
			}
			if strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("the message has several lines: %q", err)
			}
		})
	}
}

func secretOf(fields string) string {
	return `{"request_id":"1","data":{"data":` + fields + `,"metadata":{"version":1}}}`
}

func manyFields() string {
	var fields []string
	for i := range 100 {
		fields = append(fields, fmt.Sprintf(`"f%02d%s":"x"`, i, strings.Repeat("long", 50)))
	}
	return "{" + strings.Join(fields, ",") + "}"
}

// isOnly reports whether want is the one sentinel that err wraps; nil is none.
func isOnly(t *testing.T, err, want error) bool {
	t.Helper()
	for _, s := range sentinels {
		if errors.Is(err, s) != errors.Is(want, s) {
			return false
		}
	}
	return true
}

var sentinels = []error{secret.ErrNotFound, secret.ErrDenied, secret.ErrUnavailable, secret.ErrThrottled, secret.ErrInvalid}

func TestATroubledServerIsAskedOnce(t *testing.T) {
	t.Parallel()
	for _, status := range []int{403, 429, 500, 503} {
		v := newFakeVault(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, status, `{"errors":["Vault is sealed"]}`) })
		b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
		if _, err := b.Get(t.Context(), "a/b"); err == nil {
			t.Error("no error")
		}
		if n := len(v.seen("/v1/secret/data/a/b")); n != 1 {
			t.Errorf("status %d: %d requests", status, n)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "0": 0, "-3": 0, "soon": 0, "99999999999": 0, "3600": time.Hour,
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat):  time.Hour,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
	} {
		v := newFakeVault(t, func(w http.ResponseWriter, _ *http.Request) {
			if header != "" {
				w.Header().Set("Retry-After", header)
			}
			answer(w, 429, `{"errors":["rate limit quota exceeded"]}`)
		})
		b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
		_, err := b.Get(t.Context(), "a/b")
		got, ok := secret.RetryAfter(err)
		if ok != (want > 0) || (got-want).Abs() > 5*time.Second {
			t.Errorf("Retry-After %q is read as %s, want %s (%v)", header, got, want, err)
		}
	}
}

func TestTolerantReading(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ key, fields, value, owner string }{
		{"google/client_id", `{"value":"v"}`, "v", ""},
		{"google/client_id", `{"client_id":"c"}`, "c", ""},
		{"google/client_id", `{"client_id":"c","value":"v"}`, "v", ""},
		{"google/client_id", `{"client_id":"c","client_secret":"s"}`, "c", ""},
		{"google/client_secret", `{"client_id":"c","client_secret":"s"}`, "s", ""},
		{"google/client_id", `{"value":"v","managed_by":"nexus/1","note":"by hand"}`, "v", "nexus/1"},
		{"google/client_id", `{"value":"v","managed_by":"not an owner"}`, "v", ""},
		{"google/client_id", `{"value":"v","managed_by":7}`, "v", ""},
		{"google/managed_by", `{"managed_by":"x","value":"v"}`, "v", "x"},
	} {
		v := newFakeVault(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, secretOf(test.fields)) })
		b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
		item, err := b.Read(t.Context(), test.key)
		if err != nil || item.Value.Reveal() != test.value || item.Owner != test.owner || item.Version != "1" {
			t.Errorf("%s in %s: %q owned by %q, version %q, %v", test.key, test.fields, item.Value.Reveal(), item.Owner, item.Version, err)
		}
	}
	v := newFakeVault(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, secretOf(`{"managed_by":"x"}`)) })
	b := open(t, hashicorpvault.Config{Address: v.URL, KVVersion: 2, Login: staticToken}, hashicorpvault.Options{})
	if _, err := b.Get(t.Context(), "google/managed_by"); !errors.Is(err, secret.ErrInvalid) {
		t.Errorf("the owner was taken for the value: %v", err)
	}
}

func TestWhatDetectionAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, body string
		status     int
		want       error // nil: it works
		says       string
	}{
		{"version 2", `{"request_id":"1","data":{"type":"kv","path":"secret/","options":{"version":"2"}}}`, 200, nil, ""},
		{"in a namespace", `{"request_id":"1","data":{"type":"kv","path":"team/secret/","options":{"version":"2"}}}`, 200, nil, ""},
		{"another engine", `{"request_id":"1","data":{"type":"transit","path":"secret/","options":null}}`, 200, secret.ErrUnavailable, "no KV engine"},
		{"a folder", `{"request_id":"1","data":{"type":"kv","path":"","options":{"version":"2"}}}`, 200, secret.ErrUnavailable, "into the prefix"},
		{"denied", `{"errors":["preflight capability check returned 403, please ensure client's policies grant access to path \"secret/\""]}`, 403, secret.ErrDenied, "VAULT_KV_VERSION"},
		{"sealed", `{"errors":["Vault is sealed"]}`, 503, secret.ErrUnavailable, "unseal"},
		{"garbage", `{"request_id":"1","data":"x"}`, 200, secret.ErrUnavailable, "not Vault's"},
		{"HTML", `<html>`, 200, secret.ErrUnavailable, "not Vault's"},
	} {
		v := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/sys/internal/ui/mounts/secret":
				answer(w, test.status, test.body)
			case "/v1/auth/token/lookup-self":
				answer(w, 200, `{"request_id":"1","data":{"ttl":0}}`)
			default:
				oneSecret(w, r)
			}
		})
		b := open(t, hashicorpvault.Config{Address: v.URL, Login: staticToken}, hashicorpvault.Options{})
		for range 2 {
			_, err := b.Get(t.Context(), "a/b")
			if !isOnly(t, err, test.want) || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		if n := len(v.seen("/v1/sys/internal/ui/mounts/secret")); test.want == nil && n != 1 {
			t.Errorf("%s: asked %d times", test.name, n)
		}
	}
}

func TestAMountThatHasBecomeVersion2IsAskedAgain(t *testing.T) {
	t.Parallel()
	var upgraded atomic.Bool
	v := newFakeVault(t, func(w http.ResponseWriter, r *http.Request) {
		version := 1
		if upgraded.Load() {
			version = 2
		}
		switch {
		case r.URL.Path == "/v1/sys/internal/ui/mounts/secret":
			answer(w, 200, `{"request_id":"1","data":{"type":"kv","path":"secret/","options":{"version":"`+strconv.Itoa(version)+`"}}}`)
		case r.URL.Path == "/v1/secret/data/a/b" && version == 2:
			oneSecret(w, r)
		case r.URL.Path == "/v1/secret/a/b" && version == 1:
			answer(w, 200, `{"request_id":"1","data":{"value":"v"}}`)
		case version == 2:
			answer(w, 404, `{"request_id":"1","data":null,"warnings":["Invalid path for a versioned K/V secrets engine"]}`)
		default:
			answer(w, 404, `{"errors":[]}`)
		}
	})
	b := open(t, hashicorpvault.Config{Address: v.URL, Login: staticToken}, hashicorpvault.Options{})
	for range 2 {
		if got, err := b.Get(t.Context(), "a/b"); err != nil || got != "v" {
			t.Errorf("%q, %v", got, err)
		}
		upgraded.Store(true)
	}
}

// FuzzAnswer: whatever answers, a read gives a value only if it is in Vault's form,
// and its error is one of the contract and quotes nothing.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		secretOf(`{"value":"v"}`), secretOf(`{"value":1}`), `{"errors":[]}`, denied, `{"request_id":"1","data":{"value":"x"}}`,
		`{"request_id":"1","data":{"data":null,"metadata":{"version":3}}}`, `{"errors":["Vault is sealed"]}`, `<html>`, ``, `null`, `{`, `{"errors":null}`,
	} {
		for _, status := range []int{200, 204, 400, 403, 404, 429, 503} {
			f.Add(status, body)
		}
	}
	var status atomic.Int32
	var body atomic.Value
	v := fakeFor(f, func(w http.ResponseWriter, _ *http.Request) { answer(w, int(status.Load()), body.Load().(string)) })
	backends := []*hashicorpvault.VaultBackend{}
	for version := range 3 {
		b, err := hashicorpvault.New(hashicorpvault.Config{Address: v, KVVersion: version, Login: staticToken}, hashicorpvault.Options{})
		if err != nil {
			f.Fatal(err)
		}
		f.Cleanup(func() { _ = b.Close() })
		backends = append(backends, b)
	}
	f.Fuzz(func(t *testing.T, s int, text string) {
		if s < 200 || s > 599 || (s >= 300 && s < 400) || s == http.StatusPreconditionFailed {
			return // redirects and what is asked again have tests of their own
		}
		status.Store(int32(s))
		body.Store(text)
		for _, b := range backends {
			item, err := b.Read(t.Context(), "a/client_id")
			switch {
			case err == nil && (s > 299 || item.Value.IsZero() || !utf8.ValidString(item.Value.Reveal())):
				t.Errorf("%d %q: a value", s, text)
			case err != nil && !slices.ContainsFunc(sentinels, func(s error) bool { return isOnly(t, err, s) }):
				t.Errorf("%d %q: %v", s, text, err)
			case err != nil && len(text) > 40 && strings.Contains(err.Error(), text[len(text)/2:]):
				t.Errorf("%d %q is quoted: %v", s, text, err)
			}
		}
	})
}

func fakeFor(tb testing.TB, handler http.HandlerFunc) (url string) {
	s := httptest.NewServer(handler)
	tb.Cleanup(s.Close)
	return s.URL
}

package compat_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
)

// actions are what happens beside a conversation, by the words of a transcript.
var actions = map[string]func(s *stage, t *testing.T, argument string) error{
	// The user follows the URL and agrees, or refuses; {{callback}} is where the provider
	// then sends the browser: path and query.
	"the user agrees at":  func(s *stage, t *testing.T, u string) error { return s.visit(t, u) },
	"the user refuses at": func(s *stage, t *testing.T, u string) error { return s.visit(t, u+"&login_hint=deny") },
	// The provider's next token answer has these members too, or without those that are null.
	"the provider's next answer has": func(s *stage, _ *testing.T, object string) error {
		var members map[string]any
		if err := json.Unmarshal([]byte(object), &members); err != nil {
			return err
		}
		s.provider.Next(oauthtest.Token, oauthtest.Edit(func(fields map[string]any) {
			for name, value := range members {
				fields[name] = value
				if value == nil {
					delete(fields, name)
				}
			}
		}))
		return nil
	},
	"the provider refuses with": func(s *stage, _ *testing.T, answer string) error {
		status, code, _ := strings.Cut(answer, " ")
		n, err := strconv.Atoi(status)
		s.provider.Next(oauthtest.Token, oauthtest.Refuse(n, code))
		return err
	},
	"the provider ends all grants": func(s *stage, _ *testing.T, _ string) error { s.provider.EndGrants(); return nil },
	// What the provider's token endpoint got last.
	"the provider got": func(s *stage, _ *testing.T, want string) error {
		last := s.provider.LastRequest(oauthtest.Token)
		return s.known.match(want, last.Method+" "+last.Body)
	},
	"the provider got the header": func(s *stage, _ *testing.T, want string) error {
		name, value, _ := strings.Cut(want, "=")
		return s.known.match(value, s.provider.LastRequest(oauthtest.Token).Header.Get(name))
	},
	"the API got": func(s *stage, _ *testing.T, want string) error {
		r := s.lastAPIRequest
		return s.known.match(want, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization")+r.Header.Get("X-Token"))
	},
	// Another program that has STATE_KEY verifies {{state}}.
	"another program reads in the state": func(s *stage, _ *testing.T, want string) error {
		body, sum, _ := strings.Cut(s.known["state"], ".")
		payload, err := base64.RawURLEncoding.DecodeString(body)
		if err != nil {
			return err
		}
		if sum != stateMAC(payload) {
			return fmt.Errorf("the signature is not that of STATE_KEY")
		}
		return s.known.match(want, string(payload))
	},
	// Another program that has STATE_KEY signs one, which is {{state}}. NOW-10m1s is a time.
	"another program signs the state": func(s *stage, _ *testing.T, payload string) error {
		for _, age := range []time.Duration{0, 10*time.Minute + time.Second} {
			at := time.Now().Add(-age).UTC().Format(time.RFC3339Nano)
			payload = strings.ReplaceAll(payload, "NOW-"+age.String(), at)
		}
		s.known["state"] = base64.RawURLEncoding.EncodeToString([]byte(payload)) + "." + stateMAC([]byte(payload))
		return nil
	},
	"ten minutes pass for the connection": func(s *stage, t *testing.T, id string) error {
		return s.change(t.Context(), `UPDATE connections SET expires_at = created_at WHERE id = ?`,
			`UPDATE connections SET expires_at = created_at WHERE id = $1`, id)
	},
	"the token is lost of": func(s *stage, t *testing.T, id string) error {
		return s.change(t.Context(), `DELETE FROM tokens WHERE connection_id = ?`, `DELETE FROM tokens WHERE connection_id = $1`, id)
	},
	// The keys' files are read again while the broker runs.
	"the key file now holds":      func(s *stage, _ *testing.T, key string) error { return s.rewrite("key file", key) },
	"the keys file now holds":     func(s *stage, _ *testing.T, keys string) error { return s.rewrite("keys file", keys) },
	"before long this key counts": func(s *stage, t *testing.T, key string) error { return s.until(t, key, http.StatusOK) },
	"before long nobody takes":    func(s *stage, t *testing.T, key string) error { return s.until(t, key, http.StatusForbidden) },
	// The provider's ID tokens have these claims, or not those that are null. "NOW+3m" is a time.
	"the provider's ID tokens claim": func(s *stage, _ *testing.T, object string) error { return claim(s.provider, object) },
	"the tenants' ID tokens claim":   func(s *stage, _ *testing.T, object string) error { return claim(s.tenants, object) },
	"the next ID token is changed after it was signed": func(s *stage, _ *testing.T, _ string) error {
		s.provider.Next(oauthtest.Token, oauthtest.Edit(func(fields map[string]any) {
			parts := strings.Split(fields["id_token"].(string), ".")
			payload, _ := base64.RawURLEncoding.DecodeString(parts[1]) // it has just been made
			parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), "alice", "mallory", 1)))
			fields["id_token"] = strings.Join(parts, ".")
		}))
		return nil
	},
	"the provider's discovery answers": func(s *stage, _ *testing.T, status string) error {
		n, err := strconv.Atoi(status)
		s.provider.Always(oauthtest.Discovery, oauthtest.HTML(n))
		return err
	},
	// What the existing broker's rows have that the API does not write.
	"a program writes the auth_type": func(s *stage, t *testing.T, argument string) error {
		id, authType, _ := strings.Cut(argument, " ")
		return s.change(t.Context(), `UPDATE provider_profiles SET auth_type = ? WHERE id = ?`,
			`UPDATE provider_profiles SET auth_type = $1 WHERE id = $2`, authType, id)
	},
	"a program writes the name": func(s *stage, t *testing.T, argument string) error {
		id, name, _ := strings.Cut(argument, " ")
		return s.change(t.Context(), `UPDATE provider_profiles SET name = ? WHERE id = ?`,
			`UPDATE provider_profiles SET name = $1 WHERE id = $2`, name, id)
	},
	"a program writes an event with nothing but": func(s *stage, t *testing.T, argument string) error {
		id, eventType, _ := strings.Cut(argument, " ")
		return s.change(t.Context(), `INSERT INTO audit_events (id, event_type, created_at) VALUES (?, ?, 1767225600000000)`,
			`INSERT INTO audit_events (id, event_type, created_at) VALUES ($1, $2, '2026-01-01Z')`, id, eventType)
	},
	"events are recorded": func(s *stage, t *testing.T, argument string) error {
		number, eventType, _ := strings.Cut(argument, " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		_, err = s.exec(t.Context(), `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			INSERT INTO audit_events (id, event_type, created_at) SELECT printf('00000000-0000-4000-8000-%012d', i), ?, 1767225600000000 FROM n`,
			`INSERT INTO audit_events (event_type, created_at) SELECT $2, '2026-01-01Z' FROM generate_series(1, $1)`, n, eventType)
		return err
	},
	"the database refuses to mark a connection as failed": func(s *stage, t *testing.T, _ string) error {
		_, err := s.exec(t.Context(), `CREATE TRIGGER refuse BEFORE UPDATE ON connections WHEN NEW.status = 'failed' BEGIN SELECT RAISE(ABORT, 'refused'); END`,
			`CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE 'refused'; END $$ LANGUAGE plpgsql;
			CREATE TRIGGER refuse BEFORE UPDATE ON connections FOR EACH ROW WHEN (NEW.status = 'failed') EXECUTE FUNCTION refuse()`)
		return err
	},
	// A token that cannot be stored is tried again as long as the broker lives.
	"no token can be stored until the broker is ended, during": (*stage).endDuring,
	"forget": func(s *stage, _ *testing.T, names string) error {
		for _, name := range strings.Fields(names) {
			delete(s.known, name)
		}
		return nil
	},
}

// rewrite writes a file as an editor does.
func (s *stage) rewrite(file, content string) error {
	return os.WriteFile(s.known[file], []byte(content+"\n"), 0o600)
}

// until asks with the key until the answer has the status.
func (s *stage) until(t *testing.T, key string, status int) error {
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		resp, err := s.ask(t, message{first: "GET /providers", headers: []string{"X-Api-Key: " + key}})
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode == status {
			return nil
		}
	}
	return fmt.Errorf("not within a minute")
}

var relativeTime = regexp.MustCompile(`"NOW([+-][0-9a-z]+)"`)

// claim lets a provider's ID tokens have these claims.
func claim(at *oauthtest.Server, object string) error {
	object = relativeTime.ReplaceAllStringFunc(object, func(text string) string {
		after, _ := time.ParseDuration(relativeTime.FindStringSubmatch(text)[1])
		return strconv.FormatInt(time.Now().Add(after).Unix(), 10)
	})
	var members map[string]any
	decoder := json.NewDecoder(strings.NewReader(object))
	decoder.UseNumber()
	if err := decoder.Decode(&members); err != nil {
		return err
	}
	at.EditClaims(func(claims map[string]any) {
		for name, value := range members {
			claims[name] = value
			if value == nil {
				delete(claims, name)
			}
		}
	})
	return nil
}

// endDuring ends the broker while the request waits for a token to be stored, and starts
// it again.
func (s *stage) endDuring(t *testing.T, path string) error {
	if _, err := s.exec(t.Context(), `CREATE TRIGGER refuse_tokens BEFORE INSERT ON tokens BEGIN SELECT RAISE(ABORT, 'refused'); END`,
		`CREATE FUNCTION refuse_tokens() RETURNS trigger AS $$ BEGIN RAISE 'refused'; END $$ LANGUAGE plpgsql;
		CREATE TRIGGER refuse_tokens BEFORE INSERT ON tokens FOR EACH ROW EXECUTE FUNCTION refuse_tokens()`); err != nil {
		return err
	}
	before := s.provider.Count(oauthtest.Token)
	ended := make(chan struct{})
	go func() { // its answer does not come, or is cut off
		defer close(ended)
		if resp, err := (&http.Client{Timeout: time.Minute}).Get(s.url + path); err == nil {
			resp.Body.Close()
		}
	}()
	for limit := time.Now().Add(time.Minute); s.provider.Count(oauthtest.Token) == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			return fmt.Errorf("the provider was not asked for a token")
		}
	}
	err := s.end()
	<-ended
	s.start()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // that it gave a request up is a failure
		return err
	}
	return nil
}

func stateMAC(payload []byte) string {
	key, _ := base64.StdEncoding.DecodeString(stateKey) // a constant
	mac := hmac.New(sha256.New, key)
	mac.Write(payload)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// visit is a browser at the provider.
func (s *stage) visit(t *testing.T, authURL string) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, authURL, nil)
	if err != nil {
		return err
	}
	browser := &http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	if s.google != nil {
		browser.Transport = s.google.way
	}
	resp, err := browser.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(to.String(), baseURL) {
		return fmt.Errorf("the provider did not send the browser back: %s", resp.Status)
	}
	s.known["callback"] = to.RequestURI()
	return nil
}

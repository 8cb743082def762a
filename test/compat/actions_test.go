package compat_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
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
		return s.exec(t.Context(), `UPDATE connections SET expires_at = created_at WHERE id = ?`,
			`UPDATE connections SET expires_at = created_at WHERE id = $1`, id)
	},
	"the token is lost of": func(s *stage, t *testing.T, id string) error {
		return s.exec(t.Context(), `DELETE FROM tokens WHERE connection_id = ?`, `DELETE FROM tokens WHERE connection_id = $1`, id)
	},
	"forget": func(s *stage, _ *testing.T, names string) error {
		for _, name := range strings.Fields(names) {
			delete(s.known, name)
		}
		return nil
	},
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
	resp, err := (&http.Client{Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}).Do(req)
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

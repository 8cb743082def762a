package compat_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/nexus-broker/nexus-broker/internal/httpapi/openapitest"
	"github.com/nexus-broker/nexus-broker/internal/oauth/oauthtest"
	"github.com/nexus-broker/nexus-broker/test/servers"
)

// What a broker here is started with. Clients see BASE_URL; nothing listens there.
const (
	baseURL       = "https://broker.example.com"
	apiKey        = "the-key"
	stateKey      = "c3RhdGUta2V5LW9mLXRoZS1jb21wYXQtdGVzdHMuLi4="
	encryptionKey = "ZW5jcnlwdGlvbi1rZXktb2YtY29tcGF0LXRlc3RzLi4="
)

var build struct {
	once   sync.Once
	folder string
	err    error
}

func TestMain(m *testing.M) {
	code := servers.Main(m)
	if build.folder != "" {
		_ = os.RemoveAll(build.folder)
	}
	os.Exit(code)
}

// binary is the broker, built when it is first needed.
func binary(t *testing.T) string {
	t.Helper()
	build.once.Do(func() {
		if build.folder, build.err = os.MkdirTemp("", "nexus-broker-compat-"); build.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", build.folder, "github.com/nexus-broker/nexus-broker/cmd/nexus-broker").CombinedOutput()
		if err != nil {
			build.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	require.NoError(t, build.err)
	return filepath.Join(build.folder, "nexus-broker")
}

// stage is a running broker and what is around it: providers, and an API that knows
// good credentials from bad ones.
type stage struct {
	t              *testing.T
	dsn, url       string
	env            map[string]string // of the broker, beside what every one has
	end            func() error      // ends the broker
	provider       *oauthtest.Server
	tenants        *oauthtest.Server // a provider of many tenants, as Microsoft's
	google         *google
	api            *httptest.Server
	lastAPIRequest *http.Request
	known          names
}

func newStage(t *testing.T, dsn string, env map[string]string) *stage {
	t.Helper()
	clients := []oauthtest.Client{{ID: "test-client", Secret: "test-secret", RedirectURIs: []string{baseURL + "/auth/callback", baseURL + "/oauth/done"}}}
	s := &stage{t: t, dsn: dsn, env: map[string]string{}, provider: oauthtest.Start(t, oauthtest.Options{Clients: clients}),
		tenants: oauthtest.Start(t, oauthtest.Options{Clients: clients, Tenant: "9188040d-6c67-4c5b-b112-36a304b66dad"})}
	s.api = httptest.NewServer(http.HandlerFunc(s.serveAPI))
	t.Cleanup(s.api.Close)
	folder := t.TempDir()
	s.known = names{
		"provider": s.provider.Issuer(), "tenants": strings.TrimSuffix(s.tenants.Issuer(), "/common/v2.0"), "api": s.api.URL,
		"mebibyte": strings.Repeat("x", 1<<20),
		"key file": filepath.Join(folder, "key"), "keys file": filepath.Join(folder, "keys"),
	}
	require.NoError(t, os.WriteFile(s.known["key file"], []byte("of-the-key-file\n"), 0o600))
	require.NoError(t, os.WriteFile(s.known["keys file"], []byte("first-of-many,second-of-many\nthird-of-many\n"), 0o600))
	if slices.Contains(slices.Collect(maps.Values(env)), "{{proxy}}") {
		s.google = newGoogle(t, clients)
		s.known["proxy"], s.known["authority"] = s.google.proxy.URL, s.google.authority
	}
	for name, value := range env {
		filled, err := s.known.fill(value)
		require.NoError(t, err)
		s.env[name] = filled
	}
	s.start()
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Errorf("the broker ended with %v", err)
		}
	})
	return s
}

// serveAPI is an API at which the credential "good" counts.
func (s *stage) serveAPI(w http.ResponseWriter, r *http.Request) {
	s.lastAPIRequest = r
	user, password, _ := r.BasicAuth()
	switch "good" {
	case strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.Header.Get("X-Token"), user + password:
	default:
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// start starts the broker, on the database as it is.
func (s *stage) start() {
	t := s.t
	t.Helper()
	cmd := exec.Command(binary(t), "serve")
	cmd.Dir = t.TempDir()
	settings := map[string]string{
		"DATABASE_URL": s.dsn, "BASE_URL": baseURL, "LISTEN_ADDR": "127.0.0.1:0",
		"ENCRYPTION_KEY": encryptionKey, "STATE_KEY": stateKey, "API_KEY": apiKey, "REQUIRE_API_KEY": "true",
	}
	maps.Copy(settings, s.env)
	cmd.Env = []string{"HOME=" + cmd.Dir}
	for name, value := range settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	log := &servers.Log{}
	out, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	address := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			_, _ = log.Write(append(lines.Bytes(), '\n'))
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
				address <- line.Address
			}
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the broker:\n%s", log)
		}
	})
	s.end = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		return cmd.Wait()
	}
	select {
	case a := <-address:
		s.url = "http://" + a
	case <-read:
		t.Fatalf("the broker has ended:\n%s", log)
	case <-time.After(time.Minute):
		t.Fatalf("the broker does not listen:\n%s", log)
	}
}

// play has the conversation, a subtest for each section.
func (s *stage) play(t *testing.T, tr transcript) {
	for _, part := range tr.sections {
		t.Run(part.title, func(t *testing.T) {
			for _, st := range part.steps {
				if err := s.take(t, st); err != nil {
					t.Fatalf("%s:%d: %v", tr.name, st.line, err)
				}
			}
		})
	}
}

func (s *stage) take(t *testing.T, st step) error {
	if st.verb != "" {
		act, ok := actions[st.verb]
		if !ok {
			return fmt.Errorf("nobody can %q", st.verb)
		}
		argument, err := s.known.fill(st.argument)
		if err != nil {
			return err
		}
		return act(s, t, argument)
	}
	resp, err := s.ask(t, st.request)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return s.check(st, resp, body)
}

// ask sends a request as it stands in the file; without a header of that name it
// carries the API key. The contract is checked too.
func (s *stage) ask(t *testing.T, m message) (*http.Response, error) {
	first, err := s.known.fill(m.first)
	if err != nil {
		return nil, err
	}
	body, err := s.known.fill(strings.Join(m.body, "\n"))
	if err != nil {
		return nil, err
	}
	method, path, _ := strings.Cut(first, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Api-Key", apiKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range m.headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if value == "-" {
			req.Header.Del(name)
		}
	}
	return s.client(t).Do(req)
}

func (s *stage) client(t *testing.T) *http.Client {
	transport := openapitest.Transport(t, http.DefaultTransport)
	if s.env["REDIRECT_PATH"] != "" { // the contract has the callback at its usual path
		transport = http.DefaultTransport
	}
	return &http.Client{
		Timeout: time.Minute, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (s *stage) check(st step, resp *http.Response, body []byte) error {
	if err := s.known.match(st.answer.first, fmt.Sprint(resp.StatusCode)); err != nil {
		return fmt.Errorf("status: %w\n%s", err, body)
	}
	for _, h := range st.answer.headers {
		name, value, _ := strings.Cut(h, ": ")
		if err := s.known.match(value, resp.Header.Get(name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	s.remember(body)
	text := string(body)
	if st.elements != "" {
		var list []json.RawMessage
		if err := json.Unmarshal(body, &list); err != nil {
			return err
		}
		return s.known.match(st.elements, fmt.Sprint(len(list)))
	}
	if len(st.lines) > 0 {
		for _, want := range st.lines {
			if err := s.hasLine(want, text); err != nil {
				return err
			}
		}
		return nil
	}
	if resp.Header.Get("Content-Type") == "application/json" {
		text = strings.TrimSuffix(text, "\n")
	}
	if strings.HasPrefix(text, "[") { // a list has an element a line, which no client can tell
		var compact bytes.Buffer
		if err := json.Compact(&compact, body); err != nil {
			return err
		}
		text = compact.String()
	}
	if err := s.known.match(strings.Join(st.answer.body, ""), text); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

// hasLine looks for one line of a long body.
func (s *stage) hasLine(want, body string) error {
	for line := range strings.Lines(body) {
		if s.known.match(want, strings.TrimSuffix(line, "\n")) == nil {
			return nil
		}
	}
	return fmt.Errorf("no line is like %q", want)
}

// remember keeps the members of an answer that are strings as {{answer.member}}.
func (s *stage) remember(body []byte) {
	var members map[string]any
	if json.Unmarshal(body, &members) != nil {
		return
	}
	for name, value := range members {
		if text, ok := value.(string); ok {
			s.known["answer."+name] = text
		}
	}
}

// change changes one row behind the broker's back.
func (s *stage) change(ctx context.Context, sqlite, postgres string, args ...any) error {
	done, err := s.exec(ctx, sqlite, postgres, args...)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("%d rows instead of one: %w", n, err)
	}
	return nil
}

// exec executes a statement in the broker's database.
func (s *stage) exec(ctx context.Context, sqlite, postgres string, args ...any) (sql.Result, error) {
	driver, source, statement := "pgx", s.dsn, postgres
	if path, ok := strings.CutPrefix(s.dsn, "sqlite:"); ok {
		driver, source, statement = "sqlite", path+"?_pragma=busy_timeout(10000)", sqlite
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return db.ExecContext(ctx, statement, args...)
}

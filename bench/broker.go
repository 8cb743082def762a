package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The keys of every broker here.
const (
	apiKey        = "key-of-the-benchmarks"
	encryptionKey = "encryption-key-of-the-benchmarks"
	stateKey      = "-state--key-of---the-benchmarks-"
)

// env is the environment of a broker.
type env map[string]string

// base is what every broker needs besides a database. All that is not here has its
// default, the log of every request included.
func base() env {
	encode := func(key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) }
	return env{
		"BASE_URL": "http://127.0.0.1:9", "LISTEN_ADDR": "127.0.0.1:0", "API_KEY": apiKey, "REQUIRE_API_KEY": "true",
		"ENCRYPTION_KEY": encode(encryptionKey), "STATE_KEY": encode(stateKey),
	}
}

// with returns e with more set.
func (e env) with(more env) env {
	all := maps.Clone(e)
	maps.Copy(all, more)
	return all
}

// instance is a running process of the binary.
type instance struct {
	url     string
	startup time.Duration // from the start of the process to the first 200 of /health/ready
	cmd     *exec.Cmd
	log     string // file
	done    chan struct{}
	err     error // of the process, after done
	once    sync.Once
	client  *http.Client
}

// start runs a broker and waits until it is ready. It is stopped with the lab, if it
// has not been before.
func (l *lab) start(ctx context.Context, e env) (*instance, error) {
	dir := l.TempDir()
	b := &instance{
		cmd: exec.Command(l.binary, "serve"), log: filepath.Join(dir, "log"), done: make(chan struct{}),
		client: &http.Client{Timeout: time.Minute, CheckRedirect: noRedirect, Transport: &http.Transport{}},
	}
	log, err := os.Create(b.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has it
	b.cmd.Dir, b.cmd.Stdout, b.cmd.Stderr = dir, log, log
	for name, value := range base().with(e) {
		b.cmd.Env = append(b.cmd.Env, name+"="+value)
	}
	began := time.Now()
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { b.err = b.cmd.Wait(); close(b.done) }()
	l.Cleanup(b.stop)
	if err := b.awaitReady(ctx); err != nil {
		return nil, fmt.Errorf("the broker does not become ready: %w: %s", err, b.lastLines())
	}
	b.startup = time.Since(began)
	return b, nil
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// awaitReady waits until the broker listens and /health/ready answers 200. It looks
// every millisecond.
func (b *instance) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if b.url == "" {
			b.url = b.listening()
		}
		if b.url != "" {
			status, err := b.call(ctx, http.MethodGet, "/health/ready", nil, nil)
			if err == nil && status == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.done:
			return fmt.Errorf("it has ended: %w", b.err)
		case <-time.After(time.Millisecond):
		}
	}
}

// listening returns the URL that the broker has logged, "" if it has not yet.
func (b *instance) listening() string {
	log, err := os.ReadFile(b.log)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(log) {
		var entry struct{ Msg, Address string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" {
			return "http://" + entry.Address
		}
	}
	return ""
}

func (b *instance) lastLines() string {
	log, err := os.ReadFile(b.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " ")
}

// stop ends the broker and waits for it.
func (b *instance) stop() {
	b.once.Do(func() {
		b.client.CloseIdleConnections()
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-b.done:
		case <-time.After(40 * time.Second):
			_ = b.cmd.Process.Kill()
			<-b.done
		}
	})
}

// request makes a request with the API key; a body that is not nil is sent as JSON.
func (b *instance) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var payload io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(ctx, method, b.url+path, payload)
	if err == nil {
		r.Header.Set("X-API-Key", apiKey)
	}
	return r, err
}

// call sends a request, decodes the answer into into unless that is nil, and returns
// the status. Nothing is decoded of a failure.
func (b *instance) call(ctx context.Context, method, path string, body, into any) (status int, err error) {
	r, err := b.request(ctx, method, path, body)
	if err != nil {
		return 0, err
	}
	answer, status, err := exchange(b.client, r)
	if err == nil && into != nil && status < 300 {
		err = json.Unmarshal(answer, into)
	}
	return status, err
}

// exchange sends a request and reads the whole answer.
func exchange(c *http.Client, r *http.Request) (body []byte, status int, err error) {
	resp, err := c.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return body, resp.StatusCode, err
}

var errStatus = errors.New("unexpected status")

// must is call that fails unless the status is want.
func (b *instance) must(ctx context.Context, want int, method, path string, body, into any) error {
	status, err := b.call(ctx, method, path, body, into)
	if err == nil && status != want {
		err = fmt.Errorf("%w %d of %s %s", errStatus, status, method, path)
	}
	return err
}

// providerProfile is a provider with plain endpoints, so that no flow needs discovery.
func providerProfile(name, authURL, tokenURL string) map[string]any {
	return map[string]any{
		"name": name, "auth_url": authURL, "token_url": tokenURL, "scopes": []string{"read", "write"},
		"client_id": clientID, "client_secret": clientSecret,
	}
}

// The client credentials of every provider here.
const (
	clientID     = "client-id-of-the-benchmarks.apps.example.com"
	clientSecret = "client-secret-of-the-benchmarks"
)

// register registers a provider and returns its id.
func (b *instance) register(ctx context.Context, profile map[string]any) (id string, err error) {
	var answer struct{ ID string }
	err = b.must(ctx, http.StatusCreated, http.MethodPost, "/providers", map[string]any{"profile": profile}, &answer)
	return answer.ID, err
}

// consentRequest is the body of POST /auth/consent-spec.
func consentRequest(providerID string) map[string]any {
	return map[string]any{
		"workspace_id": "bench", "provider_id": providerID, "return_url": "https://app.example.com/connected",
		"scopes": []string{"read", "write"},
	}
}

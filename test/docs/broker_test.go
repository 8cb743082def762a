package docs_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

const apiKey = "the-api-key-of-the-documents"

// env are variables of a broker; "" unsets.
type env map[string]string

// broker is a running "nexus-broker serve --dev".
type broker struct {
	t    *testing.T
	URL  string
	Dir  string
	cmd  *exec.Cmd
	log  *servers.Log
	done chan struct{}
}

// launch starts a broker and does not wait for it.
func launch(t *testing.T, e env) *broker {
	t.Helper()
	folder := built(t)
	b := &broker{t: t, Dir: t.TempDir(), log: &servers.Log{}, done: make(chan struct{})}
	b.cmd = exec.Command(filepath.Join(folder, "nexus-broker"), "serve", "--dev")
	b.cmd.Dir = b.Dir
	b.cmd.Stdout, b.cmd.Stderr = b.log, b.log
	b.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LISTEN_ADDR=127.0.0.1:0", "API_KEY=" + apiKey, "LOG_FORMAT=json"}
	for name, value := range e {
		if value != "" {
			b.cmd.Env = append(b.cmd.Env, name+"="+value)
		}
	}
	require.NoError(t, b.cmd.Start())
	go func() { _ = b.cmd.Wait(); close(b.done) }()
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Logf("what the broker printed last:\n%s", last(b.log.String(), 4000))
		}
	})
	return b
}

func last(s string, n int) string { return s[max(0, len(s)-n):] }

// stop asks the broker to end and waits for it.
func (b *broker) stop() {
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.done:
	case <-time.After(30 * time.Second):
		_ = b.cmd.Process.Kill()
		<-b.done
	}
}

var listening = regexp.MustCompile(`"msg":"listening","address":"([^"]+)"`)

// start starts a broker and waits until it listens.
func start(t *testing.T, e env) *broker {
	t.Helper()
	b := launch(t, e)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if m := listening.FindStringSubmatch(b.log.String()); m != nil {
			b.URL = "http://" + m[1]
			return b
		}
		select {
		case <-b.done:
			t.Fatalf("the broker has ended:\n%s", b.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the broker does not listen:\n%s", b.log)
		}
	}
}

// refused starts a broker that must end by itself, and returns what it printed.
func refused(t *testing.T, e env) (exitCode int, printed string) {
	t.Helper()
	b := launch(t, e)
	select {
	case <-b.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("the broker has started after all:\n%s", b.log)
	}
	return b.cmd.ProcessState.ExitCode(), b.log.String()
}

// answer is what the broker has answered.
type answer struct {
	Status     int
	Code       string // "error" of a failure
	Message    string
	RetryAfter string
	Body       map[string]any // nil if the body is no object
	Header     http.Header
}

func (a answer) text(member string) string {
	s, _ := a.Body[member].(string)
	return s
}

// call sends a request with the API key.
func (b *broker) call(method, path string, body any) answer {
	b.t.Helper()
	return b.callAs(apiKey, method, path, body)
}

func (b *broker) callAs(key, method, path string, body any) answer {
	b.t.Helper()
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		require.NoError(b.t, err)
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, b.URL+path, payload)
	require.NoError(b.t, err)
	req.Header.Set("X-API-Key", key)
	client := &http.Client{Timeout: time.Minute}
	resp, err := client.Do(req)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	a := answer{Status: resp.StatusCode, RetryAfter: resp.Header.Get("Retry-After"), Header: resp.Header}
	if json.Unmarshal(raw, &a.Body) == nil {
		a.Code, a.Message = a.text("error"), a.text("message")
	}
	return a
}

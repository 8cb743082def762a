package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// program is the broker as a file, built once for all tests of the package that need it.
type program func() (string, error)

// file returns the path of the program. To build it and to start it hundreds of times is
// nothing for the fast tests: without servers the test is skipped.
func (p program) file(t *testing.T) string {
	t.Helper()
	servers.Enabled(t, "a broker as a process")
	path, err := p()
	require.NoError(t, err)
	return path
}

var (
	// detecting has the race detector: a race in the process ends it with an error. It
	// takes four times as long to start, and is for tests in which many things happen
	// at once.
	detecting = built("detecting", "-race")
	plain     = built("plain")
)

// built returns the program that "go build" makes with flags.
func built(name string, flags ...string) program {
	return sync.OnceValues(func() (string, error) {
		dir, err := programs()
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, name)
		args := slices.Concat([]string{"build", "-o", path}, flags, []string{"github.com/nexus-broker/nexus-broker/cmd/nexus-broker"})
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return path, nil
	})
}

// programs returns the folder of the programs, programsDir once it is there.
var (
	programs = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "nexus-broker-e2e-")
		programsDir = dir
		return dir, err
	})
	programsDir string
)

func TestMain(m *testing.M) {
	code := servers.Main(m)
	if programsDir != "" {
		_ = os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

// env is the environment of a broker.
type env map[string]string

// with returns e with more set; "" unsets.
func (e env) with(more env) env {
	all := env{}
	for _, m := range []env{e, more} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

func (e env) list() []string {
	list := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=50",
		// Most brokers here live for a second, in which collecting garbage under the race
		// detector takes a quarter of their time.
		"GOGC=off", "GOMEMLIMIT=256MiB"}
	for k, v := range e {
		if v != "" {
			list = append(list, k+"="+v)
		}
	}
	return list
}

func randomKey(fill string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(fill, 32)[:32]))
}

// Keys of every broker here. The tests search for what they protect, never for them.
var (
	encryptionKey = randomKey("encryption-key-of-the-e2e-tests.")
	stateKey      = randomKey("state-key-of-the-end-to-end-test")
)

const apiKey = "CANARY-api-key-e2e"

// base is what every broker needs beside its database and its secret backend.
func base() env {
	return env{
		"BASE_URL": publicURL, "LISTEN_ADDR": "127.0.0.1:0",
		"ENCRYPTION_KEY": encryptionKey, "STATE_KEY": stateKey,
		"API_KEY": apiKey, "REQUIRE_API_KEY": "true", "LOG_LEVEL": "debug",
	}
}

// process is a running broker.
type process struct {
	t    *testing.T
	env  env
	cmd  *exec.Cmd
	URL  string
	log  *servers.Log
	done chan struct{}
	once sync.Once
	err  error

	failures *servers.Log // every answer but a success, for the canary
}

// in returns p for a subtest, which must not fail its parent's t.
func (p *process) in(t *testing.T) *process {
	return &process{t: t, env: p.env, cmd: p.cmd, URL: p.URL, log: p.log, done: p.done, failures: p.failures}
}

// start runs the broker and waits until it listens.
func start(t *testing.T, e env) *process {
	t.Helper()
	return launch(t, e, "serve").ready()
}

// startDetecting is start with the race detector.
func startDetecting(t *testing.T, e env) *process {
	t.Helper()
	return launchProgram(t, detecting, e, "serve").ready()
}

// launch runs the program with arguments and does not wait.
func launch(t *testing.T, e env, args ...string) *process {
	t.Helper()
	return launchProgram(t, plain, e, args...)
}

// launchProgram runs a program and does not wait.
func launchProgram(t *testing.T, program program, e env, args ...string) *process {
	t.Helper()
	p := &process{t: t, env: e, cmd: exec.Command(program.file(t), args...), log: &servers.Log{}, done: make(chan struct{}), failures: &servers.Log{}}
	p.cmd.Env = e.list()
	p.cmd.Dir = t.TempDir()
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	require.NoError(t, p.cmd.Start())
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.stop()
		if strings.Contains(p.log.String(), "DATA RACE") {
			t.Errorf("the broker has a data race:\n%s", p.log)
		}
		if t.Failed() {
			t.Logf("log of the broker:\n%s", tail(p.log.String(), 60))
		}
	})
	return p
}

// ready waits until the broker listens, and returns it.
func (p *process) ready() *process {
	p.t.Helper()
	select {
	case <-p.done:
		p.t.Fatalf("the broker ended at start: %v\n%s", p.err, p.log)
	case <-time.After(patience):
		p.t.Fatalf("the broker does not listen\n%s", p.log)
	case p.URL = <-p.listening():
	}
	return p
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// listening gives the URL of the broker once it logs it.
func (p *process) listening() <-chan string {
	found := make(chan string, 1)
	go func() {
		for {
			scan := bufio.NewScanner(strings.NewReader(p.log.String()))
			for scan.Scan() {
				var line struct {
					Msg     string `json:"msg"`
					Address string `json:"address"`
				}
				if json.Unmarshal(scan.Bytes(), &line) == nil && line.Msg == "listening" {
					found <- "http://" + line.Address
					return
				}
			}
			select {
			case <-p.done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return found
}

// stop asks the broker to end and waits for it.
func (p *process) stop() {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	})
}

// kill ends the broker without warning.
func (p *process) kill() {
	p.once.Do(func() { _ = p.cmd.Process.Kill(); <-p.done })
}

// answer is what the broker has answered.
type answer struct {
	t      *testing.T
	Status int
	Header http.Header
	Body   []byte
}

// want checks the status and, of a failure, the code.
func (a answer) want(status int, code ...string) answer {
	a.t.Helper()
	require.Equalf(a.t, status, a.Status, "answer: %s", a.Body)
	if len(code) > 0 {
		require.Equalf(a.t, code[0], a.text("error"), "answer: %s", a.Body)
		require.NotEmpty(a.t, a.text("message"))
	}
	return a
}

func (a answer) object() map[string]any {
	a.t.Helper()
	var m map[string]any
	require.NoErrorf(a.t, json.Unmarshal(a.Body, &m), "answer: %s", a.Body)
	return m
}

func (a answer) text(member string) string {
	a.t.Helper()
	s, _ := a.object()[member].(string)
	return s
}

// call sends a request with the API key; a body that is not nil is sent as JSON.
func (p *process) call(method, path string, body any) answer {
	p.t.Helper()
	return p.send(method, path, body, http.Header{"X-Api-Key": {apiKey}})
}

// request makes a request to the broker; a body that is not nil is sent as JSON.
func (p *process) request(method, path string, body any, header http.Header) *http.Request {
	p.t.Helper()
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		require.NoError(p.t, err)
		reader = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, p.URL+path, reader)
	require.NoError(p.t, err)
	for k, v := range header {
		req.Header[k] = v
	}
	return req
}

func (p *process) send(method, path string, body any, header http.Header) answer {
	p.t.Helper()
	req := p.request(method, path, body, header)
	client := &http.Client{Timeout: time.Minute, Transport: contract(p.t), CheckRedirect: noRedirect}
	resp, err := client.Do(req)
	require.NoError(p.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	if resp.StatusCode >= 300 {
		_ = resp.Header.Write(p.failures)
		_, _ = p.failures.Write(append(b, '\n'))
	}
	return answer{t: p.t, Status: resp.StatusCode, Header: resp.Header, Body: b}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	require.NoError(t, err)
	return u
}

package docs_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

// shell is a bash in which the blocks of a scenario are run one after the other, as
// a reader pastes them: with the variables that earlier blocks have set. It ends at
// the first command that fails.
type shell struct {
	t      *testing.T
	dir    string
	inputs map[string]string // what only the reader knows
	// onInput is called when the reader has entered an input.
	onInput map[string]func()
	cmd     *exec.Cmd
	in      io.Writer
	out     *bufio.Reader
	errors  *servers.Log
	serial  int
	last    string // what the last block printed
	served  string // file with what the broker in the background prints
}

// newShell starts a bash in an empty folder. It finds nexus-broker and vault, and
// little else is in its environment.
func newShell(t *testing.T, inputs map[string]string) *shell {
	t.Helper()
	needsPrograms(t, "bash", "curl", "jq", "grep")
	s := &shell{t: t, dir: t.TempDir(), inputs: inputs, onInput: map[string]func(){}, errors: &servers.Log{}}
	s.cmd = exec.Command("bash", "--noprofile", "--norc")
	s.cmd.Dir = s.dir
	s.cmd.Env = []string{"PATH=" + programs(t) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LISTEN_ADDR=127.0.0.1:0"}
	s.cmd.Stderr = s.errors
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := s.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	s.in, s.out = in, bufio.NewReader(out)
	require.NoError(t, s.cmd.Start())
	t.Cleanup(s.stop)
	s.send("set -eu -o pipefail")
	return s
}

// stop ends the shell and what it has left in the background.
func (s *shell) stop() {
	if s.t.Failed() && s.served != "" {
		served, _ := os.ReadFile(s.served)
		s.t.Logf("log of the broker:\n%s", served)
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
}

// programs returns a folder with the broker and with vault: VAULT_BIN, or this
// program, which stands in for it.
func programs(t *testing.T) string {
	t.Helper()
	folder := built(t)
	vault := os.Getenv("VAULT_BIN")
	if vault == "" {
		this, err := os.Executable()
		require.NoError(t, err)
		vault = this
	}
	bin := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(folder, "nexus-broker"), filepath.Join(bin, "nexus-broker")))
	require.NoError(t, os.Symlink(vault, filepath.Join(bin, "vault")))
	return bin
}

// run takes a scenario's blocks in order.
func (s *shell) run(list []block) {
	s.t.Helper()
	for _, b := range list {
		s.step(b)
	}
}

func (s *shell) step(b block) {
	s.t.Helper()
	switch b.kind {
	case "":
		s.source(b, b.text)
	case "inputs":
		s.source(b, s.replaceInputs(b))
	case "background":
		s.background(b)
	case "browser":
		s.source(b, b.text)
		visit(s.t, strings.TrimSpace(s.last))
	case "output":
		require.Regexp(s.t, pattern(b.text), strings.TrimSpace(s.last), "%s", b)
	}
}

// pattern matches what a document shows as output.
func pattern(shown string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(strings.TrimSpace(shown))
	return regexp.MustCompile("^" + strings.ReplaceAll(quoted, "…", ".*") + "$")
}

// source runs a text as if it stood in a file named after the block.
func (s *shell) source(b block, text string) {
	s.t.Helper()
	s.last = s.send(fmt.Sprintf(". %q </dev/null", s.file(b, text)))
}

func (s *shell) file(b block, text string) string {
	s.t.Helper()
	s.serial++
	name := filepath.Join(s.t.TempDir(), fmt.Sprintf("%s:%d", filepath.Base(b.document), b.line))
	require.NoError(s.t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// send has a command run and returns what it prints.
func (s *shell) send(command string) string {
	s.t.Helper()
	s.serial++
	end := fmt.Sprintf("--- end of command %d ---", s.serial)
	_, err := fmt.Fprintf(s.in, "%s\necho '%s'\n", command, end)
	require.NoError(s.t, err)
	var printed strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s failed:\n%s%s", command, printed.String(), s.errors)
		}
		if strings.TrimSuffix(line, "\n") == end {
			return printed.String()
		}
		if before, ok := strings.CutSuffix(line, end+"\n"); ok { // the last line was not ended
			return printed.String() + before
		}
		printed.WriteString(line)
	}
}

var assignment = regexp.MustCompile(`^(export )?([A-Z_]+)=(?:'[^']*'|"[^"]*"|\S*)(\s+#.*)?$`)

// replaceInputs returns the block with the test's values.
func (s *shell) replaceInputs(b block) string {
	s.t.Helper()
	var text strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(b.text), "\n") {
		m := assignment.FindStringSubmatch(line)
		require.NotNil(s.t, m, "%s: %q is no assignment", b, line)
		value, known := s.inputs[m[2]]
		require.True(s.t, known, "%s: the test has no value for %s", b, m[2])
		fmt.Fprintf(&text, "%s%s='%s'\n", m[1], m[2], value)
		if entered := s.onInput[m[2]]; entered != nil {
			entered()
		}
	}
	return text.String()
}

var devListening = regexp.MustCompile(`msg"?[=:]"?listening"? ?,?"?address"?[=:]"?([0-9.:]+)`)

// background starts the broker and notes where it listens as the input BROKER.
func (s *shell) background(b block) {
	s.t.Helper()
	s.served = filepath.Join(s.t.TempDir(), "served.log")
	s.send(fmt.Sprintf(". %q </dev/null >%q 2>&1 &", s.file(b, b.text), s.served))
	require.Eventually(s.t, func() bool {
		printed, err := os.ReadFile(s.served)
		if err != nil {
			return false
		}
		m := devListening.FindSubmatch(printed)
		if m != nil {
			s.inputs["BROKER"] = "http://" + string(m[1])
		}
		return m != nil
	}, 30*time.Second, 20*time.Millisecond, "%s: the broker does not listen", b)
}

// visit is a user's browser that opens an address and is sent on. The provider of the
// tests agrees by itself.
func visit(t *testing.T, address string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, address, nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "text/html")
	client := &http.Client{Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "success", resp.Request.URL.Query().Get("status"), "the browser ended at %s: %s", resp.Request.URL, page)
}

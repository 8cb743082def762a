// Package servers starts the real servers that the tests talk to: PostgreSQL,
// Vault and an OpenID provider. Each listens on loopback only, keeps its files in
// a temporary folder, and is stopped when the tests of the package end.
//
// "make test" sets NEXUS_TEST_SERVERS=1 and sees to it that the programs are there.
// Without it the tests that need a server are skipped, so that a plain "go test
// ./..." needs nothing installed; with CI=true they fail instead: a skip cannot
// hide there.
package servers

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Main runs the tests of a package and stops the servers that they started. Call it
// from TestMain: os.Exit(servers.Main(m)). The tests of such a package wait more than
// they compute, so six run at a time where -parallel says nothing else.
func Main(m *testing.M) int {
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	code := m.Run()
	running.stop()
	return code
}

// TB is what starting a server needs of a *testing.T, so that a program that is no
// test can start one too. Fatalf and Skipf do not return.
type TB interface {
	Helper()
	Cleanup(func())
	TempDir() string
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Enabled skips the test where servers are not wanted, and fails it in CI.
func Enabled(t TB, what string) {
	t.Helper()
	switch {
	case os.Getenv("NEXUS_TEST_SERVERS") == "1":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is needed and NEXUS_TEST_SERVERS is not 1: run the tests with 'make test'", what)
	default:
		t.Skipf("needs %s: run 'make test'", what)
	}
}

// CacheDir is where "make test" keeps what it has built or downloaded:
// NEXUS_TEST_CACHE, or nexus-broker in the user's cache folder.
func CacheDir() string {
	if d := os.Getenv("NEXUS_TEST_CACHE"); d != "" {
		return d
	}
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "nexus-broker")
}

// running are the processes that Main stops.
var running processes

type processes struct {
	mu   sync.Mutex
	list []*Process
}

func (ps *processes) add(p *Process) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.list = append(ps.list, p)
}

func (ps *processes) stop() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range slices.Backward(ps.list) {
		p.Stop()
	}
	ps.list = nil
}

// Process is a server that runs as a process of its own. It is killed with the
// process of the tests.
type Process struct {
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // of Wait, after done
	cleanup func()
	quit    syscall.Signal // asks it to end; zero: SIGTERM
	once    sync.Once
}

// start runs cmd; cleanup is called once after it has ended.
func start(cmd *exec.Cmd, cleanup func()) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{}), cleanup: cleanup}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	running.add(p)
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends s to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop ends the process, with force if it has not ended after ten seconds, and
// removes its files. It may be called more than once.
func (p *Process) Stop() {
	p.once.Do(func() {
		quit := p.quit
		if quit == 0 {
			quit = syscall.SIGTERM
		}
		_ = p.Signal(quit)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			_ = p.Signal(syscall.SIGKILL)
			<-p.done
		}
		if p.cleanup != nil {
			p.cleanup()
		}
	})
}

// patience is how long a server may take to be ready. It takes a second; a machine with
// other work to do may stand still for half a minute.
const patience = 2 * time.Minute

// waitFor calls ready until it returns nil, the process has ended, or its time has passed.
func waitFor(p *Process, ready func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("the server has ended: %w", errors.Join(p.err, err))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server is not ready after %s: %w", patience, err)
		}
	}
}

// Log collects what a process prints; safe for concurrent use.
type Log struct {
	mu  sync.Mutex
	buf []byte
}

var _ io.Writer = (*Log)(nil)

// Write implements io.Writer.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, b...)
	return len(b), nil
}

// String returns all that was printed so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}

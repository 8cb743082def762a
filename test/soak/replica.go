package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// replica is a broker that is killed and started again on the same address.
type replica struct {
	binary, dir, name, address string
	env                        []string

	mu  sync.Mutex
	now *incarnation // nil: not running
}

// incarnation is one process of a replica.
type incarnation struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu     sync.Mutex
	killed time.Time // zero: it lives
}

func (b *replica) current() *incarnation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// start runs a process; its log goes on in the replica's file.
func (b *replica) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has it
	one := &incarnation{cmd: exec.Command(b.binary, "serve"), done: make(chan struct{})}
	one.cmd.Dir, one.cmd.Env, one.cmd.Stdout, one.cmd.Stderr = b.dir, b.env, log, log
	if err := one.cmd.Start(); err != nil {
		return err
	}
	go func() { _ = one.cmd.Wait(); close(one.done) }()
	b.mu.Lock()
	b.now = one
	b.mu.Unlock()
	return b.awaitListening(ctx, one)
}

// kill ends the process as a crash does, and waits until it is gone.
func (b *replica) kill() {
	b.mu.Lock()
	one := b.now
	b.now = nil
	b.mu.Unlock()
	if one == nil {
		return
	}
	one.mu.Lock()
	one.killed = time.Now()
	one.mu.Unlock()
	_ = one.cmd.Process.Kill()
	<-one.done
}

// death returns when the process was killed; zero while it lives.
func (one *incarnation) death() time.Time {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.killed
}

// owns reports whether a socket belongs to the process.
func (one *incarnation) owns(inode string) bool {
	dir := fmt.Sprintf("/proc/%d/fd", one.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}

func (b *replica) awaitListening(ctx context.Context, one *incarnation) error {
	return b.await(ctx, "listens", func() bool {
		conn, err := net.Dial("tcp", b.address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, one.done)
}

func (b *replica) awaitReady(ctx context.Context) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return b.await(ctx, "is ready", func() bool {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.address+"/health/ready", nil)
		if err != nil {
			return false
		}
		body, status, err := exchange(client, r)
		return err == nil && status == http.StatusOK && strings.Contains(string(body), `"status":"ready"`)
	}, nil)
}

func (b *replica) await(ctx context.Context, what string, reached func() bool, ended <-chan struct{}) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if reached() {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s has ended by itself: %s", b.name, b.lastLines())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("it is not so that %s %s, after %s: %s", b.name, what, patience, b.lastLines())
}

func (b *replica) lastLines() string {
	log, err := os.ReadFile(filepath.Join(b.dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// mentions returns the lines of the log that hold a text.
func (b *replica) mentions(text string) (lines []string) {
	log, err := os.ReadFile(filepath.Join(b.dir, "log"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, text) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

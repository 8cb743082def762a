package servers

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

// Program is the TB of a program that is no test and starts servers. What a test
// would fail for ends the function that Guard has called.
type Program struct {
	dir string

	mu       sync.Mutex
	cleanups []func()
}

var _ TB = (*Program)(nil)

// NewProgram returns a Program whose files lie in one temporary folder. Who runs such
// a program wants its servers: nothing is skipped.
func NewProgram(name string) (*Program, error) {
	if err := os.Setenv("NEXUS_TEST_SERVERS", "1"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", name+"-")
	if err != nil {
		return nil, err
	}
	return &Program{dir: dir}, nil
}

// Close stops what was started, the last first, and removes all files.
func (p *Program) Close() error {
	p.mu.Lock()
	cleanups := p.cleanups
	p.cleanups = nil
	p.mu.Unlock()
	var failed error
	for _, f := range slices.Backward(cleanups) {
		failed = errors.Join(failed, p.Guard(func() error { f(); return nil }))
	}
	return errors.Join(failed, os.RemoveAll(p.dir))
}

// failure is what Fatalf ends a guarded function with.
type failure struct{ error }

// Guard returns f's error, or what a server has called Fatalf with while f ran. Every
// goroutine that speaks to a server needs a Guard of its own.
func (p *Program) Guard(f func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	return f()
}

// Dir is the folder of the program's files.
func (p *Program) Dir() string { return p.dir }

// Helper implements TB.
func (p *Program) Helper() {}

// Cleanup implements TB.
func (p *Program) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, f)
}

// TempDir implements TB.
func (p *Program) TempDir() string {
	dir, err := os.MkdirTemp(p.dir, "")
	if err != nil {
		p.Fatalf("%v", err)
	}
	return dir
}

// Fatalf implements TB.
func (p *Program) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// Skipf implements TB.
func (p *Program) Skipf(format string, args ...any) { p.Fatalf(format, args...) }

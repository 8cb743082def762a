// Command soak runs three replicas of the broker behind a plain TCP proxy, on
// PostgreSQL and Vault, with mixed traffic and for a bounded time, while replicas are
// killed, the vault is sealed, the database restarts and a client secret is rotated.
// "make soak" runs it. It prints how many requests there were, the errors by class,
// and what must not be there: updates that were lost, refreshes that were made twice,
// connections that died of the broker, secrets that are left over. It exits with 1 if
// there was one.
//
// Everything it starts listens on loopback, keeps its files in one temporary folder,
// and is gone when it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nexus-broker/nexus-broker/test/servers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// options are what the command line decides.
type options struct {
	binary     string
	length     time.Duration
	settleTime time.Duration
	seed       uint64
}

func parseOptions(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.binary, "broker", "bin/nexus-broker", "the broker, as 'make build' makes it")
	flags.DurationVar(&o.length, "for", 2*time.Minute, "how long there is traffic")
	// A sweep runs every minute, and the claim of a process that was killed has to end first.
	flags.DurationVar(&o.settleTime, "settle", 4*time.Minute, "how long the brokers have at the end to put everything in order")
	flags.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the order of the faults")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.length <= 0 {
		return o, errors.New("-for is not positive")
	}
	if o.binary, err = filepath.Abs(o.binary); err == nil {
		_, err = os.Stat(o.binary)
	}
	return o, err
}

// soak is one run.
type soak struct {
	options
	*servers.Program
	progress io.Writer
	*stand
	ledger *ledger
	tokens *tokens
	users  *users
	rand   *random
}

var errBroken = errors.New("a promise was broken")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	program, err := servers.NewProgram("nexus-soak")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, program.Close()) }()
	s := &soak{
		options: o, Program: program, progress: stderr,
		ledger: newLedger(), tokens: newTokens(), users: &users{}, rand: &random{source: rand.New(rand.NewPCG(o.seed, 0))},
	}
	s.say("seed %d; starting PostgreSQL, Vault, the OpenID provider and %d brokers", o.seed, replicas)
	err = program.Guard(func() (err error) {
		s.stand, err = s.build(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.connectFirst(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := s.storm(ctx); err != nil {
		return err
	}
	traffic := time.Since(began)
	verdict, err := s.settle(ctx)
	if err != nil {
		return err
	}
	fmt.Fprint(stdout, s.report(traffic, verdict))
	if !verdict.kept() {
		return errBroken
	}
	return nil
}

// storm lets traffic and faults loose for the length of the run, and stops both.
func (s *soak) storm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.length)
	defer cancel()
	failed := make(chan error, 64)
	var all sync.WaitGroup
	for _, job := range append(s.traffic(), s.faults()...) {
		all.Go(func() {
			if err := s.Guard(func() error { return job(ctx) }); err != nil && ctx.Err() == nil {
				failed <- err
				cancel()
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (s *soak) say(format string, args ...any) {
	fmt.Fprintf(s.progress, "%s  "+format+"\n", append([]any{time.Now().Format("15:04:05.000")}, args...)...)
}

// random is a source of random numbers for many goroutines.
type random struct {
	mu     sync.Mutex
	source *rand.Rand
}

func (r *random) below(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.source.IntN(n)
}

// between returns a duration from least to most.
func (r *random) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.below(int(most-least)+1))
}

// pause waits for d, and returns false when ctx has ended first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

package secrettest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/memory"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
)

// childVariable tells the test binary that it is the child of TestBrokenBackendsAreCaught.
const childVariable = "SECRETTEST_RUN_BROKEN_BACKENDS"

// TestBrokenBackendsAreCaught runs the suite on every broken backend in a child
// process, where it is expected to fail, and looks at what has failed. Each broken
// backend has to fail in the subtests that it names, the honest one in none; and
// every subtest of the suite has to be failed by somebody, else it proves nothing.
func TestBrokenBackendsAreCaught(t *testing.T) {
	child := exec.Command(os.Args[0], "-test.run=^TestInChild$", "-test.v")
	child.Env = append(os.Environ(), childVariable+"=1")
	var out bytes.Buffer
	child.Stdout, child.Stderr = &out, &out
	if err := child.Run(); err == nil {
		t.Error("the suite has passed on broken backends")
	}
	results := map[string]map[string]string{} // backend → subtest → PASS or FAIL
	for _, m := range regexp.MustCompile(`(?m)^\s*--- (PASS|FAIL|SKIP): TestInChild/([^/\s]+)/(\S+)`).FindAllStringSubmatch(out.String(), -1) {
		if results[m[2]] == nil {
			results[m[2]] = map[string]string{}
		}
		results[m[2]][m[3]] = m[1]
	}
	if len(results["Honest"]) == 0 {
		t.Fatalf("the child has not run the suite:\n%s", out.String())
	}
	proves := map[string]bool{}
	for _, b := range slices.Concat(brokenBackends, brokenOwned, brokenBatch, brokenRemnants, brokenReferences, troubled) {
		for _, name := range b.fails {
			if got := results[b.name][name]; got != "FAIL" {
				t.Errorf("%s is not caught by %s (%q)", b.name, name, got)
			}
		}
		for name, result := range results[b.name] {
			proves[name] = proves[name] || result == "FAIL"
		}
	}
	for name, result := range results["Honest"] {
		if result != "PASS" {
			t.Errorf("the honest backend: %s: %s", name, result)
		}
		if group, _, _ := strings.Cut(name, "/"); !proves[group] {
			t.Errorf("no broken backend fails %s", name)
		}
	}
}

// TestInChild does nothing unless it runs as the child.
func TestInChild(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		return
	}
	t.Run("Honest", func(t *testing.T) {
		t.Parallel()
		secrettest.Run(t, func(*testing.T) secret.SecretBackend { return honest() }, inOrder("")...)
	})
	for _, b := range slices.Concat(brokenBackends, brokenOwned, brokenBatch, brokenRemnants, brokenReferences) {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			secrettest.Run(t, func(*testing.T) secret.SecretBackend { return b.fake() },
				secrettest.WithName(memory.Name), secrettest.WithReferences(placing), secrettest.WithRemnants(abandoning))
		})
	}
	for _, b := range troubled {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			secrettest.Run(t, func(*testing.T) secret.SecretBackend { return memory.New() }, inOrder(b.name)...)
		})
	}
}

// troubled are the backends that behave badly when their store is in trouble.
var troubled = []broken{
	{"CallsAnOutageMissing", nil, []string{"AnOutageIsErrUnavailable"}},
	{"AsksTheNetworkFirst", nil, []string{"LimitsAreCheckedBeforeTheNetwork"}},
	{"CallsADenialMissing", nil, []string{"ADenialIsErrDenied"}},
	{"WaitsForEver", nil, []string{"ACallToAStalledStoreEndsWithItsContext"}},
}

// inOrder returns the options that provide stores in trouble; the one in question
// behaves as name says.
func inOrder(name string) []secrettest.Option {
	unreachable := func(*testing.T) secret.SecretBackend {
		sentinel := sentinelFor(name, "CallsAnOutageMissing", secret.ErrUnavailable)
		f := honest().fail(func(err error, key, _ string) error {
			if errors.Is(err, secret.ErrInvalid) && name != "AsksTheNetworkFirst" {
				return err
			}
			return fmt.Errorf("memory: get, read, set, delete, create, replace or remove %s: %w", key, sentinel)
		})
		f.probe = func(context.Context, secret.Access) error { return sentinel }
		return f
	}
	denied := func(_ context.Context, c memory.Call) error {
		return fmt.Errorf("memory: %s %s: %w", c.Op, c.Key, sentinelFor(name, "CallsADenialMissing", secret.ErrDenied))
	}
	stalled := func(ctx context.Context, c memory.Call) error {
		if name == "WaitsForEver" && c.Op == memory.OpGet {
			select {}
		}
		<-ctx.Done()
		return fmt.Errorf("memory: %s %s: %w", c.Op, c.Key, ctx.Err())
	}
	return []secrettest.Option{
		secrettest.WithName(memory.Name),
		secrettest.WithUnreachable(unreachable),
		secrettest.WithDenied(inTrouble(denied)),
		secrettest.WithStalled(inTrouble(stalled)),
		secrettest.WithReferences(placing),
		secrettest.WithRemnants(abandoning),
	}
}

func sentinelFor(name, flaw string, right error) error {
	if name == flaw {
		return secret.ErrNotFound
	}
	return right
}

func TestAWrappedBackendConforms(t *testing.T) {
	secrettest.Run(t, func(*testing.T) secret.SecretBackend {
		m := memory.New()
		return wrapped{memory.NewFaulty(m), m}
	}, secrettest.WithName(memory.Name), secrettest.WithReferences(placing), secrettest.WithRemnants(abandoning))
}

// wrapped is a Faulty whose store is at hand.
type wrapped struct {
	*memory.Faulty
	store *memory.Backend
}

func (w wrapped) Place(path, value string) (string, error) { return w.store.Place(path, value) }
func (w wrapped) Abandon(key, owner string)                { w.store.Abandon(key, owner) }
func (w wrapped) Abandoned(key string) bool                { return w.store.Abandoned(key) }

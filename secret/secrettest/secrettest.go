// Package secrettest proves that a backend keeps the contract of
// [secret.SecretBackend]: one subtest for every sentence of it, named after it.
//
//	func TestConformance(t *testing.T) {
//		secrettest.Run(t, func(t *testing.T) secret.SecretBackend {
//			b, err := mystore.New(…)
//			if err != nil {
//				t.Fatal(err)
//			}
//			t.Cleanup(b.Close)
//			return b
//		}, secrettest.WithName("mystore"))
//	}
//
// What [secret.CapabilitiesOf] finds of [secret.OwnedBackend], [secret.VersionRemover],
// [secret.BatchReader], [secret.Locator] and [secret.Prober] is proved too. What needs a
// store in trouble is proved where an option provides one, that of a
// [secret.ReferenceReader] with WithReferences, and that of a [secret.RemnantRemover]
// with WithRemnants. Run it with the race detector on.
package secrettest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// New returns a backend for one subtest, and sees to its end with t.Cleanup. All
// backends of a run may share one store, also one that is in use: the suite writes
// below keys that begin with "secrettest-" and a random number, and deletes them.
type New func(t *testing.T) secret.SecretBackend

// Option says more about the backend.
type Option func(*suite)

// WithName makes the suite expect name in every error message.
func WithName(name string) Option { return func(s *suite) { s.name = name } }

// WithoutCompareAndSet excuses a backend whose store has no compare-and-set from
// having one winner among concurrent Creates. One that keeps no versions is excused
// from what needs them without being told to.
func WithoutCompareAndSet() Option { return func(s *suite) { s.noCAS = true } }

// WithUnreachable provides a backend whose store cannot be reached.
func WithUnreachable(n New) Option { return func(s *suite) { s.unreachable = n } }

// WithDenied provides a backend that the store has authenticated and lets do nothing.
func WithDenied(n New) Option { return func(s *suite) { s.denied = n } }

// WithStalled provides a backend whose store accepts requests and does not answer.
func WithStalled(n New) Option { return func(s *suite) { s.stalled = n } }

// WithRemnants provides what a Create that was cut off leaves.
func WithRemnants(r Remnants) Option { return func(s *suite) { s.remnants = &r } }

// Run proves the contract for the backends that n returns.
func Run(t *testing.T, n New, opts ...Option) {
	t.Helper()
	s := &suite{open: n, run: random()}
	for _, o := range opts {
		o(s)
	}
	can := secret.CapabilitiesOf(n(t))
	if s.references != nil && can.References == nil {
		t.Fatalf("the backend is no secret.ReferenceReader, as WithReferences says")
	}
	if s.remnants != nil && can.Remnants == nil {
		t.Fatalf("the backend is no secret.RemnantRemover, as WithRemnants says")
	}
	versions := s.keepsVersions(t, can.Owned)
	tests := slices.Clone(basicTests)
	for _, more := range []struct {
		tests []subtest
		can   bool
	}{
		{ownedTests, can.Owned != nil}, {versionTests, versions}, {removerTests, versions && can.Versions != nil},
		{locatorTests, can.Locator != nil}, {proberTests, can.Prober != nil}, {batchTests, can.Batch != nil},
		{referenceTests, s.references != nil}, {remnantTests, s.remnants != nil},
	} {
		if more.can {
			tests = append(tests, more.tests...)
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(s, t, n(t)) })
	}
	s.troubles(t)
}

// subtest proves one sentence.
type subtest struct {
	name string
	run  func(s *suite, t *testing.T, b secret.SecretBackend)
}

// The sentences that every backend keeps.
var basicTests = []subtest{
	{"GetReturnsTheValueByteForByte", (*suite).roundTrip},
	{"GetOfAMissingKeyIsErrNotFound", (*suite).missing},
	{"KeysDoNotGetConfused", (*suite).distinctKeys},
	{"EveryLegalKeyIsAccepted", (*suite).legalKeys},
	{"EveryIllegalKeyIsErrInvalid", (*suite).illegalKeys},
	{"EveryIllegalValueIsErrInvalid", (*suite).illegalValues},
	{"ARefusedSetChangesNothing", (*suite).refusedSet},
	{"SetReplacesTheValue", (*suite).replaces},
	{"GetSeesTheSetBeforeIt", (*suite).readAfterWrite},
	{"DeleteRemovesTheKey", (*suite).deletes},
	{"DeleteOfAMissingKeyIsNil", (*suite).deleteMissing},
	{"SetWorksAgainAtOnceAfterDelete", (*suite).setAfterDelete},
	{"DeleteLeavesTheOtherKeys", (*suite).deleteOne},
	{"ACancelledContextEndsTheCall", (*suite).cancelled},
	{"APassedDeadlineEndsTheCall", (*suite).deadline},
	{"AnInterruptedSetLeavesTheOldValueOrTheNew", (*suite).interruptedSet},
	{"ConcurrentCallsOnManyKeysLoseNothing", (*suite).manyKeys},
	{"ConcurrentCallsOnOneKeyNeverMixValues", (*suite).oneKey},
	{"ErrorsNameTheBackendTheOperationAndTheKey", (*suite).messages},
	{"ErrorsShowNoValue", (*suite).errorsShowNoValue},
	{"TheBackendShowsNoValueWhenPrinted", (*suite).printed},
}

// suite is one run.
type suite struct {
	open    New
	name    string
	noCAS   bool
	run     string // random, part of every key
	counter atomic.Int64

	unreachable, denied, stalled New
	references                   *References
	remnants                     *Remnants
}

func random() string {
	b := make([]byte, 5)
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand.Read never returns one
	}
	return hex.EncodeToString(b)
}

// limit is how long one call may take; it is there to end what would never end.
const limit = 30 * time.Second

// prefix returns a first segment of keys that nobody else uses.
func (s *suite) prefix() string { return fmt.Sprintf("secrettest-%s.%d", s.run, s.counter.Add(1)) }

// key returns a key that nobody else uses, deleted when t ends.
func (s *suite) key(t *testing.T, b secret.SecretBackend, rest string) string {
	key := s.prefix() + "/" + rest
	s.cleanup(t, b, key)
	return key
}

func (s *suite) cleanup(t *testing.T, b secret.SecretBackend, key string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := b.Delete(ctx, key); err != nil {
			t.Logf("cleaning up: %v", err)
		}
	})
}

// value returns a value that is found when it leaks.
func (s *suite) value() string {
	return fmt.Sprintf("canary-%s-%d+/=", random(), s.counter.Add(1))
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func mustSet(t *testing.T, b secret.SecretBackend, key, value string) {
	t.Helper()
	if err := b.Set(bounded(t), key, value); err != nil {
		t.Fatalf("Set(%s): %v", key, err)
	}
}

func mustDelete(t *testing.T, b secret.SecretBackend, key string) {
	t.Helper()
	if err := b.Delete(bounded(t), key); err != nil {
		t.Fatalf("Delete(%s): %v", key, err)
	}
}

func wantValue(t *testing.T, b secret.SecretBackend, key, want string) {
	t.Helper()
	got, err := b.Get(bounded(t), key)
	if err != nil {
		t.Fatalf("Get(%s): %v", key, err)
	}
	if got != want {
		t.Fatalf("Get(%s) = %s, want %s", key, shorten(got), shorten(want))
	}
}

func wantMissing(t *testing.T, b secret.SecretBackend, key string) {
	t.Helper()
	got, err := b.Get(bounded(t), key)
	if err == nil {
		t.Fatalf("Get(%s) = %s, want ErrNotFound", key, shorten(got))
	}
	wantOnly(t, err, secret.ErrNotFound, "Get of a missing key")
}

func shorten(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%q… (%d bytes)", strings.ToValidUTF8(s[:80], "?"), len(s))
	}
	return fmt.Sprintf("%q", s)
}

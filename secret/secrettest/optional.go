package secrettest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The sentences that a Locator keeps.
var locatorTests = []subtest{
	{"LocateTellsWhereAKeyAndAProviderLie", (*suite).locate},
}

// The sentences that a Prober keeps.
var proberTests = []subtest{
	{"ProbeOfAHealthyBackendIsNil", (*suite).probe},
	{"ProbeHonoursItsContext", (*suite).probeEnded},
}

func (s *suite) itemPrinted(t *testing.T, b secret.OwnedBackend) {
	key, value := s.key(t, b, "client_secret"), s.value()
	mustSet(t, b, key, value)
	item := read(t, b, key)
	asJSON, _ := json.Marshal(item) // of strings, it can be marshalled
	if form := trace(fmt.Sprintf("%v %+v %#v %s", item, item, item, asJSON), value); form != "" {
		t.Errorf("an Item shows its value when it is printed (%s)", form)
	}
}

func (s *suite) locate(t *testing.T, b secret.SecretBackend) {
	l := secret.CapabilitiesOf(b).Locator
	provider := s.prefix()
	key := provider + "/client_id"
	at, other, above := l.Locate(key), l.Locate(provider+"/client_secret"), l.Locate(provider)
	if !strings.Contains(at, "client_id") || at == other {
		t.Errorf("Locate(%s) = %s does not tell the key's place from another's, %s", key, at, other)
	}
	if above == "" || !strings.HasPrefix(at, above) || !strings.HasPrefix(other, above) {
		t.Errorf("Locate(%s) = %s is not where %s and %s lie", provider, above, at, other)
	}
}

func (s *suite) probe(t *testing.T, b secret.SecretBackend) {
	for _, need := range []secret.Access{secret.ReadOnly, secret.ReadWrite} {
		if err := secret.CapabilitiesOf(b).Prober.Probe(bounded(t), need); err != nil {
			t.Errorf("Probe(%d): %v", need, err)
		}
	}
}

func (s *suite) probeEnded(t *testing.T, b secret.SecretBackend) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantOnly(t, secret.CapabilitiesOf(b).Prober.Probe(ctx, secret.ReadWrite), context.Canceled, "Probe with a ctx that has ended")
}

// troubles proves what needs a store in trouble.
func (s *suite) troubles(t *testing.T) {
	if s.unreachable != nil {
		t.Run("AnOutageIsErrUnavailable", func(t *testing.T) { s.trouble(t, s.unreachable(t), secret.ErrUnavailable) })
		t.Run("LimitsAreCheckedBeforeTheNetwork", func(t *testing.T) { s.limitsFirst(t, s.unreachable(t)) })
	}
	if s.denied != nil {
		t.Run("ADenialIsErrDenied", func(t *testing.T) { s.trouble(t, s.denied(t), secret.ErrDenied) })
	}
	if s.stalled != nil {
		t.Run("ACallToAStalledStoreEndsWithItsContext", func(t *testing.T) { s.stall(t, s.stalled(t)) })
	}
}

func (s *suite) trouble(t *testing.T, b secret.SecretBackend, want error) {
	key := s.prefix() + "/client_secret"
	for _, c := range calls(b) {
		value := s.value()
		err := c.do(bounded(t), key, value, owner)
		wantOnly(t, err, want, c.name)
		s.wantNamed(t, c, key, err, "a store in trouble")
		wantNoTrace(t, c.name, err, value)
	}
	if p := secret.CapabilitiesOf(b).Prober; p != nil {
		wantOnly(t, p.Probe(bounded(t), secret.ReadWrite), want, "Probe")
	}
	if s.references != nil {
		s.referenceTrouble(t, b, want)
	}
}

func (s *suite) limitsFirst(t *testing.T, b secret.SecretBackend) {
	key := s.prefix() + "/client_secret"
	for _, c := range calls(b) {
		for _, illegal := range illegalKeys {
			wantOnly(t, c.do(bounded(t), illegal, "value", owner), secret.ErrInvalid, c.name+" of the key "+shorten(illegal))
		}
		for name, illegal := range illegalValues {
			if c.value {
				wantOnly(t, c.do(bounded(t), key, illegal, owner), secret.ErrInvalid, c.name+" of a value that is "+name)
			}
		}
		if c.owner {
			wantOnly(t, c.do(bounded(t), key, "value", "no owner"), secret.ErrInvalid, c.name+" for an illegal owner")
		}
	}
	if s.references != nil {
		s.referenceIllegal(t, b)
	}
}

// stall checks that calls to a store that does not answer end when their ctx does.
func (s *suite) stall(t *testing.T, b secret.SecretBackend) {
	key := s.prefix() + "/client_secret"
	all := calls(b)
	if p := secret.CapabilitiesOf(b).Prober; p != nil {
		all = append(all, call{name: "Probe", do: func(ctx context.Context, _, _, _ string) error {
			return p.Probe(ctx, secret.ReadWrite)
		}})
	}
	if s.references != nil {
		all = append(all, s.referenceCall(b))
	}
	for _, c := range all {
		for _, want := range []error{context.Canceled, context.DeadlineExceeded} {
			ctx, cancel := endingWith(want)
			result := make(chan error, 1)
			go func() { result <- c.do(ctx, key, "value", owner) }()
			select {
			case err := <-result:
				wantOnly(t, err, want, c.name+" to a stalled store")
			case <-time.After(5 * time.Second):
				cancel()
				t.Fatalf("%s to a stalled store: it goes on 5 s after its ctx has ended", c.name)
			}
			cancel()
		}
	}
}

// endingWith returns a ctx that ends shortly, with want.
func endingWith(want error) (context.Context, context.CancelFunc) {
	const shortly = 50 * time.Millisecond
	if errors.Is(want, context.DeadlineExceeded) {
		return context.WithTimeout(context.Background(), shortly)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(shortly, cancel)
	return ctx, cancel
}

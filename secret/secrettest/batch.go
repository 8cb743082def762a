package secrettest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

// The sentences that a BatchReader keeps, beside those of every method.
var batchTests = []subtest{
	{"ReadBatchReturnsWhatGetReturnsInTheOrderOfTheKeys", batch((*suite).batchOrder)},
	{"AMissingKeySpoilsNoOtherOfABatch", batch((*suite).batchMissing)},
	{"AnIllegalKeySpoilsNoOtherOfABatch", batch((*suite).batchIllegal)},
	{"ABatchMayHaveNoKeyAndMany", batch((*suite).batchMany)},
	{"ABatchTellsVersionsAndNoOwner", batch((*suite).batchVersions)},
	{"ReadBatchSeesTheWriteBeforeIt", batch((*suite).batchFresh)},
	{"EveryOutcomeOfAnEndedBatchIsItsContexts", batch((*suite).batchEnded)},
	{"AnOutcomeShowsNoValueWhenPrinted", batch((*suite).batchPrinted)},
}

func batch(run func(*suite, *testing.T, secret.Capabilities)) func(*suite, *testing.T, secret.SecretBackend) {
	return func(s *suite, t *testing.T, b secret.SecretBackend) {
		can := secret.CapabilitiesOf(b)
		if can.Batch == nil {
			t.Fatal("the backend of this subtest is no BatchReader; that of another was")
		}
		run(s, t, can)
	}
}

// batchOfOne is ReadBatch as a method of one key.
func batchOfOne(ctx context.Context, b secret.BatchReader, key string) error {
	outcomes := b.ReadBatch(ctx, []string{key})
	if len(outcomes) != 1 {
		return fmt.Errorf("%d outcomes for one key", len(outcomes))
	}
	return outcomes[0].Err
}

// readBatch reads the keys and checks that there is an outcome for each, and no value
// beside an error.
func readBatch(ctx context.Context, t *testing.T, b secret.BatchReader, keys []string) []secret.Outcome {
	t.Helper()
	outcomes := b.ReadBatch(ctx, keys)
	if len(outcomes) != len(keys) {
		t.Fatalf("ReadBatch returns %d outcomes for %d keys", len(outcomes), len(keys))
	}
	for i, o := range outcomes {
		if o.Err != nil && o.Item != (secret.Item{}) {
			t.Errorf("ReadBatch: %s: it returns an Item with the error", shorten(keys[i]))
		}
	}
	return outcomes
}

func wantOutcome(t *testing.T, o secret.Outcome, key, value string) {
	t.Helper()
	if o.Err != nil {
		t.Errorf("ReadBatch: %s: %v", key, o.Err)
	} else if got := o.Item.Value.Reveal(); got != value {
		t.Errorf("ReadBatch: %s = %s, want %s", key, shorten(got), shorten(value))
	}
}

func (s *suite) batchOrder(t *testing.T, b secret.Capabilities) {
	prefix := s.prefix()
	var keys, values []string
	for name, value := range legalValues { // in any order
		key := prefix + "/" + name
		s.cleanup(t, b, key)
		mustSet(t, b, key, value)
		keys, values = append(keys, key), append(values, value)
	}
	keys, values = append(keys, keys[0], keys[0]), append(values, values[0], values[0])
	for i, o := range readBatch(bounded(t), t, b.Batch, keys) {
		wantOutcome(t, o, keys[i], values[i])
	}
}

func (s *suite) batchMissing(t *testing.T, b secret.Capabilities) {
	there, absent, value := s.key(t, b, "there"), s.key(t, b, "absent"), s.value()
	mustSet(t, b, there, value)
	for _, keys := range [][]string{{absent, there}, {there, absent}, {absent, there, absent}, {absent}, {absent, absent}} {
		for i, o := range readBatch(bounded(t), t, b.Batch, keys) {
			if keys[i] == there {
				wantOutcome(t, o, there, value)
			} else {
				wantOnly(t, o.Err, secret.ErrNotFound, "ReadBatch of a missing key")
			}
		}
	}
}

func (s *suite) batchIllegal(t *testing.T, b secret.Capabilities) {
	there, absent, value := s.key(t, b, "there"), s.key(t, b, "absent"), s.value()
	mustSet(t, b, there, value)
	for _, illegal := range illegalKeys {
		outcomes := readBatch(bounded(t), t, b.Batch, []string{illegal, there, illegal, absent})
		wantOnly(t, outcomes[0].Err, secret.ErrInvalid, "ReadBatch of the key "+shorten(illegal))
		wantOutcome(t, outcomes[1], there, value)
		wantOnly(t, outcomes[2].Err, secret.ErrInvalid, "ReadBatch of the key "+shorten(illegal))
		wantOnly(t, outcomes[3].Err, secret.ErrNotFound, "ReadBatch of a missing key")
	}
}

func (s *suite) batchMany(t *testing.T, b secret.Capabilities) {
	if n := len(b.Batch.ReadBatch(bounded(t), nil)); n != 0 {
		t.Errorf("ReadBatch of no key returns %d outcomes", n)
	}
	prefix := s.prefix()
	keys := make([]string, 45) // AWS takes 20 at once
	for i := range keys {
		keys[i] = fmt.Sprintf("%s/%d", prefix, i)
		if i%9 == 0 {
			continue // missing
		}
		s.cleanup(t, b, keys[i])
		mustSet(t, b, keys[i], "the value of "+keys[i])
	}
	for i, o := range readBatch(bounded(t), t, b.Batch, keys) {
		if i%9 == 0 {
			wantOnly(t, o.Err, secret.ErrNotFound, "ReadBatch of a missing key")
		} else {
			wantOutcome(t, o, keys[i], "the value of "+keys[i])
		}
	}
}

func (s *suite) batchVersions(t *testing.T, b secret.Capabilities) {
	set, created := s.key(t, b, "set"), s.key(t, b, "created")
	mustSet(t, b, set, "value")
	keys := []string{set}
	if b.Owned != nil {
		mustCreate(t, b.Owned, created, "first", "owner-a")
		mustReplace(t, b.Owned, created, "second", "owner-b")
		keys = append(keys, created)
	}
	for i, o := range readBatch(bounded(t), t, b.Batch, keys) {
		if o.Item.Owner != "" {
			t.Errorf("ReadBatch: %s: the owner is %q, want none", keys[i], o.Item.Owner)
		}
		if b.Owned == nil {
			continue
		}
		if want := read(t, b.Owned, keys[i]).Version; o.Item.Version != want {
			t.Errorf("ReadBatch: %s: the version is %q, that of Read %q", keys[i], o.Item.Version, want)
		}
	}
}

func (s *suite) batchFresh(t *testing.T, b secret.Capabilities) {
	id, sec := s.key(t, b, "client_id"), s.key(t, b, "client_secret")
	keys := []string{id, sec}
	for range 5 {
		// Before each write a read, which a cache would remember.
		readBatch(bounded(t), t, b.Batch, keys)
		first, second := s.value(), s.value()
		mustSet(t, b, id, first)
		mustSet(t, b, sec, second)
		outcomes := readBatch(bounded(t), t, b.Batch, keys)
		wantOutcome(t, outcomes[0], id, first)
		wantOutcome(t, outcomes[1], sec, second)
		mustDelete(t, b, id)
		outcomes = readBatch(bounded(t), t, b.Batch, keys)
		wantOnly(t, outcomes[0].Err, secret.ErrNotFound, "ReadBatch of a deleted key")
		wantOutcome(t, outcomes[1], sec, second)
	}
}

func (s *suite) batchEnded(t *testing.T, b secret.Capabilities) {
	there, absent, value := s.key(t, b, "there"), s.key(t, b, "absent"), s.value()
	mustSet(t, b, there, value)
	for _, want := range []error{context.Canceled, context.DeadlineExceeded} {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		if errors.Is(want, context.DeadlineExceeded) {
			ctx, cancel = context.WithTimeout(context.Background(), 0)
		} else {
			cancel()
		}
		for _, o := range readBatch(ctx, t, b.Batch, []string{there, absent, there}) {
			wantOnly(t, o.Err, want, "ReadBatch with a ctx that has ended")
			wantNoTrace(t, "ReadBatch", o.Err, value)
		}
		cancel()
	}
	wantOutcome(t, readBatch(bounded(t), t, b.Batch, []string{there})[0], there, value)
}

func (s *suite) batchPrinted(t *testing.T, b secret.Capabilities) {
	there, absent, value := s.key(t, b, "there"), s.key(t, b, "absent"), s.value()
	mustSet(t, b, there, value)
	outcomes := readBatch(bounded(t), t, b.Batch, []string{there, absent, "no key", there})
	if form := trace(fmt.Sprintf("%v %+v %#v", outcomes, outcomes, outcomes), value); form != "" {
		t.Errorf("the outcomes show a value when they are printed (%s)", form)
	}
	for _, o := range outcomes {
		wantNoTrace(t, "ReadBatch", o.Err, value)
	}
}

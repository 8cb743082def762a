package secrettest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// rebatch makes the fake return what change makes of honest outcomes.
func rebatch(change func(b *fake, keys []string, outcomes []secret.Outcome) []secret.Outcome) func() secret.SecretBackend {
	return func() secret.SecretBackend {
		f := honest()
		f.batch = func(ctx context.Context, keys []string) []secret.Outcome {
			return change(f, keys, f.Backend.ReadBatch(ctx, keys))
		}
		return f
	}
}

// asAWhole makes every outcome the first one that is target.
func asAWhole(target error) func() secret.SecretBackend {
	return rebatch(func(_ *fake, _ []string, outcomes []secret.Outcome) []secret.Outcome {
		failed := slices.IndexFunc(outcomes, func(o secret.Outcome) bool { return errors.Is(o.Err, target) })
		if failed >= 0 {
			for i := range outcomes {
				outcomes[i] = outcomes[failed]
			}
		}
		return outcomes
	})
}

// brokenBatch break a sentence of BatchReader.
var brokenBatch = []broken{
	{"BatchInTheStoresOrder", rebatch(func(_ *fake, _ []string, outcomes []secret.Outcome) []secret.Outcome {
		slices.Reverse(outcomes)
		return outcomes
	}), []string{"ReadBatchReturnsWhatGetReturnsInTheOrderOfTheKeys", "AMissingKeySpoilsNoOtherOfABatch"}},
	{"BatchMergesTwins", rebatch(func(_ *fake, keys []string, outcomes []secret.Outcome) []secret.Outcome {
		return outcomes[:len(slices.Compact(slices.Clone(keys)))]
	}), []string{"ReadBatchReturnsWhatGetReturnsInTheOrderOfTheKeys"}},
	{"BatchTrims", rebatch(func(_ *fake, _ []string, outcomes []secret.Outcome) []secret.Outcome {
		for i, o := range outcomes {
			outcomes[i].Item.Value = secret.NewValue(strings.TrimSpace(o.Item.Value.Reveal()))
		}
		return outcomes
	}), []string{"ReadBatchReturnsWhatGetReturnsInTheOrderOfTheKeys"}},
	{"BatchLeavesOutWhatIsMissing", rebatch(func(_ *fake, _ []string, outcomes []secret.Outcome) []secret.Outcome {
		return slices.DeleteFunc(outcomes, func(o secret.Outcome) bool { return errors.Is(o.Err, secret.ErrNotFound) })
	}), []string{"AMissingKeySpoilsNoOtherOfABatch"}},
	{"BatchFindsWhatIsMissing", rebatch(func(_ *fake, _ []string, outcomes []secret.Outcome) []secret.Outcome {
		for i, o := range outcomes {
			if errors.Is(o.Err, secret.ErrNotFound) {
				outcomes[i].Err = nil
			}
		}
		return outcomes
	}), []string{"AMissingKeySpoilsNoOtherOfABatch"}},
	{"BatchFailsForOneMissing", asAWhole(secret.ErrNotFound), []string{"AMissingKeySpoilsNoOtherOfABatch"}},
	{"BatchFailsForOneIllegal", asAWhole(secret.ErrInvalid), []string{"AnIllegalKeySpoilsNoOtherOfABatch"}},
	{"BatchTakesTwenty", rebatch(func(_ *fake, keys []string, outcomes []secret.Outcome) []secret.Outcome {
		for i := range outcomes {
			if len(keys) > 20 {
				outcomes[i] = secret.Outcome{Err: fmt.Errorf("memory: read %s: %w: too many keys", keys[i], secret.ErrInvalid)}
			}
		}
		return outcomes
	}), []string{"ABatchMayHaveNoKeyAndMany"}},
	{"BatchTellsOwners", rebatch(func(b *fake, keys []string, outcomes []secret.Outcome) []secret.Outcome {
		for i, key := range keys {
			if item, err := b.Backend.Read(context.Background(), key); err == nil {
				outcomes[i].Item = item
			}
		}
		return outcomes
	}), []string{"ABatchTellsVersionsAndNoOwner"}},
	{"BatchForgetsVersions", rebatch(func(_ *fake, _ []string, outcomes []secret.Outcome) []secret.Outcome {
		for i := range outcomes {
			outcomes[i].Item.Version = ""
		}
		return outcomes
	}), []string{"ABatchTellsVersionsAndNoOwner"}},
	{"BatchRemembers", func() secret.SecretBackend {
		f := honest()
		seen := map[string]secret.Outcome{} // a subtest of the suite reads one batch after the other
		f.batch = func(ctx context.Context, keys []string) []secret.Outcome {
			outcomes := f.Backend.ReadBatch(ctx, keys)
			for i, key := range keys {
				if old, ok := seen[key]; ok && ctx.Err() == nil {
					outcomes[i] = old
				}
				seen[key] = outcomes[i]
			}
			return outcomes
		}
		return f
	}, []string{"ReadBatchSeesTheWriteBeforeIt"}},
	{"BatchGoesOn", func() secret.SecretBackend {
		f := honest()
		f.batch = func(ctx context.Context, keys []string) []secret.Outcome {
			return f.Backend.ReadBatch(context.WithoutCancel(ctx), keys)
		}
		return f
	}, []string{"EveryOutcomeOfAnEndedBatchIsItsContexts", "ACancelledContextEndsTheCall"}},
	{"BatchQuotesWhatItHasRead", rebatch(func(_ *fake, _ []string, outcomes []secret.Outcome) []secret.Outcome {
		for _, o := range outcomes {
			for i := range outcomes {
				if outcomes[i].Err != nil && o.Err == nil {
					outcomes[i].Err = fmt.Errorf("%w (the store has answered %q)", outcomes[i].Err, o.Item.Value.Reveal())
				}
			}
		}
		return outcomes
	}), []string{"AnOutcomeShowsNoValueWhenPrinted"}},
	{"BatchNamesNoKey", rebatch(func(_ *fake, _ []string, outcomes []secret.Outcome) []secret.Outcome {
		for i, o := range outcomes {
			if o.Err != nil {
				outcomes[i].Err = renamed{o.Err, "memory: read failed"}
			}
		}
		return outcomes
	}), []string{"ErrorsNameTheBackendTheOperationAndTheKey"}},
}

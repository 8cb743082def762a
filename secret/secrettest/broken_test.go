package secrettest_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// broken is a fake that breaks a sentence of the contract.
type broken struct {
	name  string
	fake  func() secret.SecretBackend
	fails []string // subtests that have to fail
}

// wrap replaces every error that is target by what becomes returns.
func wrap(target error, becomes func(err error, key, value string) error) func() secret.SecretBackend {
	return func() secret.SecretBackend {
		return honest().fail(func(err error, key, value string) error {
			if err == nil || !errors.Is(err, target) {
				return err
			}
			return becomes(err, key, value)
		})
	}
}

// brokenBackends break a sentence of SecretBackend.
var brokenBackends = []broken{
	{"ReturnsEmptyForMissing", func() secret.SecretBackend {
		f := honest()
		f.get = func(ctx context.Context, key string) (string, error) {
			v, err := f.Backend.Get(ctx, key)
			if errors.Is(err, secret.ErrNotFound) {
				return "", nil
			}
			return v, err
		}
		return f
	}, []string{"GetOfAMissingKeyIsErrNotFound", "DeleteRemovesTheKey"}},
	{"CallsMissingUnavailable", wrap(secret.ErrNotFound, func(_ error, key, _ string) error {
		return fmt.Errorf("memory: get or read %s: %w", key, secret.ErrUnavailable)
	}), []string{"GetOfAMissingKeyIsErrNotFound", "ReadOfAMissingKeyIsErrNotFound"}},
	{"WrapsTwoSentinels", wrap(secret.ErrNotFound, func(err error, _, _ string) error {
		return fmt.Errorf("%w (%w)", err, secret.ErrDenied)
	}), []string{"GetOfAMissingKeyIsErrNotFound"}},
	{"FlattensErrors", wrap(secret.ErrNotFound, func(err error, _, _ string) error {
		return errors.New(err.Error())
	}), []string{"GetOfAMissingKeyIsErrNotFound"}},
	{"FindsFolders", func() secret.SecretBackend {
		f := honest()
		f.get = func(ctx context.Context, key string) (string, error) {
			v, err := f.Backend.Get(ctx, key)
			if errors.Is(err, secret.ErrNotFound) {
				for _, k := range f.Keys() {
					if strings.HasPrefix(k, key+"/") {
						return f.Backend.Get(ctx, k)
					}
				}
			}
			return v, err
		}
		return f
	}, []string{"GetOfAMissingKeyIsErrNotFound"}},

	{"TrimsSpaces", func() secret.SecretBackend {
		return honest().rewrite(same, func(v string) string { return strings.Trim(v, " \t") })
	}, []string{"GetReturnsTheValueByteForByte/Spaces", "GetReturnsTheValueByteForByte/OneSpace", "ReadReturnsWhatGetReturns", "CreateAndReplaceKeepTheValueByteForByte"}},
	{"DropsTheLastNewline", func() secret.SecretBackend {
		return honest().rewrite(same, func(v string) string { return strings.TrimSuffix(v, "\n") })
	}, []string{"GetReturnsTheValueByteForByte/Newlines"}},
	{"UnfoldsJSON", func() secret.SecretBackend {
		return honest().rewrite(same, func(v string) string {
			var s string
			if json.Unmarshal([]byte(v), &s) == nil {
				return s
			}
			return v
		})
	}, []string{"GetReturnsTheValueByteForByte/JSONString"}},
	{"EscapesHTML", func() secret.SecretBackend {
		return honest().rewrite(same, func(v string) string { return strings.ReplaceAll(v, "<", `\u003c`) })
	}, []string{"GetReturnsTheValueByteForByte/Markup"}},
	{"CutsAt1000Characters", func() secret.SecretBackend {
		return honest().rewrite(same, func(v string) string { return string([]rune(v)[:min(1000, len([]rune(v)))]) })
	}, []string{"GetReturnsTheValueByteForByte/MaxLength", "GetReturnsTheValueByteForByte/MaxLengthEmoji"}},
	{"DropsControlCharacters", func() secret.SecretBackend {
		return honest().rewrite(same, func(v string) string {
			v = strings.Map(func(r rune) rune {
				if r < ' ' && r != '\n' && r != '\r' && r != '\t' {
					return -1
				}
				return r
			}, v)
			if v == "" {
				return "x"
			}
			return v
		})
	}, []string{"GetReturnsTheValueByteForByte/Control"}},
	{"DropsTheByteOrderMark", func() secret.SecretBackend {
		return honest().rewrite(same, func(v string) string { return strings.TrimPrefix(v, "\ufeff") })
	}, []string{"GetReturnsTheValueByteForByte/Separators"}},

	{"IgnoresCaseOfKeys", func() secret.SecretBackend { return honest().rewrite(strings.ToLower, same) },
		[]string{"KeysDoNotGetConfused"}},
	{"MapsSlashToUnderscores", func() secret.SecretBackend {
		return honest().rewrite(func(k string) string {
			if secret.CheckKey(k) != nil {
				return k
			}
			k = strings.ReplaceAll(k, "/", "__")
			return k[:min(len(k), secret.MaxSegmentBytes)]
		}, same)
	}, []string{"KeysDoNotGetConfused"}},
	{"RefusesLongKeys", func() secret.SecretBackend {
		return honest().rewrite(func(k string) string {
			if len(k) > 150 {
				return "no key"
			}
			return k
		}, same)
	}, []string{"EveryLegalKeyIsAccepted/LongestKey"}},
	{"RefusesTwoDots", func() secret.SecretBackend {
		return honest().rewrite(func(k string) string {
			if strings.Contains(k, "..") {
				return "no key"
			}
			return k
		}, same)
	}, []string{"EveryLegalKeyIsAccepted/Dots"}},
	{"CleansKeys", func() secret.SecretBackend {
		return honest().rewrite(func(k string) string { return strings.Trim(strings.ReplaceAll(k, "//", "/"), "/") }, same)
	}, []string{"EveryIllegalKeyIsErrInvalid"}},
	{"CallsIllegalKeysMissing", func() secret.SecretBackend {
		return honest().fail(func(err error, key, _ string) error {
			if err != nil && secret.CheckKey(key) != nil {
				return fmt.Errorf("memory: get %s: %w", key, secret.ErrNotFound)
			}
			return err
		})
	}, []string{"EveryIllegalKeyIsErrInvalid"}},

	{"AcceptsOversize", func() secret.SecretBackend {
		return honest().lenient(func(_, v string) bool { return len(v) > secret.MaxValueBytes })
	}, []string{"EveryIllegalValueIsErrInvalid"}},
	{"AcceptsEmpty", func() secret.SecretBackend {
		return honest().lenient(func(_, v string) bool { return v == "" })
	}, []string{"EveryIllegalValueIsErrInvalid"}},
	{"AcceptsInvalidUTF8", func() secret.SecretBackend {
		return honest().lenient(func(_, v string) bool { return strings.Contains(v, "\xff") })
	}, []string{"EveryIllegalValueIsErrInvalid"}},
	{"DeletesOnEmptySet", func() secret.SecretBackend {
		f := honest()
		f.set = func(ctx context.Context, key, value string) error {
			if value == "" {
				_ = f.Backend.Delete(ctx, key)
			}
			return f.Backend.Set(ctx, key, value)
		}
		return f
	}, []string{"ARefusedSetChangesNothing"}},

	{"KeepsTheFirstValue", func() secret.SecretBackend {
		f := honest()
		f.set = func(ctx context.Context, key, value string) error {
			if _, err := f.Backend.Get(ctx, key); err == nil && secret.CheckValue(value) == nil {
				return nil
			}
			return f.Backend.Set(ctx, key, value)
		}
		return f
	}, []string{"SetReplacesTheValue"}},
	{"ReadsThroughAStaleCache", func() secret.SecretBackend { return staleCache() },
		[]string{"GetSeesTheSetBeforeIt", "DeleteRemovesTheKey"}},

	{"DeleteIsNotIdempotent", func() secret.SecretBackend {
		f := honest()
		f.del = func(ctx context.Context, key string) error {
			if _, err := f.Backend.Get(ctx, key); err != nil {
				return fmt.Errorf("delete: %w", err)
			}
			return f.Backend.Delete(ctx, key)
		}
		return f
	}, []string{"DeleteOfAMissingKeyIsNil"}},
	{"DeleteUncoversTheVersionBefore", func() secret.SecretBackend { return undo() },
		[]string{"DeleteRemovesTheKey"}},
	{"DeletesTheFolder", func() secret.SecretBackend {
		f := honest()
		f.del = func(ctx context.Context, key string) error {
			for _, k := range f.Keys() {
				if strings.HasPrefix(k, key+"/") {
					_ = f.Backend.Delete(ctx, k)
				}
			}
			return f.Backend.Delete(ctx, key)
		}
		return f
	}, []string{"DeleteLeavesTheOtherKeys"}},
	{"HoldsDeletedNames", func() secret.SecretBackend {
		f, deleted := honest(), sync.Map{}
		f.del = func(ctx context.Context, key string) error {
			if _, err := f.Backend.Get(ctx, key); err == nil {
				deleted.Store(key, true)
			}
			return f.Backend.Delete(ctx, key)
		}
		f.set = func(ctx context.Context, key, value string) error {
			if _, held := deleted.Load(key); held {
				return fmt.Errorf("memory: set %s: %w: scheduled for deletion", key, secret.ErrInvalid)
			}
			return f.Backend.Set(ctx, key, value)
		}
		f.create = func(ctx context.Context, key, value, owner string) (string, error) {
			if _, held := deleted.Load(key); held {
				return "", fmt.Errorf("memory: create %s: %w: scheduled for deletion", key, secret.ErrInvalid)
			}
			return f.Backend.Create(ctx, key, value, owner)
		}
		return f
	}, []string{"SetWorksAgainAtOnceAfterDelete", "CreateWorksAgainAtOnceAfterDelete"}},

	{"IgnoresCancellation", func() secret.SecretBackend { return ignoreContext(context.Canceled) },
		[]string{"ACancelledContextEndsTheCall", "ProbeHonoursItsContext"}},
	{"IgnoresDeadlines", func() secret.SecretBackend { return ignoreContext(context.DeadlineExceeded) },
		[]string{"APassedDeadlineEndsTheCall"}},
	{"CallsCancellationUnavailable", wrap(context.Canceled, func(_ error, key, _ string) error {
		return fmt.Errorf("memory: get, set, delete, create, replace %s: %w", key, secret.ErrUnavailable)
	}), []string{"ACancelledContextEndsTheCall"}},
	{"CallsDeadlinesUnavailableToo", wrap(context.DeadlineExceeded, func(err error, _, _ string) error {
		return fmt.Errorf("%w: %w", err, secret.ErrUnavailable)
	}), []string{"APassedDeadlineEndsTheCall"}},
	{"WritesInTwoSteps", func() secret.SecretBackend {
		f := honest()
		f.set = func(ctx context.Context, key, value string) error {
			if err := f.Backend.Set(ctx, key, value); err != nil {
				return err
			}
			half := strings.ToValidUTF8(value[:len(value)/2], "")
			if half == "" {
				return nil
			}
			_ = f.Backend.Set(context.Background(), key, half)
			select {
			case <-ctx.Done():
				return fmt.Errorf("memory: set %s: %w", key, ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
			return f.Backend.Set(context.Background(), key, value)
		}
		return f
	}, []string{"AnInterruptedSetLeavesTheOldValueOrTheNew", "ConcurrentCallsOnOneKeyNeverMixValues"}},
	{"LosesUpdates", func() secret.SecretBackend { return lostUpdates() },
		[]string{"ConcurrentCallsOnManyKeysLoseNothing"}},

	{"NamesNoKey", func() secret.SecretBackend {
		return honest().fail(func(err error, key, _ string) error {
			if err == nil || key == "" {
				return err
			}
			return renamed{err, strings.ReplaceAll(err.Error(), key, "?")}
		})
	}, []string{"ErrorsNameTheBackendTheOperationAndTheKey", "ErrExistsShowsNoValue"}},
	{"NamesNoOperation", func() secret.SecretBackend {
		return honest().fail(func(err error, key, _ string) error {
			if err == nil {
				return err
			}
			return renamed{err, "memory: " + key + " failed"}
		})
	}, []string{"ErrorsNameTheBackendTheOperationAndTheKey"}},
	{"NamesNoBackend", func() secret.SecretBackend {
		return honest().fail(func(err error, _, _ string) error {
			if err == nil {
				return err
			}
			return renamed{err, strings.TrimPrefix(err.Error(), "memory: ")}
		})
	}, []string{"ErrorsNameTheBackendTheOperationAndTheKey"}},
	{"QuotesTheValue", wrap(context.Canceled, func(err error, _, value string) error {
		return fmt.Errorf("%w: writing %q", err, value)
	}), []string{"ErrorsShowNoValue"}},
	{"QuotesARefusedValue", wrap(secret.ErrInvalid, func(err error, _, value string) error {
		return fmt.Errorf("%w: %.40s…", err, value)
	}), []string{"ErrorsShowNoValue"}},
	{"HashesTheValue", wrap(context.Canceled, func(err error, _, value string) error {
		return fmt.Errorf("%w: sha256 %x", err, sha256.Sum256([]byte(value)))
	}), []string{"ErrorsShowNoValue"}},
	{"HidesTheValueInAField", wrap(context.Canceled, func(err error, _, value string) error {
		return withBody{err, value}
	}), []string{"ErrorsShowNoValue"}},
	{"QuotesTheExistingValue", wrap(secret.ErrExists, func(err error, _, value string) error {
		return fmt.Errorf("%w: not replaced by %s", err, value)
	}), []string{"ErrExistsShowsNoValue"}},
	{"PrintsItsValues", func() secret.SecretBackend {
		f := honest()
		f.print = func() string {
			var all []string
			for _, k := range f.Keys() {
				v, _ := f.Backend.Get(context.Background(), k)
				all = append(all, k+"="+v)
			}
			return strings.Join(all, " ")
		}
		return f
	}, []string{"TheBackendShowsNoValueWhenPrinted"}},
}

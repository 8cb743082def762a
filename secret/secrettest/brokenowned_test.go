package secrettest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// brokenOwned break a sentence of OwnedBackend, Locator or Prober.
var brokenOwned = []broken{
	{"ReadForgetsToFind", func() secret.SecretBackend {
		f := honest()
		f.read = func(ctx context.Context, key string) (secret.Item, error) {
			item, err := f.Backend.Read(ctx, key)
			if errors.Is(err, secret.ErrNotFound) {
				return secret.Item{}, nil
			}
			return item, err
		}
		return f
	}, []string{"ReadOfAMissingKeyIsErrNotFound"}},
	{"ReadTrims", func() secret.SecretBackend {
		f := honest()
		f.read = func(ctx context.Context, key string) (secret.Item, error) {
			item, err := f.Backend.Read(ctx, key)
			item.Value = secret.NewValue(strings.TrimSpace(item.Value.Reveal()))
			return item, err
		}
		return f
	}, []string{"ReadReturnsWhatGetReturns"}},
	{"CreateForgetsTheOwner", func() secret.SecretBackend {
		f := honest()
		f.create = func(ctx context.Context, key, value, owner string) (string, error) {
			return f.Backend.Create(ctx, key, value, "somebody")
		}
		return f
	}, []string{"CreateStoresTheValueWithItsOwner", "CreateWorksAgainAtOnceAfterDelete", "EveryLegalOwnerIsKept"}},
	{"CreateOverwrites", func() secret.SecretBackend {
		f := honest()
		f.create = func(ctx context.Context, key, value, owner string) (string, error) {
			return f.Backend.Replace(ctx, key, value, owner, "")
		}
		return f
	}, []string{"CreateOfAnExistingKeyIsErrExistsAndChangesNothing", "OfConcurrentCreatesExactlyOneSucceeds"}},
	{"CreateOverwritesItsOwn", func() secret.SecretBackend {
		f := honest()
		f.create = func(ctx context.Context, key, value, owner string) (string, error) {
			if item, err := f.Backend.Read(ctx, key); err == nil && item.Owner == owner {
				return f.Backend.Replace(ctx, key, value, owner, "")
			}
			return f.Backend.Create(ctx, key, value, owner)
		}
		return f
	}, []string{"CreateOfAnExistingKeyIsErrExistsAndChangesNothing"}},
	{"ExistsIsInvalidToo", wrap(secret.ErrExists, func(err error, _, _ string) error {
		return fmt.Errorf("%w: %w", err, secret.ErrInvalid)
	}), []string{"CreateOfAnExistingKeyIsErrExistsAndChangesNothing"}},
	{"CreateReadsThenWrites", func() secret.SecretBackend {
		f := honest()
		f.create = func(ctx context.Context, key, value, owner string) (string, error) {
			if _, err := f.Backend.Read(ctx, key); err == nil {
				return f.Backend.Create(ctx, key, value, owner)
			}
			runtime.Gosched()
			time.Sleep(rand.N(time.Millisecond))
			return f.Backend.Replace(ctx, key, value, owner, "")
		}
		return f
	}, []string{"OfConcurrentCreatesExactlyOneSucceeds"}},
	{"ReplaceKeepsTheOldOwner", func() secret.SecretBackend {
		f := honest()
		f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
			if item, err := f.Backend.Read(ctx, key); err == nil && item.Owner != "" {
				owner = item.Owner
			}
			return f.Backend.Replace(ctx, key, value, owner, ifVersion)
		}
		return f
	}, []string{"ReplaceStoresTheValueWithItsOwner"}},
	{"ReplaceTrims", func() secret.SecretBackend {
		f := honest()
		f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
			if strings.TrimSpace(value) != "" {
				value = strings.TrimSpace(value)
			}
			return f.Backend.Replace(ctx, key, value, owner, ifVersion)
		}
		return f
	}, []string{"CreateAndReplaceKeepTheValueByteForByte"}},
	{"SetKeepsTheOwner", func() secret.SecretBackend {
		f := honest()
		f.set = func(ctx context.Context, key, value string) error {
			if item, err := f.Backend.Read(ctx, key); err == nil && item.Owner != "" && secret.CheckValue(value) == nil {
				_, err = f.Backend.Replace(ctx, key, value, item.Owner, "")
				return err
			}
			return f.Backend.Set(ctx, key, value)
		}
		return f
	}, []string{"SetLeavesNoOwner"}},
	{"KeepsOwnersElsewhere", func() secret.SecretBackend { return ownersElsewhere() },
		[]string{"DeleteRemovesTheOwnerToo"}},
	{"CountsVersionsWrong", func() secret.SecretBackend {
		f := honest()
		f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
			_, err := f.Backend.Replace(ctx, key, value, owner, ifVersion)
			return "1", err
		}
		return f
	}, []string{"EachWriteHasAVersionOfItsOwn"}},
	{"NamesVersionsAtRandom", func() secret.SecretBackend {
		f := honest()
		f.read = func(ctx context.Context, key string) (secret.Item, error) {
			item, err := f.Backend.Read(ctx, key)
			item.Version += fmt.Sprintf("-%d", rand.Uint64())
			return item, err
		}
		return f
	}, []string{"EachWriteHasAVersionOfItsOwn"}},
	{"AcceptsAnyOwner", func() secret.SecretBackend {
		f := honest()
		f.create = func(ctx context.Context, key, value, owner string) (string, error) {
			if secret.CheckOwner(owner) != nil {
				owner = "cleaned"
			}
			return f.Backend.Create(ctx, key, value, owner)
		}
		return f
	}, []string{"EveryIllegalOwnerIsErrInvalid"}},
	{"CleansOwners", func() secret.SecretBackend {
		f := honest()
		f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
			if owner != "/" {
				owner = strings.TrimSuffix(owner, "/")
			}
			return f.Backend.Replace(ctx, key, value, owner, ifVersion)
		}
		return f
	}, []string{"EveryLegalOwnerIsKept"}},

	{"ReplaceIgnoresTheVersion", func() secret.SecretBackend {
		f := honest()
		f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
			return f.Backend.Replace(ctx, key, value, owner, "")
		}
		return f
	}, []string{"ReplaceOfAnotherVersionIsErrChangedAndChangesNothing", "OfConcurrentReplacesOfOneVersionExactlyOneSucceeds"}},
	{"ReplaceComparesThenWrites", func() secret.SecretBackend {
		f := honest()
		f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
			if item, err := f.Backend.Read(ctx, key); err != nil || item.Version != ifVersion {
				return f.Backend.Replace(ctx, key, value, owner, ifVersion)
			}
			runtime.Gosched()
			time.Sleep(rand.N(time.Millisecond))
			return f.Backend.Replace(ctx, key, value, owner, "")
		}
		return f
	}, []string{"OfConcurrentReplacesOfOneVersionExactlyOneSucceeds"}},
	{"ReplaceRefusesEveryVersion", func() secret.SecretBackend {
		f := honest()
		f.replace = func(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
			if ifVersion != "" {
				ifVersion = "0"
			}
			return f.Backend.Replace(ctx, key, value, owner, ifVersion)
		}
		return f
	}, []string{"ReplaceOfTheStoredVersionReplacesIt"}},
	{"CallsAChangeAnOutage", wrap(secret.ErrChanged, func(err error, _, _ string) error {
		return fmt.Errorf("%w: %w", err, secret.ErrUnavailable)
	}), []string{"ReplaceOfAnotherVersionIsErrChangedAndChangesNothing"}},
	{"RemoveVersionDeletesTheKey", func() secret.SecretBackend {
		f := honest()
		f.remove = func(ctx context.Context, key, _ string) error { return f.Backend.Delete(ctx, key) }
		return f
	}, []string{"RemoveVersionLeavesANewerOne"}},
	{"RemoveVersionRemovesNothing", func() secret.SecretBackend {
		f := honest()
		f.remove = func(ctx context.Context, key, _ string) error {
			return f.Backend.RemoveVersion(ctx, key, "1000000")
		}
		return f
	}, []string{"RemoveVersionRemovesTheNewest"}},
	{"RemoveVersionMissesIt", func() secret.SecretBackend {
		f := honest()
		f.remove = func(ctx context.Context, key, version string) error {
			if _, err := f.Backend.Read(ctx, key); err != nil && secret.CheckKey(key) == nil {
				return err
			}
			return f.Backend.RemoveVersion(ctx, key, version)
		}
		return f
	}, []string{"RemoveVersionOfAMissingVersionIsNil"}},

	{"LocatesNowhere", func() secret.SecretBackend {
		f := honest()
		f.locate = func(string) string { return "memory" }
		return f
	}, []string{"LocateTellsWhereAKeyAndAProviderLie"}},
	{"IsNeverHealthy", func() secret.SecretBackend {
		f := honest()
		f.probe = func(ctx context.Context, need secret.Access) error {
			if need == secret.ReadWrite && ctx.Err() == nil {
				return secret.ErrDenied
			}
			return f.Backend.Probe(ctx, need)
		}
		return f
	}, []string{"ProbeOfAHealthyBackendIsNil"}},
}

package secrettest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
)

// abandoning leaves remnants in the map of the reference backend, or of a fake around one.
var abandoning = secrettest.Remnants{
	Leave: func(_ *testing.T, b secret.SecretBackend, key, owner string) {
		b.(interface{ Abandon(key, owner string) }).Abandon(key, owner)
	},
	Left: func(_ *testing.T, b secret.SecretBackend, key string) bool {
		return b.(interface{ Abandoned(key string) bool }).Abandoned(key)
	},
}

// brokenRemnants break a sentence of RemnantRemover.
var brokenRemnants = []broken{
	{"RemovesNoRemnant", func() secret.SecretBackend {
		f := honest()
		f.clear = func(ctx context.Context, key string, mine func(string) bool) (bool, error) {
			_, err := f.Backend.RemoveRemnant(ctx, key, func(owner string) bool { mine(owner); return false })
			return err == nil && f.Abandoned(key), err
		}
		return f
	}, []string{"RemoveRemnantRemovesWhatItsOwnerHasBegun"}},
	{"RemovesAnybodysRemnant", func() secret.SecretBackend {
		f := honest()
		f.clear = func(ctx context.Context, key string, _ func(string) bool) (bool, error) {
			return f.Backend.RemoveRemnant(ctx, key, func(string) bool { return true })
		}
		return f
	}, []string{"RemoveRemnantLeavesWhatAnotherOwnerHasBegun", "RemoveRemnantRemovesWhatItsOwnerHasBegun"}},
	{"TakesAValueForARemnant", func() secret.SecretBackend {
		f := honest()
		f.clear = func(ctx context.Context, key string, mine func(string) bool) (bool, error) {
			item, err := f.Backend.Read(ctx, key)
			if err == nil && mine(item.Owner) {
				return true, f.Backend.Delete(ctx, key)
			}
			return f.Backend.RemoveRemnant(ctx, key, mine)
		}
		return f
	}, []string{"RemoveRemnantLeavesAValue"}},
	{"MissesARemnant", func() secret.SecretBackend {
		f := honest()
		f.clear = func(ctx context.Context, key string, mine func(string) bool) (bool, error) {
			if _, err := f.Backend.Read(ctx, key); errors.Is(err, secret.ErrNotFound) && !f.Abandoned(key) {
				return false, err
			}
			return f.Backend.RemoveRemnant(ctx, key, mine)
		}
		return f
	}, []string{"RemoveRemnantOfAMissingKeyIsNil", "RemoveRemnantRemovesWhatItsOwnerHasBegun"}},
}

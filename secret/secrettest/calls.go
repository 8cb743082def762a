package secrettest

import (
	"context"
	"errors"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
)

// owner is the owner of what the suite writes.
const owner = "secrettest/owner.1"

// call is a method of the backend with what it needs.
type call struct {
	name  string
	words []string // how a message may call the operation
	value bool     // it takes a value
	owner bool     // it takes an owner
	do    func(ctx context.Context, key, value, owner string) error
}

// calls returns the methods of b.
func calls(b secret.SecretBackend) []call {
	list := []call{
		{"Get", []string{"get", "read"}, false, false, func(ctx context.Context, key, _, _ string) error {
			_, err := b.Get(ctx, key)
			return err
		}},
		{"Set", []string{"set", "write", "store", "put"}, true, false, func(ctx context.Context, key, value, _ string) error {
			return b.Set(ctx, key, value)
		}},
		{"Delete", []string{"delete", "remove"}, false, false, func(ctx context.Context, key, _, _ string) error {
			return b.Delete(ctx, key)
		}},
	}
	can := secret.CapabilitiesOf(b)
	if can.Batch != nil {
		list = append(list, call{"ReadBatch", []string{"read", "get"}, false, false, func(ctx context.Context, key, _, _ string) error {
			return batchOfOne(ctx, can.Batch, key)
		}})
	}
	if can.Versions != nil {
		list = append(list, call{"RemoveVersion", []string{"remove"}, false, false, func(ctx context.Context, key, _, _ string) error {
			return can.Versions.RemoveVersion(ctx, key, "1")
		}})
	}
	if can.Remnants != nil {
		list = append(list, call{"RemoveRemnant", []string{"remove"}, false, false, func(ctx context.Context, key, _, _ string) error {
			_, err := can.Remnants.RemoveRemnant(ctx, key, func(string) bool { return true })
			return err
		}})
	}
	o := can.Owned
	if o == nil {
		return list
	}
	return append(list,
		call{"Read", []string{"read", "get"}, false, false, func(ctx context.Context, key, _, _ string) error {
			_, err := o.Read(ctx, key)
			return err
		}},
		call{"Create", []string{"create"}, true, true, func(ctx context.Context, key, value, owner string) error {
			_, err := o.Create(ctx, key, value, owner)
			return err
		}},
		call{"Replace", []string{"replace"}, true, true, func(ctx context.Context, key, value, owner string) error {
			_, err := o.Replace(ctx, key, value, owner, "")
			return err
		}},
	)
}

// sentinels are the errors of which every error wraps exactly one, unless it is
// ctx's, ErrExists or ErrChanged.
var sentinels = map[string]error{
	"ErrNotFound":    secret.ErrNotFound,
	"ErrDenied":      secret.ErrDenied,
	"ErrUnavailable": secret.ErrUnavailable,
	"ErrThrottled":   secret.ErrThrottled,
	"ErrInvalid":     secret.ErrInvalid,
}

// wantOnly checks that err wraps want and no other sentinel, and no error of ctx
// unless that is wanted.
func wantOnly(t *testing.T, err, want error, what string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %v", what, want)
		return
	}
	if !errors.Is(err, want) {
		t.Errorf("%s: %v; want an error that wraps %q", what, err, want)
	}
	for name, sentinel := range sentinels {
		if !errors.Is(want, sentinel) && errors.Is(err, sentinel) {
			t.Errorf("%s: %v; it wraps %s too", what, err, name)
		}
	}
	for _, other := range []error{context.Canceled, context.DeadlineExceeded, secret.ErrExists, secret.ErrChanged} {
		if !errors.Is(want, other) && errors.Is(err, other) {
			t.Errorf("%s: %v; it wraps %q too", what, err, other)
		}
	}
}

// Package internalbackend is the secret backend that keeps the credentials in the
// broker's own database, sealed.
package internalbackend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nexus-broker/nexus-broker/internal/seal"
	"github.com/nexus-broker/nexus-broker/secret"
)

// Row is a sealed value as the database holds it.
type Row struct {
	Sealed  string // for the purpose "secret/<key>"
	Owner   string // "" if nobody is noted
	Version int64  // one more with each change
}

// Rows is the part of the broker's store that keeps sealed values. Each method is
// one durable transaction, safe for concurrent use, and honours ctx.
type Rows interface {
	// SealedRow returns the row of a key; found is false if there is none.
	SealedRow(ctx context.Context, key string) (row Row, found bool, err error)
	// InsertSealedRow inserts a row of this version. If the key has a row already it
	// changes nothing and inserted is false: of several concurrent inserts one succeeds.
	InsertSealedRow(ctx context.Context, key, sealed, owner string, version int64, now time.Time) (inserted bool, err error)
	// UpsertSealedRow replaces a row, or inserts one of the version initial, and returns its
	// version.
	UpsertSealedRow(ctx context.Context, key, sealed, owner string, initial int64, now time.Time) (version int64, err error)
	// UpdateSealedRow replaces a row of this version, and no other. updated is false if
	// the key has none: of several concurrent updates of one version one succeeds.
	UpdateSealedRow(ctx context.Context, key string, version int64, sealed, owner string, now time.Time) (updated bool, err error)
	// DeleteSealedRow deletes the row of a key, if there is one.
	DeleteSealedRow(ctx context.Context, key string) error
	// DeleteSealedVersion deletes the row of a key, if there is one of this version.
	DeleteSealedVersion(ctx context.Context, key string, version int64) error
	// Ping checks that the database answers and can be written to.
	Ping(ctx context.Context) error
}

// InternalBackend stores secrets in the broker's own database, encrypted with
// AES-256-GCM and bound to their key: a row copied onto another key does not open. It
// implements secret.OwnedBackend, secret.VersionRemover, secret.BatchReader, secret.Locator
// and secret.Prober.
//
// A database that fails is secret.ErrUnavailable. A value that does not open, because
// ENCRYPTION_KEY is another one or the row has been tampered with, is
// secret.ErrInvalid, and so can be replaced and deleted.
type InternalBackend struct {
	rows  Rows
	plain PlainRows // nil: there are none
	keys  *seal.Keyring
}

var (
	_ secret.OwnedBackend   = (*InternalBackend)(nil)
	_ secret.VersionRemover = (*InternalBackend)(nil)
	_ secret.Locator        = (*InternalBackend)(nil)
	_ secret.Prober         = (*InternalBackend)(nil)
)

// New returns a backend that keeps values in rows, sealed by keys.
func New(rows Rows, keys *seal.Keyring) *InternalBackend {
	plain, _ := rows.(PlainRows)
	return &InternalBackend{rows: rows, plain: plain, keys: keys}
}

func purpose(key string) string { return "secret/" + key }

// Get implements secret.SecretBackend.
func (b *InternalBackend) Get(ctx context.Context, key string) (string, error) {
	item, err := b.read(ctx, "get", key)
	return item.Value.Reveal(), err
}

// Read implements secret.OwnedBackend.
func (b *InternalBackend) Read(ctx context.Context, key string) (secret.Item, error) {
	return b.read(ctx, "read", key)
}

func (b *InternalBackend) read(ctx context.Context, operation, key string) (secret.Item, error) {
	if b.isPlain(key) {
		found := b.readPlain(ctx, operation, []string{key})[0]
		return found.Item, found.Err
	}
	if err := secret.CheckKey(key); err != nil {
		return secret.Item{}, failed(operation, key, err)
	}
	row, found, err := b.rows.SealedRow(ctx, key)
	switch {
	case err != nil:
		return secret.Item{}, unavailable(ctx, operation, key, err)
	case !found:
		return secret.Item{}, failed(operation, key, fmt.Errorf("%w: register or update the provider with its credentials", secret.ErrNotFound))
	}
	value, err := b.keys.Open(purpose(key), row.Sealed)
	if err != nil {
		return secret.Item{}, failed(operation, key,
			fmt.Errorf("%w: %w; configure the key it was sealed with, or set the credentials again", secret.ErrInvalid, err))
	}
	return secret.Item{Value: secret.NewValue(string(value)), Version: version(row.Version), Owner: row.Owner}, nil
}

// Set implements secret.SecretBackend.
func (b *InternalBackend) Set(ctx context.Context, key, value string) error {
	_, err := b.put(ctx, "set", key, value, "")
	return err
}

// Replace implements secret.OwnedBackend. Of several concurrent Replaces of one
// version exactly one succeeds.
func (b *InternalBackend) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	err := check(key, value)
	if err == nil {
		err = secret.CheckOwner(owner)
	}
	if err != nil {
		return "", failed("replace", key, err)
	}
	if ifVersion == "" {
		return b.put(ctx, "replace", key, value, owner)
	}
	changed := failed("replace", key, fmt.Errorf("%w: read it again", secret.ErrChanged))
	n, err := parseVersion(ifVersion)
	if err != nil {
		return "", changed
	}
	updated, err := b.rows.UpdateSealedRow(ctx, key, n, b.keys.Seal(purpose(key), []byte(value)), owner, time.Now())
	switch {
	case err != nil:
		return "", unavailable(ctx, "replace", key, err)
	case !updated:
		return "", changed
	}
	return version(n + 1), nil
}

func (b *InternalBackend) put(ctx context.Context, operation, key, value, owner string) (string, error) {
	if err := check(key, value); err != nil {
		return "", failed(operation, key, err)
	}
	n, err := b.rows.UpsertSealedRow(ctx, key, b.keys.Seal(purpose(key), []byte(value)), owner, firstVersion(), time.Now())
	if err != nil {
		return "", unavailable(ctx, operation, key, err)
	}
	return version(n), nil
}

// firstVersion returns where the versions of a new row begin. It is another number than that
// of any row that the key has had before: who has read one that was deleted, and comes late,
// replaces nothing of its successor.
func firstVersion() int64 { return 1 + rand.Int64N(1<<53) }

// Create implements secret.OwnedBackend. Of several concurrent Creates of one key
// exactly one succeeds.
func (b *InternalBackend) Create(ctx context.Context, key, value, owner string) (string, error) {
	err := check(key, value)
	if err == nil {
		err = secret.CheckOwner(owner)
	}
	if err != nil {
		return "", failed("create", key, err)
	}
	first := firstVersion()
	inserted, err := b.rows.InsertSealedRow(ctx, key, b.keys.Seal(purpose(key), []byte(value)), owner, first, time.Now())
	switch {
	case err != nil:
		return "", unavailable(ctx, "create", key, err)
	case !inserted:
		return "", failed("create", key, fmt.Errorf("%w: choose another name or delete what is there", secret.ErrExists))
	}
	return version(first), nil
}

// Delete implements secret.SecretBackend.
func (b *InternalBackend) Delete(ctx context.Context, key string) error {
	if err := secret.CheckKey(key); err != nil {
		return failed("delete", key, err)
	}
	if err := b.rows.DeleteSealedRow(ctx, key); err != nil {
		return unavailable(ctx, "delete", key, err)
	}
	return nil
}

// RemoveVersion implements secret.VersionRemover. A key has one version at a time.
func (b *InternalBackend) RemoveVersion(ctx context.Context, key, version string) error {
	const operation = "remove version"
	if err := secret.CheckKey(key); err != nil {
		return failed(operation, key, err)
	}
	n, err := parseVersion(version)
	if err != nil {
		return failed(operation, key, err)
	}
	if err := b.rows.DeleteSealedVersion(ctx, key, n); err != nil {
		return unavailable(ctx, operation, key, err)
	}
	return nil
}

// Probe implements secret.Prober. The broker's own database allows whatever it needs.
func (b *InternalBackend) Probe(ctx context.Context, _ secret.Access) error {
	if err := b.rows.Ping(ctx); err != nil {
		return unavailable(ctx, "probe", "", err)
	}
	return nil
}

func check(key, value string) error {
	if err := secret.CheckKey(key); err != nil {
		return err
	}
	return secret.CheckValue(value)
}

func version(n int64) string { return strconv.FormatInt(n, 10) }

func parseVersion(version string) (int64, error) {
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%w: it is no version of this store", secret.ErrInvalid)
	}
	return n, nil
}

func failed(operation, key string, err error) error {
	return fmt.Errorf("internal secret backend: %s %q: %w", operation, key, err)
}

// unavailable wraps an error of the database. If the caller's context has ended, that
// is the reason, and nobody's outage.
func unavailable(ctx context.Context, operation, key string, err error) error {
	if ended := ctx.Err(); ended != nil {
		if !errors.Is(err, ended) {
			err = fmt.Errorf("%w: %w", ended, err)
		}
		return failed(operation, key, err)
	}
	return failed(operation, key, fmt.Errorf("%w: the database failed, try again: %w", secret.ErrUnavailable, err))
}

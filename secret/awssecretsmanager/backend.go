// Package awssecretsmanager keeps secrets in AWS Secrets Manager.
//
// The key "google/client_id" is, with the prefix "nexus/providers", the secret
// nexus/providers/google/client_id; its value is the plain SecretString. A SecretBinary
// that is UTF-8, as a person may have stored it, is read too. A name that would end in a
// hyphen and six characters, which AWS could take for the ending of an ARN, gets "="
// behind it.
package awssecretsmanager

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Name is how the backend calls itself in errors.
const Name = "aws-secrets-manager"

// AWSBackend implements [secret.OwnedBackend], [secret.VersionRemover],
// [secret.RemnantRemover], [secret.Locator], [secret.Prober], [secret.BatchReader],
// [secret.ReferenceReader], [secret.Diagnoser] and [secret.PolicyWriter]. Printed in any way it shows no
// credential.
//
// A version is the id that AWS has for it, which the backend chooses itself. The owner
// of a value is a tag of the secret whose key names the version, so that it is never
// taken for another version's. Create and Replace are atomic: CreateSecret takes the
// first value together with its tags; a later one is stored beside the current value,
// marked, and then made the current one with UpdateSecretVersionStage, which AWS refuses
// if another version has become current since. Wherever that is cut off the old value
// keeps its owner.
//
// AWS cannot remove one version of a secret. What Delete and RemoveVersion remove is
// gone for every caller of the backend, but AWS keeps it: for Config.RecoveryDays, or,
// a single version beside others, until it removes deprecated versions. With
// RecoveryDays 0 a Delete is for good. A version that was removed carries the staging
// label "nexus-broker-deleted": a secret in its recovery window can only be written
// after it was restored, and the label keeps the deleted value from being read meanwhile.
type AWSBackend struct {
	prefix   string
	region   string
	kmsKey   string
	tags     map[string]string
	recovery int // days

	references []string // the prefixes of references

	sdk     *secretsmanager.Client
	creds   aws.CredentialsProvider
	config  aws.Config
	retryer aws.RetryerV2
	timeout time.Duration
	log     *slog.Logger

	locks keyLocks

	renew *aws.CredentialsCache // of the credentials in use; nil: they cannot be renewed

	mu          sync.Mutex
	batchDenied time.Time // until when BatchGetSecretValue is not tried
	renewed     time.Time // when credentials were dropped that AWS had refused
}

var (
	_ secret.OwnedBackend    = (*AWSBackend)(nil)
	_ secret.VersionRemover  = (*AWSBackend)(nil)
	_ secret.RemnantRemover  = (*AWSBackend)(nil)
	_ secret.Locator         = (*AWSBackend)(nil)
	_ secret.Prober          = (*AWSBackend)(nil)
	_ secret.BatchReader     = (*AWSBackend)(nil)
	_ secret.ReferenceReader = (*AWSBackend)(nil)
	_ secret.Diagnoser       = (*AWSBackend)(nil)
	_ secret.PolicyWriter    = (*AWSBackend)(nil)
)

// New returns a backend, or an error that lists everything that is wrong with the
// configuration. It reads the SDK's files and environment variables and sends nothing: a
// program can start while AWS is away.
func New(ctx context.Context, cfg Config, opts Options) (*AWSBackend, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	b := &AWSBackend{
		prefix: cfg.prefix(), kmsKey: cfg.KMSKeyID, recovery: cfg.RecoveryDays, tags: maps.Clone(cfg.Tags),
		references: slices.Clone(cfg.ReferencePrefixes),
		timeout:    cmp.Or(opts.Timeout, DefaultTimeout), log: opts.Logger,
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if err := b.connect(ctx, cfg, opts); err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	return b, nil
}

// Close closes idle connections. The backend shall not be used afterwards.
func (b *AWSBackend) Close() error {
	if c, ok := b.config.HTTPClient.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
	return nil
}

// Get implements [secret.SecretBackend]. It is one request.
func (b *AWSBackend) Get(ctx context.Context, key string) (string, error) {
	item, err := b.read(ctx, "get", key, false)
	return item.Value.Reveal(), err
}

// Read implements [secret.OwnedBackend]. It asks for the tags too, which is a second
// request. Where no policy allows that, the owner is not known and left empty.
func (b *AWSBackend) Read(ctx context.Context, key string) (secret.Item, error) {
	return b.read(ctx, "read", key, true)
}

func (b *AWSBackend) read(ctx context.Context, op, key string, withOwner bool) (item secret.Item, err error) {
	if err := secret.CheckKey(key); err != nil {
		return secret.Item{}, b.invalid(op, key, err)
	}
	err = b.run(ctx, b.action(op, key), func(ctx context.Context) (err error) {
		item, err = b.current(ctx, key)
		if err == nil && withOwner {
			item.Owner, err = b.owner(ctx, key, item.Version)
		}
		return err
	})
	if err != nil {
		return secret.Item{}, err
	}
	return item, nil
}

// Set implements [secret.SecretBackend].
func (b *AWSBackend) Set(ctx context.Context, key, value string) error {
	_, err := b.write(ctx, "set", key, value, func(ctx context.Context, w *writing) error { return b.set(ctx, w) })
	return err
}

// Create implements [secret.OwnedBackend].
func (b *AWSBackend) Create(ctx context.Context, key, value, owner string) (string, error) {
	if err := secret.CheckOwner(owner); err != nil {
		return "", b.invalid("create", key, err)
	}
	return b.write(ctx, "create", key, value, func(ctx context.Context, w *writing) error {
		w.owner = owner
		return b.create(ctx, w)
	})
}

// Replace implements [secret.OwnedBackend].
func (b *AWSBackend) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	if err := secret.CheckOwner(owner); err != nil {
		return "", b.invalid("replace", key, err)
	}
	return b.write(ctx, "replace", key, value, func(ctx context.Context, w *writing) error {
		w.owner = owner
		return b.replace(ctx, w, ifVersion)
	})
}

// Delete implements [secret.SecretBackend]. Unless Config.RecoveryDays is 0, AWS keeps
// the secret with all its versions for so many days; a Set or Create of the key in that
// time restores it and overwrites it. With 0 AWS deletes some time after it has
// answered; until then a Set or Create of the key waits.
func (b *AWSBackend) Delete(ctx context.Context, key string) error {
	return b.change(ctx, "delete", key, func(ctx context.Context) error { return b.remove(ctx, key) })
}

// RemoveVersion implements [secret.VersionRemover], as well as AWS allows: see
// AWSBackend. If the version is the current one the secret is deleted with it, which
// can be undone for 7 days at least if it has ever had another version.
func (b *AWSBackend) RemoveVersion(ctx context.Context, key, version string) error {
	const op = "remove version"
	if version == "" || len(version) > maxVersionBytes {
		return b.invalid(op, key, fmt.Errorf("%w: it is no version of this store", secret.ErrInvalid))
	}
	return b.change(ctx, op, key, func(ctx context.Context) error { return b.removeVersion(ctx, key, version) })
}

// change runs f, which writes to key, while no other write to it is under way in this
// process.
func (b *AWSBackend) change(ctx context.Context, op, key string, f func(context.Context) error) error {
	if err := secret.CheckKey(key); err != nil {
		return b.invalid(op, key, err)
	}
	return b.run(ctx, b.action(op, key), func(ctx context.Context) error {
		unlock, err := b.locks.lock(ctx, key)
		if err != nil {
			return err
		}
		defer unlock()
		return f(ctx)
	})
}

// String says where the secrets lie.
func (b *AWSBackend) String() string { return fmt.Sprintf("%s %s in %s", Name, b.prefix, b.region) }

// GoString is String.
func (b *AWSBackend) GoString() string { return b.String() }

// Format writes String for every verb.
func (b *AWSBackend) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(b.String())) }

// LogValue implements slog.LogValuer.
func (b *AWSBackend) LogValue() slog.Value { return slog.StringValue(b.String()) }

// MarshalText implements encoding.TextMarshaler.
func (b *AWSBackend) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

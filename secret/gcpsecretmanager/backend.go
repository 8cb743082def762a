// Package gcpsecretmanager keeps secrets in Google Cloud's Secret Manager.
//
// The key "google/client_id" is, with the prefix "nexus-providers", the secret
// nexus-providers__google__client_id: the value is the payload of its newest enabled
// version, the owner an annotation of the secret that names the version.
package gcpsecretmanager

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Name is how the backend calls itself in errors.
const Name = "gcp-secret-manager"

// GCPBackend implements [secret.OwnedBackend], [secret.VersionRemover],
// [secret.RemnantRemover], [secret.Locator], [secret.Prober], [secret.ReferenceReader],
// [secret.Diagnoser] and [secret.PolicyWriter]. It looks for credentials and connects when it is first used.
// Printed in any way it shows no token and no value.
//
// Secret Manager adds a version whatever the newest one is: it offers no compare-and-set
// there, but does offer one on the secret's annotations. So Create and Replace announce
// a version before they add it, and settle it afterwards, both against the secret's etag;
// of several that announce one succeeds, and the others wait for it. An announcement
// that nothing follows ends after 15 seconds. See claim.go. What cannot be fenced:
//   - Somebody who adds a version without an announcement (a person, with gcloud; Set)
//     in the moment between announcement and addition is noticed, and the addition is
//     taken back; until then it can be read.
//   - A request to add that is still on its way 15 seconds after its process has died
//     lands as a version without an owner.
//
// Only the reading of a version by its number is consistent at once
// (https://cloud.google.com/secret-manager/docs/reference/consistency). So the backend
// remembers the versions that it has written and reads at least those. What another
// process has written may be seen late, within minutes as a rule.
//
// A key whose id would have more than 255 characters is secret.ErrInvalid: see ID.
type GCPBackend struct {
	project, location, prefix string
	kmsKey                    string
	locations                 []string
	keep                      int
	conn                      *conn
	log                       *slog.Logger
	now                       func() time.Time
	recent                    recent
	locks                     locks
	emulated                  bool
	account                   string
	references                []string // the prefixes of references
}

var (
	_ secret.OwnedBackend    = (*GCPBackend)(nil)
	_ secret.VersionRemover  = (*GCPBackend)(nil)
	_ secret.RemnantRemover  = (*GCPBackend)(nil)
	_ secret.Locator         = (*GCPBackend)(nil)
	_ secret.Prober          = (*GCPBackend)(nil)
	_ secret.ReferenceReader = (*GCPBackend)(nil)
	_ secret.Diagnoser       = (*GCPBackend)(nil)
	_ secret.PolicyWriter    = (*GCPBackend)(nil)
)

// New returns a backend, or an error that lists everything that is wrong with the
// configuration. It sends nothing: a program can start while Google Cloud is away.
func New(cfg Config, opts Options) (*GCPBackend, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.Timeout = cmp.Or(opts.Timeout, DefaultTimeout)
	c, err := newConn(cfg, opts, &login{account: cfg.ImpersonateServiceAccount, client: opts.LoginClient, log: opts.Logger})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	return &GCPBackend{
		project: cfg.ProjectID, location: cfg.Location, prefix: cmp.Or(cfg.Prefix, DefaultPrefix),
		kmsKey: cfg.KMSKey, locations: cfg.Locations, keep: cmp.Or(cfg.KeepVersions, DefaultKeepVersions),
		conn: c, log: opts.Logger, now: opts.Now, emulated: cfg.EmulatorHost != "", account: cfg.ImpersonateServiceAccount,
		references: slices.Clone(cfg.ReferencePrefixes),
	}, nil
}

// Close closes the connections. The backend shall not be used afterwards.
func (b *GCPBackend) Close() error {
	_ = b.conn.grpc.Close() // fails only if it was closed before
	return nil
}

// parent returns the name of what the secrets lie in.
func (b *GCPBackend) parent() string {
	if b.location != "" {
		return "projects/" + b.project + "/locations/" + b.location
	}
	return "projects/" + b.project
}

// name returns the resource name of the secret with this id.
func (b *GCPBackend) name(id string) string { return b.parent() + "/secrets/" + id }

// Locate implements [secret.Locator]: the secret's resource name.
func (b *GCPBackend) Locate(key string) string {
	return b.name(b.prefix + separator + encode(key))
}

// keyed checks key and returns the secret's name and what a message begins with.
func (b *GCPBackend) keyed(op, key string) (name string, act action, err error) {
	id, err := b.ID(key)
	if err != nil {
		return "", action{}, fmt.Errorf("%s: %s: %w", Name, op, err)
	}
	name = b.name(id)
	return name, action{op, name + " (key " + key + ")"}, nil
}

// Get implements [secret.SecretBackend]: the newest version that is enabled.
func (b *GCPBackend) Get(ctx context.Context, key string) (string, error) {
	name, act, err := b.keyed("get", key)
	if err != nil {
		return "", err
	}
	v, err := b.current(ctx, name, 0)
	if err == nil {
		err = secret.CheckValue(v.value)
	}
	if err != nil {
		return "", act.wrap(err)
	}
	return v.value, nil
}

// Read implements [secret.OwnedBackend]. The owner of a secret whose annotations the
// broker may not read is "".
func (b *GCPBackend) Read(ctx context.Context, key string) (secret.Item, error) {
	name, act, err := b.keyed("read", key)
	if err != nil {
		return secret.Item{}, err
	}
	v, err := b.current(ctx, name, 0)
	if err == nil {
		err = secret.CheckValue(v.value)
	}
	var owner string
	if err == nil {
		owner, err = b.owner(ctx, name, v)
	}
	if err != nil {
		return secret.Item{}, act.wrap(err)
	}
	return secret.Item{Value: secret.NewValue(v.value), Version: format(v.number), Owner: owner}, nil
}

// Set implements [secret.SecretBackend]. It adds a version only if the value is another
// one than the current.
func (b *GCPBackend) Set(ctx context.Context, key, value string) error {
	name, act, err := b.keyed("set", key)
	if err != nil {
		return err
	}
	if err = secret.CheckValue(value); err == nil {
		err = b.set(ctx, name, value)
	}
	if err != nil {
		return act.wrap(err)
	}
	return nil
}

// Create implements [secret.OwnedBackend]. It destroys no older version.
func (b *GCPBackend) Create(ctx context.Context, key, value, owner string) (string, error) {
	return b.write(ctx, key, intent{op: "create", value: value, owner: owner, create: true})
}

// Replace implements [secret.OwnedBackend]. It adds a version also if the value is the
// current one.
func (b *GCPBackend) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	in := intent{op: "replace", value: value, owner: owner, conditional: ifVersion != ""}
	if in.conditional {
		in.ifVersion, _ = parseVersion(ifVersion) // 0 is what no version has
	}
	return b.write(ctx, key, in)
}

func (b *GCPBackend) write(ctx context.Context, key string, in intent) (string, error) {
	name, act, err := b.keyed(in.op, key)
	if err != nil {
		return "", err
	}
	if err := cmp.Or(secret.CheckValue(in.value), secret.CheckOwner(in.owner)); err != nil {
		return "", act.wrap(err)
	}
	n, err := b.claimAndAdd(ctx, name, in)
	if err != nil {
		return "", act.wrap(err)
	}
	return format(n), nil
}

// Delete implements [secret.SecretBackend]. Secret Manager deletes at once and for good.
func (b *GCPBackend) Delete(ctx context.Context, key string) error {
	name, act, err := b.keyed("delete", key)
	if err != nil {
		return err
	}
	unlock, err := b.locks.lock(ctx, name)
	if err != nil {
		return act.wrap(err)
	}
	defer unlock()
	if err := b.delete(ctx, name, ""); err != nil && !is(err, codes.NotFound) {
		return act.wrap(err)
	}
	return nil
}

// RemoveVersion implements [secret.VersionRemover]: it destroys the version. If it was
// the newest, the older ones are disabled before, and can be enabled again by a person.
// If it was the only one that the secret ever had, and the secret was made by the
// broker, the secret is deleted.
func (b *GCPBackend) RemoveVersion(ctx context.Context, key, version string) error {
	name, act, err := b.keyed("remove version", key)
	if err != nil {
		return err
	}
	n, err := parseVersion(version)
	if err == nil {
		err = b.removeVersion(ctx, name, n)
	}
	if err != nil {
		return act.wrap(err)
	}
	return nil
}

func format(version int64) string { return strconv.FormatInt(version, 10) }

// parseVersion reads what format has written.
func parseVersion(version string) (int64, error) {
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil || n < 1 || format(n) != version {
		return 0, fmt.Errorf("%w: it is no version of this store", secret.ErrInvalid)
	}
	return n, nil
}

// String says where the secrets lie.
func (b *GCPBackend) String() string { return Name + " " + b.name(b.prefix+separator) + "*" }

// GoString is String.
func (b *GCPBackend) GoString() string { return b.String() }

// Format writes String for every verb.
func (b *GCPBackend) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(b.String())) }

// LogValue implements slog.LogValuer.
func (b *GCPBackend) LogValue() slog.Value { return slog.StringValue(b.String()) }

// MarshalText implements encoding.TextMarshaler.
func (b *GCPBackend) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// Package hashicorpvault keeps secrets in the KV engine, version 1 or 2, of
// HashiCorp Vault or OpenBao.
//
// The key "google/client_id" lies, with the mount "secret" and the prefix
// "nexus/providers", at secret/nexus/providers/google/client_id: one KV secret a
// key, the value in its field "value", the owner beside it in the field
// "managed_by". A secret that a person has written may name the field like the
// key's last segment instead ("client_id").
package hashicorpvault

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Name is how the backend calls itself in errors.
const Name = "hashicorp-vault"

// VaultBackend implements [secret.OwnedBackend], [secret.VersionRemover],
// [secret.Locator], [secret.Prober] and [secret.ReferenceReader]. It logs in when it is
// first used, keeps its token alive until Close, and logs in again when it must. Printed
// in any way it shows no token.
//
// Create and Replace are atomic on KV version 2, by check-and-set. To the server a
// newest version that was deleted, not destroyed, is still the newest: a Replace of it
// succeeds. Version 1 has nothing of the kind: there Create reads before it writes, and
// of two at the same time both may succeed. It keeps no versions either: Item.Version
// is "", and who wants to replace a certain value can only compare before he writes.
type VaultBackend struct {
	mount, prefix string
	references    []string // the prefixes of references
	version1      bool     // the configuration says that the engine is version 1
	address       string
	conn          *conn
	auth          *authenticator
	engine        *detector
	log           *slog.Logger
}

var (
	_ secret.OwnedBackend    = (*VaultBackend)(nil)
	_ secret.VersionRemover  = (*VaultBackend)(nil)
	_ secret.Locator         = (*VaultBackend)(nil)
	_ secret.Prober          = (*VaultBackend)(nil)
	_ secret.ReferenceReader = (*VaultBackend)(nil)
)

// New returns a backend, or an error that lists everything that is wrong with the
// configuration. It sends nothing: a program can start while Vault is down.
func New(cfg Config, opts Options) (*VaultBackend, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.OnLogin == nil {
		opts.OnLogin = func(error) {}
	}
	if opts.Timeout == 0 {
		opts.Timeout = DefaultTimeout
	}
	c, err := newConn(cfg, opts.Timeout)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	b := &VaultBackend{address: cfg.Address, conn: c, log: opts.Logger}
	b.mount, b.prefix = cfg.place()
	b.version1 = cfg.KVVersion == 1
	b.references = slices.Clone(cfg.ReferencePrefixes)
	b.auth = newAuthenticator(c, cfg.Login.method(c), opts)
	b.engine = newDetector(b, cfg.KVVersion)
	return b, nil
}

// Close stops the renewal of the token and closes idle connections. The backend
// shall not be used afterwards.
func (b *VaultBackend) Close() error {
	b.auth.close()
	b.conn.idle.CloseIdleConnections()
	return nil
}

// TokenTTL returns how long the token in use will last; false if there is none yet,
// it has no end, or its end is not known.
func (b *VaultBackend) TokenTTL() (time.Duration, bool) { return b.auth.ttl() }

// Locate implements [secret.Locator]: the path as the command line of Vault wants it.
// Vault allows no ".." in a path, a key does inside of a segment: the dots are kept
// apart by "~", which no key has.
func (b *VaultBackend) Locate(key string) string {
	return path.Join(b.mount, b.below(key))
}

// below returns the path of a key below the mount.
func (b *VaultBackend) below(key string) string { return path.Join(b.prefix, withoutDoubleDots(key)) }

func withoutDoubleDots(key string) string {
	for strings.Contains(key, "..") {
		key = strings.ReplaceAll(key, "..", ".~.")
	}
	return key
}

// action is op on key, for the error messages.
func (b *VaultBackend) action(op, key string) action {
	place := b.Locate(key)
	if !strings.HasSuffix(place, key) {
		place += " (key " + key + ")"
	}
	return action{op, place}
}

// invalid reports arguments that are refused before anything is sent. An illegal key
// is quoted by err itself.
func (b *VaultBackend) invalid(op, key string, err error) error {
	if secret.CheckKey(key) != nil {
		return fmt.Errorf("%s: %s: %w", Name, op, err)
	}
	return b.action(op, key).wrap(err)
}

// Get implements [secret.SecretBackend].
func (b *VaultBackend) Get(ctx context.Context, key string) (string, error) {
	item, err := b.read(ctx, "get", key)
	return item.Value.Reveal(), err
}

// Read implements [secret.OwnedBackend].
func (b *VaultBackend) Read(ctx context.Context, key string) (secret.Item, error) {
	return b.read(ctx, "read", key)
}

func (b *VaultBackend) read(ctx context.Context, op, key string) (secret.Item, error) {
	if err := secret.CheckKey(key); err != nil {
		return secret.Item{}, b.invalid(op, key, err)
	}
	act := b.action(op, key)
	found, err := with(ctx, b, act, func(e engine) (stored, error) { return e.read(ctx, key) })
	if err != nil {
		return secret.Item{}, act.wrap(err)
	}
	if !found.exists {
		return secret.Item{}, act.fail(secret.ErrNotFound, "there is nothing at this path: write it to the field %q", valueField)
	}
	item, err := found.item(key)
	if err != nil {
		return secret.Item{}, act.wrap(err)
	}
	return item, nil
}

// Set implements [secret.SecretBackend].
func (b *VaultBackend) Set(ctx context.Context, key, value string) error {
	_, err := b.write(ctx, "set", key, value, "", engine.write)
	return err
}

// Replace implements [secret.OwnedBackend]. See VaultBackend for KV version 1.
func (b *VaultBackend) Replace(ctx context.Context, key, value, owner, ifVersion string) (string, error) {
	if err := secret.CheckOwner(owner); err != nil {
		return "", b.invalid("replace", key, err)
	}
	if ifVersion == "" {
		return b.write(ctx, "replace", key, value, owner, engine.write)
	}
	version, err := parseVersion(ifVersion)
	return b.write(ctx, "replace", key, value, owner, func(e engine, ctx context.Context, key string, f fields) (int, error) {
		if err != nil {
			return 0, errChanged
		}
		return e.replace(ctx, key, f, version)
	})
}

// parseVersion reads what write has returned. Version 0 is what Vault calls none.
func parseVersion(version string) (int, error) {
	n, err := strconv.Atoi(version)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%w: it is no version of this store", secret.ErrInvalid)
	}
	return n, nil
}

// Create implements [secret.OwnedBackend]. See VaultBackend for KV version 1.
func (b *VaultBackend) Create(ctx context.Context, key, value, owner string) (string, error) {
	if err := secret.CheckOwner(owner); err != nil {
		return "", b.invalid("create", key, err)
	}
	return b.write(ctx, "create", key, value, owner, engine.create)
}

func (b *VaultBackend) write(ctx context.Context, op, key, value, owner string,
	how func(engine, context.Context, string, fields) (int, error),
) (version string, err error) {
	if err := cmp.Or(secret.CheckKey(key), secret.CheckValue(value)); err != nil {
		return "", b.invalid(op, key, err)
	}
	act := b.action(op, key)
	n, err := with(ctx, b, act, func(e engine) (int, error) { return how(e, ctx, key, newFields(value, owner)) })
	if err != nil {
		return "", act.wrap(err)
	}
	if n == 0 {
		return "", nil
	}
	return strconv.Itoa(n), nil
}

// Delete implements [secret.SecretBackend]. On KV version 2 it deletes the key's
// metadata and with it every version. Where no policy allows that, it destroys, or
// at least deletes, the versions; what that leaves in Vault is logged.
func (b *VaultBackend) Delete(ctx context.Context, key string) error {
	if err := secret.CheckKey(key); err != nil {
		return b.invalid("delete", key, err)
	}
	act := b.action("delete", key)
	_, err := with(ctx, b, act, func(e engine) (struct{}, error) { return struct{}{}, e.delete(ctx, key) })
	if err != nil {
		return act.wrap(err)
	}
	return nil
}

// RemoveVersion implements [secret.VersionRemover]. On KV version 2 it destroys the
// version, or deletes the key's metadata if that is the only one it ever had. Where no
// policy allows to destroy, it deletes the version, which leaves it to be undeleted and
// is logged. KV version 1 keeps no versions: there is nothing to remove.
func (b *VaultBackend) RemoveVersion(ctx context.Context, key, version string) error {
	const op = "remove version"
	if err := secret.CheckKey(key); err != nil {
		return b.invalid(op, key, err)
	}
	n, err := parseVersion(version)
	if err != nil {
		return b.invalid(op, key, err)
	}
	act := b.action(op, key)
	_, err = with(ctx, b, act, func(e engine) (struct{}, error) { return struct{}{}, e.removeVersion(ctx, key, n) })
	if err != nil {
		return act.wrap(err)
	}
	return nil
}

// call sends a request with the token in use, and once more with another one if the
// first turns out not to be valid any more. The error is ready but for its action;
// the answer is one of Vault's, maybe a refusal.
func (b *VaultBackend) call(ctx context.Context, r request) (*answer, error) {
	s, err := b.auth.session(ctx)
	if err != nil {
		return nil, err
	}
	a, err := b.conn.send(ctx, s.client(r), r)
	if err == nil && a.denied() {
		var fresh *session
		if fresh, err = b.auth.afterDenial(ctx, s); err != nil {
			return nil, err
		}
		if fresh != nil {
			s = fresh
			a, err = b.conn.send(ctx, s.client(r), r)
		}
		if fresh != nil && err == nil && a.denied() && b.auth.onProbation(s) { // by a policy, or is no token valid?
			if _, err = b.auth.afterDenial(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	if err != nil || !a.fromVault {
		return nil, fault(a, r, err)
	}
	if a.ok() || a.status == http.StatusNotFound {
		b.auth.accepted(s)
	}
	return a, nil
}

// String says where the secrets lie.
func (b *VaultBackend) String() string {
	return fmt.Sprintf("%s %s at %s", Name, b.Locate(""), b.address)
}

// GoString is String.
func (b *VaultBackend) GoString() string { return b.String() }

// Format writes String for every verb.
func (b *VaultBackend) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(b.String())) }

// LogValue implements slog.LogValuer.
func (b *VaultBackend) LogValue() slog.Value { return slog.StringValue(b.String()) }

// MarshalText implements encoding.TextMarshaler.
func (b *VaultBackend) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

package gcpsecretmanager

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"

	"github.com/nexus-broker/nexus-broker/secret"
)

// version is a version of a secret with its value.
type version struct {
	number int64
	value  string
	// newest is the highest number that the secret is known to have, enabled or not.
	newest int64
}

const latest = "latest" // the version that was added last, whatever its state is

// castagnoli is the polynomial of the checksums
// (https://cloud.google.com/secret-manager/docs/data-integrity).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(data []byte) int64 { return int64(crc32.Checksum(data, castagnoli)) }

// access reads a version, given by its number, an alias or latest. An answer that does
// not match its checksum is asked for once more.
func (b *GCPBackend) access(ctx context.Context, name, which string) (version, error) {
	for range 2 {
		answer, err := call(ctx, b.conn, "secretmanager.versions.access", func(ctx context.Context) (*secretmanagerpb.AccessSecretVersionResponse, error) {
			return b.conn.client.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: name + "/versions/" + which})
		})
		if err != nil {
			return version{}, err
		}
		payload := answer.GetPayload()
		number, err := numberOf(answer.GetName())
		if err != nil {
			return version{}, err
		}
		// Google always sends a checksum; a local server may not know it.
		if payload.GetDataCrc32C() == checksum(payload.GetData()) || payload != nil && payload.DataCrc32C == nil && b.emulated {
			return version{number: number, value: string(payload.GetData()), newest: number}, nil
		}
	}
	return version{}, fmt.Errorf("%w: the value does not match its checksum, twice: something between Secret Manager and the broker changes answers", secret.ErrUnavailable)
}

// numberOf returns the number at the end of a version's name.
func numberOf(name string) (int64, error) {
	n, err := parseVersion(name[strings.LastIndexByte(name, '/')+1:])
	if err != nil {
		return 0, errNotSecretManager
	}
	return n, nil
}

var errNotSecretManager = fmt.Errorf("%w: the answer is not Secret Manager's: check the endpoint", secret.ErrUnavailable)

// current reads the newest version that is enabled: in one request, unless the newest
// one of all is not. The store may lag behind this process's own writes, and behind
// known, a version that is known to have been there.
func (b *GCPBackend) current(ctx context.Context, name string, known int64) (version, error) {
	own := b.recent.get(name)
	known = max(known, own.number)
	v, err := b.access(ctx, name, latest)
	if err == nil && own.inDoubt() { // it may be what was removed: its number tells
		v, err = b.access(ctx, name, format(v.number))
	}
	switch {
	case err == nil && v.number >= known:
		return v, nil
	case err == nil || is(err, codes.NotFound) && known > 0:
		newer, newerErr := b.access(ctx, name, format(known))
		switch {
		case is(newerErr, codes.NotFound):
			b.recent.removedVersion(name, known)
			return v, err
		case is(newerErr, codes.FailedPrecondition):
			return b.newestEnabled(ctx, name, known)
		}
		return newer, newerErr
	case is(err, codes.FailedPrecondition):
		return b.newestEnabled(ctx, name, known)
	default:
		return version{}, err
	}
}

// newestEnabled reads the newest enabled version by going through the list.
func (b *GCPBackend) newestEnabled(ctx context.Context, name string, known int64) (version, error) {
	list, err := b.list(ctx, name)
	if err != nil {
		return version{}, err
	}
	newest := known
	if len(list) > 0 {
		newest = max(newest, list[0].number)
	}
	if known > 0 && (len(list) == 0 || list[0].number < known) { // the list lags behind
		list = slices.Insert(list, 0, listed{number: known, enabled: true, guessed: true})
	}
	for _, l := range list {
		if !l.enabled {
			continue
		}
		v, err := b.access(ctx, name, format(l.number))
		if notEnabled(err) || l.guessed && is(err, codes.FailedPrecondition) || is(err, codes.NotFound) {
			continue // since the list was made
		}
		v.newest = newest
		return v, err
	}
	return version{newest: newest}, &rpcError{code: codes.NotFound, err: fmt.Errorf("%w: no version of the secret is enabled: enable one, or add one", secret.ErrNotFound)}
}

// listed is a version in a list.
type listed struct {
	number             int64
	enabled, destroyed bool // neither: disabled
	scheduled          bool // it will be destroyed
	guessed            bool // it is not in the list, but should be
}

// list returns the versions of a secret, the newest first.
func (b *GCPBackend) list(ctx context.Context, name string) ([]listed, error) {
	return call(ctx, b.conn, "secretmanager.versions.list", func(ctx context.Context) ([]listed, error) {
		var all []listed
		it := b.conn.client.ListSecretVersions(ctx, &secretmanagerpb.ListSecretVersionsRequest{Parent: name})
		for {
			v, err := it.Next()
			if errors.Is(err, iterator.Done) {
				break
			}
			if err != nil {
				return nil, err
			}
			n, err := numberOf(v.GetName())
			if err != nil {
				return nil, err
			}
			all = append(all, listed{
				number: n, scheduled: v.GetScheduledDestroyTime() != nil,
				enabled: v.GetState() == secretmanagerpb.SecretVersion_ENABLED, destroyed: v.GetState() == secretmanagerpb.SecretVersion_DESTROYED,
			})
		}
		slices.SortFunc(all, func(x, y listed) int { return int(y.number - x.number) })
		return all, nil
	})
}

// get reads the secret itself, with its annotations and etag.
func (b *GCPBackend) get(ctx context.Context, name string) (*secretmanagerpb.Secret, error) {
	return call(ctx, b.conn, "secretmanager.secrets.get", func(ctx context.Context) (*secretmanagerpb.Secret, error) {
		return b.conn.client.GetSecret(ctx, &secretmanagerpb.GetSecretRequest{Name: name})
	})
}

// owner returns the owner of a version.
func (b *GCPBackend) owner(ctx context.Context, name string, v version) (string, error) {
	own := b.recent.get(name)
	if own.number == v.number && time.Since(own.at) < ownerLag { // what is seen may be older
		return own.owner, nil
	}
	s, err := b.get(ctx, name)
	switch {
	case err == nil:
		if owner, marked := marksOf(s).ownerOf(v.number, v.value); marked {
			return owner, nil
		}
	case is(err, codes.PermissionDenied):
		b.log.Debug("no right to read a secret's annotations: its owner is not known", "secret", name)
	case !is(err, codes.NotFound):
		return "", err
	}
	if own.number == v.number { // the mark is not to be seen yet
		return own.owner, nil
	}
	return "", nil
}

package gcpsecretmanager

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/grpc/codes"

	"github.com/nexus-broker/nexus-broker/secret"
)

// set adds a version without an owner, if the value is not the current one.
func (b *GCPBackend) set(ctx context.Context, name, value string) error {
	unlock, err := b.locks.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := b.current(ctx, name, 0)
	switch {
	case err == nil && now.value == value:
		return b.disown(ctx, name, now)
	case err != nil && !errors.Is(err, secret.ErrNotFound):
		return err
	}
	var number int64
	err = again(ctx, func() (err error) {
		number, err = b.add(ctx, name, value)
		if !is(err, codes.NotFound) {
			return err
		}
		if _, err = b.make(ctx, name, nil, ""); err != nil && !is(err, codes.AlreadyExists) {
			return err
		}
		return errAgain
	})
	if err != nil {
		return err
	}
	b.recent.wrote(name, number, "")
	b.prune(ctx, name, number)
	return nil
}

// disown takes the owner from the current version.
func (b *GCPBackend) disown(ctx context.Context, name string, now version) error {
	err := again(ctx, func() error {
		s, err := b.get(ctx, name)
		if is(err, codes.NotFound) && b.recent.get(name).number == now.number {
			return errAgain
		}
		if err != nil {
			return err
		}
		m := marksOf(s)
		owner, marked := m.ownerOf(now.number, now.value)
		if own := b.recent.get(name); !marked && own.number == now.number {
			owner = own.owner
		}
		if owner == "" {
			return nil
		}
		m.owners[now.number] = unowned
		if _, err = b.update(ctx, s, annotate(s, m), s.GetLabels()); is(err, codes.FailedPrecondition) || is(err, codes.Aborted) {
			err = errAgain
		}
		return err
	})
	if err == nil {
		b.recent.wrote(name, now.number, "")
	}
	return err
}

// add adds a version with the value and its checksum, which Secret Manager verifies.
func (b *GCPBackend) add(ctx context.Context, name, value string) (number int64, err error) {
	data := []byte(value)
	sum := checksum(data)
	for range 2 {
		var v *secretmanagerpb.SecretVersion
		v, err = call(ctx, b.conn, "secretmanager.versions.add", func(ctx context.Context) (*secretmanagerpb.SecretVersion, error) {
			return b.conn.client.AddSecretVersion(ctx, &secretmanagerpb.AddSecretVersionRequest{
				Parent: name, Payload: &secretmanagerpb.SecretPayload{Data: data, DataCrc32C: &sum},
			})
		})
		if is(err, codes.InvalidArgument) { // the name and the size are right, so it is the checksum
			continue
		}
		if err != nil {
			return 0, err
		}
		return numberOf(v.GetName())
	}
	return 0, fmt.Errorf("%w: Secret Manager has refused the value twice, as if it did not match its checksum: "+
		"something between the broker and Secret Manager changes requests", secret.ErrUnavailable)
}

// make creates a secret without versions.
func (b *GCPBackend) make(ctx context.Context, name string, annotations map[string]string, owner string) (*secretmanagerpb.Secret, error) {
	s := &secretmanagerpb.Secret{Annotations: annotations, Labels: labelled(map[string]string{labelManagedBy: managedBy}, owner)}
	if b.location == "" {
		s.Replication = b.replication()
	} else if b.kmsKey != "" {
		s.CustomerManagedEncryption = &secretmanagerpb.CustomerManagedEncryption{KmsKeyName: b.kmsKey}
	}
	return call(ctx, b.conn, "secretmanager.secrets.create", func(ctx context.Context) (*secretmanagerpb.Secret, error) {
		return b.conn.client.CreateSecret(ctx, &secretmanagerpb.CreateSecretRequest{
			Parent: b.parent(), SecretId: name[strings.LastIndexByte(name, '/')+1:], Secret: s,
		})
	})
}

// ours reports whether the broker has made the secret.
func ours(s *secretmanagerpb.Secret) bool { return s.GetLabels()[labelManagedBy] == managedBy }

func (b *GCPBackend) replication() *secretmanagerpb.Replication {
	encryption := func(location string) *secretmanagerpb.CustomerManagedEncryption {
		if b.kmsKey == "" {
			return nil
		}
		return &secretmanagerpb.CustomerManagedEncryption{KmsKeyName: strings.ReplaceAll(b.kmsKey, "{location}", location)}
	}
	if len(b.locations) == 0 {
		return &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_Automatic_{
			Automatic: &secretmanagerpb.Replication_Automatic{CustomerManagedEncryption: encryption("global")},
		}}
	}
	var replicas []*secretmanagerpb.Replication_UserManaged_Replica
	for _, l := range b.locations {
		replicas = append(replicas, &secretmanagerpb.Replication_UserManaged_Replica{Location: l, CustomerManagedEncryption: encryption(l)})
	}
	return &secretmanagerpb.Replication{Replication: &secretmanagerpb.Replication_UserManaged_{
		UserManaged: &secretmanagerpb.Replication_UserManaged{Replicas: replicas},
	}}
}

// prune destroys what is older than the versions to keep. What it cannot is logged and
// will be tried with the next write: the value has been stored.
func (b *GCPBackend) prune(ctx context.Context, name string, newest int64) {
	list, err := b.list(ctx, name)
	kept := 1 // the newest, which the list may not have yet
	for _, l := range list {
		if err != nil {
			break
		}
		if l.number >= newest || l.destroyed {
			continue
		}
		if kept++; kept > b.keep && !l.scheduled {
			if err = b.destroy(ctx, name, l.number); is(err, codes.NotFound) {
				err = nil
			}
		}
	}
	if err != nil {
		b.log.Warn("older versions could not be destroyed: they are billed until the next write does it", "secret", name, "error", err)
	}
}

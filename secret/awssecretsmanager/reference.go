package awssecretsmanager

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/nexus-broker/nexus-broker/secret"
)

var (
	// A name as AWS allows it but for its length, and an ARN up to the name.
	refName = regexp.MustCompile(`^[A-Za-z0-9/_+=.@!-]+$`)
	refARN  = regexp.MustCompile(`^(arn:aws[a-z0-9-]*:secretsmanager:([a-z0-9-]+):[0-9]{12}:secret):(.+)$`)
	// The ids that AWS gives to versions, and those that SDKs make.
	refVersionID = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
)

// ReadReference implements [secret.ReferenceReader]. Reference.Path is the name of a
// secret or its ARN; a UUID as Reference.Version is a version's id, anything else a
// staging label such as AWSPREVIOUS.
func (b *AWSBackend) ReadReference(ctx context.Context, ref secret.Reference) (secret.Item, error) {
	act := action{"read", ref.String()}
	if _, err := b.ReferenceSegments(ref.Path); err != nil {
		return secret.Item{}, act.wrap(err)
	}
	in := &secretsmanager.GetSecretValueInput{SecretId: aws.String(ref.Path)}
	switch {
	case refVersionID.MatchString(ref.Version):
		in.VersionId = aws.String(ref.Version)
	case ref.Version != "":
		in.VersionStage = aws.String(ref.Version)
	}
	var item secret.Item
	err := b.run(ctx, act, func(ctx context.Context) error {
		out, err := call(ctx, b, b.sdk.GetSecretValue, in)
		if err != nil {
			return err
		}
		item, err = referred(ref, out)
		return err
	})
	if err != nil {
		return secret.Item{}, err
	}
	return item, nil
}

// referred makes an item of what was found at ref.
func referred(ref secret.Reference, out *secretsmanager.GetSecretValueOutput) (secret.Item, error) {
	if ref.Field == "" {
		return itemOf(out.SecretString, out.SecretBinary, out.VersionId, out.VersionStages)
	}
	whole, err := valueOf(out.SecretString, out.SecretBinary)
	if err != nil {
		return secret.Item{}, err
	}
	value, err := secret.JSONMember(whole, ref.Field)
	if err != nil {
		return secret.Item{}, err
	}
	return itemOf(&value, nil, out.VersionId, out.VersionStages)
}

// ReferenceSegments implements [secret.ReferenceReader]. The segments of an ARN begin
// with its part before the name: a secret of another account lies below no prefix that
// is a name, and may only be read where a prefix of references is such an ARN. A leading
// slash belongs to the first segment, as AWS tells such names apart.
func (b *AWSBackend) ReferenceSegments(path string) ([]string, error) {
	var segments []string
	name := path
	if strings.HasPrefix(path, "arn:") {
		m := refARN.FindStringSubmatch(path)
		if m == nil {
			return nil, secret.BadReference("the ARN reads arn:aws:secretsmanager:region:account:secret:name")
		}
		if m[2] != b.region {
			return nil, secret.BadReference(fmt.Sprintf("the ARN is one of the region %s, the broker's is %s", m[2], b.region))
		}
		segments, name = append(segments, m[1]), m[3]
	}
	if len(name) > 512 || !refName.MatchString(name) {
		return nil, secret.BadReference("the name of a secret has 1 to 512 characters of A-Z a-z 0-9 / _ + = . @ ! -")
	}
	slash := ""
	if strings.HasPrefix(name, "/") {
		slash, name = "/", name[1:]
	}
	parts := strings.Split(strings.TrimSuffix(name, "/"), "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." {
			return nil, secret.BadReference(fmt.Sprintf("a segment of the name is %q", p))
		}
	}
	parts[0] = slash + parts[0]
	return append(segments, parts...), nil
}

// ReferencePrefix implements [secret.ReferenceReader].
func (b *AWSBackend) ReferencePrefix() []string {
	segments, err := b.ReferenceSegments(b.prefix)
	if err != nil { // a prefix that AWS allows and a reference does not
		return []string{b.prefix}
	}
	return segments
}

// LocateReference implements [secret.ReferenceReader].
func (b *AWSBackend) LocateReference(ref secret.Reference) string { return ref.String() }

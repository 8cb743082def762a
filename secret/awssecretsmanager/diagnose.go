package awssecretsmanager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/nexus-broker/nexus-broker/secret"
)

// skewWarn is the difference of the clocks from which on it is reported; AWS refuses
// signatures from five minutes on.
const skewWarn = time.Minute

// Diagnose implements [secret.Diagnoser]. With ReadWrite it creates, changes and deletes
// the secret of a probe key; with a recovery window AWS keeps that for so many days.
func (b *AWSBackend) Diagnose(ctx context.Context, need secret.Access) []secret.Finding {
	d := &diagnosis{b: b}
	if !d.credentials(ctx) || !d.reach(ctx) {
		return d.findings
	}
	d.batch(ctx)
	d.references(ctx)
	if need == secret.ReadWrite {
		d.write(ctx)
	}
	return d.findings
}

// diagnosis collects what is found.
type diagnosis struct {
	b        *AWSBackend
	findings []secret.Finding
}

func (d *diagnosis) add(check string, v secret.Verdict, detail, advice string) {
	d.findings = append(d.findings, secret.Finding{Check: check, Verdict: v, Detail: detail, Advice: advice})
}

// failed reports err, whose text has the advice behind the first colon after the class.
func (d *diagnosis) failed(check string, v secret.Verdict, err error) {
	detail, advice, _ := strings.Cut(err.Error(), ": ")
	d.add(check, v, detail, advice)
}

// within runs one examination, and completes its error.
func (d *diagnosis) within(ctx context.Context, f func(context.Context) error) error {
	err := d.b.run(ctx, action{"diagnose", d.b.prefix}, f)
	if err == nil {
		return nil
	}
	return errors.Unwrap(err)
}

func (d *diagnosis) credentials(ctx context.Context) bool {
	var found aws.Credentials
	err := d.within(ctx, func(ctx context.Context) (err error) {
		if found, err = d.b.creds.Retrieve(ctx); err == nil {
			return nil
		}
		if ended(ctx) != nil {
			return errEnded
		}
		return failed(err, d.b)
	})
	switch {
	case err != nil:
		d.failed("credentials", secret.Fail, err)
		return false
	case found.CanExpire:
		d.add("credentials", secret.Ok, fmt.Sprintf("from %s, until %s, renewed before that", found.Source, found.Expires.UTC().Format(time.RFC3339)), "")
	case strings.HasPrefix(found.AccessKeyID, "ASIA"):
		d.add("credentials", secret.Warn, fmt.Sprintf("from %s: those of a session, whose end is not known", found.Source), "they will not be renewed: let the broker get them from a role")
	default:
		d.add("credentials", secret.Ok, fmt.Sprintf("from %s, without an end", found.Source), "")
	}
	return true
}

// reach reads a secret that is not there: that shows the connection, TLS, the clocks, the
// login and the right to read.
func (d *diagnosis) reach(ctx context.Context) bool {
	var skew time.Duration
	secure := false
	err := d.within(ctx, func(ctx context.Context) error {
		_, err := call(ctx, d.b, func(ctx context.Context, in *secretsmanager.GetSecretValueInput, opts ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
			out, err := d.b.sdk.GetSecretValue(ctx, in, opts...)
			skew, secure = observed(out, err)
			return out, err
		}, &secretsmanager.GetSecretValueInput{SecretId: aws.String(d.b.name(probeKey))})
		return err
	})
	if errors.Is(err, secret.ErrUnavailable) {
		d.failed("connection", secret.Fail, err)
		return false
	}
	d.add("connection", secret.Ok, "Secrets Manager in "+d.b.region+" answers", "")
	if secure {
		d.add("TLS", secret.Ok, "the server's certificate is trusted", "")
	} else {
		d.add("TLS", secret.Warn, "the endpoint is plain http", "use an https endpoint: everybody on the way can read the credentials")
	}
	if skew.Abs() > skewWarn {
		d.add("clock", secret.Warn, fmt.Sprintf("the clock of this machine differs from AWS's by %s", skew.Abs().Round(time.Second)), "set it: AWS refuses signatures from five minutes on")
	} else {
		d.add("clock", secret.Ok, "the clock of this machine agrees with AWS's", "")
	}
	switch {
	case errors.Is(err, secret.ErrLogin):
		d.failed("login", secret.Fail, err)
		return false
	case err != nil && !errors.Is(err, secret.ErrNotFound):
		d.failed("read", secret.Fail, err)
		return errors.Is(err, secret.ErrDenied)
	}
	d.add("read", secret.Ok, "secrets below "+d.b.prefix+" may be read", "")
	return true
}

// observed returns by how much AWS's clock is ahead, and whether the answer came over TLS.
func observed(out *secretsmanager.GetSecretValueOutput, err error) (skew time.Duration, secure bool) {
	var resp *smithyhttp.ResponseError
	if err != nil && errors.As(err, &resp) && resp.Response != nil && resp.Response.Response != nil {
		if at, e := http.ParseTime(resp.Response.Header.Get("Date")); e == nil {
			skew = time.Until(at)
		}
		return skew, resp.Response.TLS != nil
	}
	if out == nil {
		return 0, false
	}
	if at, ok := middleware.GetServerTime(out.ResultMetadata); ok {
		skew = time.Until(at)
	}
	raw, ok := middleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response)
	return skew, ok && raw.TLS != nil
}

func (d *diagnosis) batch(ctx context.Context) {
	err := d.within(ctx, func(ctx context.Context) error {
		_, err := call(ctx, d.b, d.b.sdk.BatchGetSecretValue, &secretsmanager.BatchGetSecretValueInput{
			SecretIdList: []string{d.b.name(probeKey), d.b.name("nexus-broker-probe/client_secret")},
		})
		return err
	})
	switch {
	case err == nil:
		d.add("batch read", secret.Ok, "both credentials of a provider are read in one request", "")
	case errors.Is(err, secret.ErrDenied):
		d.add("batch read", secret.Warn, "secrets are read one by one", "allow secretsmanager:BatchGetSecretValue on *")
	default:
		d.failed("batch read", secret.Warn, err)
	}
}

// references reads a secret that is not there below each prefix of references. Of another
// account's (an ARN) AWS says no more than that it is denied. A policy may name the secrets
// one by one: a denial is a warning.
func (d *diagnosis) references(ctx context.Context) {
	const check = "references"
	places, _ := secret.ReferencePlaces(d.b, d.b.references) // below what is no name here nothing lies
	for _, place := range places {
		below := strings.Join(place, "/")
		if strings.HasPrefix(below, "arn:") {
			continue
		}
		err := d.within(ctx, func(ctx context.Context) error {
			_, err := call(ctx, d.b, d.b.sdk.GetSecretValue, &secretsmanager.GetSecretValueInput{SecretId: aws.String(below + "/" + probeKey)})
			return err
		})
		switch {
		case err == nil, errors.Is(err, secret.ErrNotFound):
			d.add(check, secret.Ok, "secrets below "+below+" may be read", "")
		case errors.Is(err, secret.ErrDenied):
			d.add(check, secret.Warn, "secrets below "+below+" may not be read, where SECRET_REF_ALLOWED_PREFIXES lets references lie",
				"apply the policy of doctor --print-policy, unless yours names each secret there that is referred to")
		default:
			d.failed(check, secret.Warn, err)
		}
	}
}

// write walks through what the broker writes, with a key of its own.
func (d *diagnosis) write(ctx context.Context) {
	b := d.b
	const owner = "nexus-broker/doctor"
	var version string
	steps := []struct {
		check string
		do    func() error
	}{
		{"create", func() (err error) {
			if err := b.Delete(ctx, probeKey); err != nil { // of a diagnosis that was cut off
				return err
			}
			version, err = b.Create(ctx, probeKey, "probe", owner)
			return err
		}},
		{"read back", func() error {
			item, err := b.Read(ctx, probeKey)
			if err == nil && item.Owner != owner {
				err = fail(secret.ErrDenied, "the owner's tag cannot be read: allow secretsmanager:DescribeSecret")
			}
			return err
		}},
		{"update", func() (err error) {
			version, err = b.Replace(ctx, probeKey, "probe 2", owner, version)
			return err
		}},
		{"delete", func() error { return b.Delete(ctx, probeKey) }},
		{"write again", func() error { // restores, where there is a recovery window
			_, err := b.Create(ctx, probeKey, "probe 3", owner)
			return err
		}},
		{"remove", func() error { return b.Delete(ctx, probeKey) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			d.failed(step.check, secret.Fail, core(err))
			return
		}
		d.add(step.check, secret.Ok, "allowed below "+b.prefix, "")
	}
}

// core returns err without the backend, the operation and the name.
func core(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

package gcpsecretmanager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Diagnose implements [secret.Diagnoser]. Google tells neither its clock nor, before they
// are used, the rights of the caller: a clock that is wrong shows as a login that is
// refused, and with ReadWrite the rights are tried on a probe key.
func (b *GCPBackend) Diagnose(ctx context.Context, need secret.Access) []secret.Finding {
	d := &diagnosis{b: b}
	if d.login(ctx) && d.connection(ctx) && d.read(ctx) {
		d.references(ctx)
		if need == secret.ReadWrite {
			d.write(ctx)
		}
	}
	return d.findings
}

type diagnosis struct {
	b        *GCPBackend
	findings []secret.Finding
}

func (d *diagnosis) ok(check, detail string) bool {
	d.findings = append(d.findings, secret.Finding{Check: check, Verdict: secret.Ok, Detail: detail})
	return true
}

func (d *diagnosis) add(check string, verdict secret.Verdict, detail, advice string) bool {
	d.findings = append(d.findings, secret.Finding{Check: check, Verdict: verdict, Detail: detail, Advice: advice})
	return false
}

// failed reports an error of ours: its text has the advice.
func (d *diagnosis) failed(check string, err error) bool {
	advice := "see the message"
	switch {
	case errors.Is(err, secret.ErrLogin):
		advice = "see docs/gcp.md, Login"
	case errors.Is(err, secret.ErrDenied):
		advice = "apply the policy of doctor --print-policy; a new grant takes minutes to work"
	case errors.Is(err, secret.ErrUnavailable):
		advice = "check the network, the proxy and https://status.cloud.google.com"
	}
	return d.add(check, secret.Fail, err.Error(), advice)
}

func (d *diagnosis) login(ctx context.Context) bool {
	l := d.b.conn.login
	if l == nil {
		d.add("login", secret.Warn, "none: an emulator is spoken to without credentials", "unset SECRET_MANAGER_EMULATOR_HOST for Google Cloud")
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, d.b.conn.timeout)
	defer cancel()
	token, err := l.token(ctx)
	if err != nil {
		return d.failed("login", err)
	}
	who := "as the Application Default Credentials say"
	if d.b.account != "" {
		who = "as " + d.b.account
	}
	if left := time.Until(token.Expiry); !token.Expiry.IsZero() {
		return d.ok("login", fmt.Sprintf("%s; the access token is good for %s and is renewed by itself", who, left.Round(time.Second)))
	}
	return d.ok("login", who)
}

// connection and TLS, which is part of it.
func (d *diagnosis) connection(ctx context.Context) bool {
	c := d.b.conn
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	c.grpc.Connect()
	for s := c.grpc.GetState(); s != connectivity.Ready; s = c.grpc.GetState() {
		if s == connectivity.TransientFailure || !c.grpc.WaitForStateChange(ctx, s) {
			return d.add("connection", secret.Fail, "no connection to "+c.grpc.Target(), "check the network, the proxy, the certificate and the location")
		}
	}
	if c.login == nil {
		return d.ok("connection", c.grpc.Target()+", without TLS")
	}
	return d.ok("connection", c.grpc.Target()+", with TLS 1.2 or newer, the certificate verified")
}

func (d *diagnosis) read(ctx context.Context) bool {
	if err := d.b.Probe(ctx, secret.ReadOnly); err != nil {
		return d.failed("read", err)
	}
	d.ok("read", d.b.Locate(probeKey)+" may be read")
	if _, err := d.b.list(ctx, d.b.Locate(probeKey)); err != nil && !is(err, codes.NotFound) {
		d.add("versions", secret.Warn, "the versions of a secret may not be listed",
			"grant secretmanager.versions.list: without it nothing can be read once the newest version is disabled or destroyed")
	}
	return true
}

// references reads a secret that is not there below each prefix of references, and lists
// the versions of the one that may be at it. A grant may name the secrets one by one: a
// denial is a warning.
func (d *diagnosis) references(ctx context.Context) {
	const check = "references"
	places, _ := secret.ReferencePlaces(d.b, d.b.references) // below what is no name here nothing lies
	for _, place := range places {
		parent, id := d.b.referencePlace(place)
		at := parent + "/secrets/" + id
		_, err := d.b.access(ctx, at+separator+"nexus-broker-probe", latest)
		if is(err, codes.PermissionDenied) {
			if _, exact := d.b.list(ctx, at); exact == nil {
				err = nil
			}
		}
		switch {
		case err == nil, is(err, codes.NotFound):
			d.ok(check, at+" may be read, or what is below it")
		case is(err, codes.PermissionDenied):
			d.add(check, secret.Warn, at+" may not be read, where SECRET_REF_ALLOWED_PREFIXES lets references lie",
				"apply the policy of doctor --print-policy, unless yours names each secret there that is referred to")
		default:
			d.failed(check, err)
		}
	}
}

// write tries each right on the probe key, and removes it again.
func (d *diagnosis) write(ctx context.Context) {
	b := d.b
	if _, err := b.Get(ctx, probeKey); err == nil { // of a diagnosis that was cut off
		if err := b.Delete(ctx, probeKey); err != nil {
			d.failed("delete", err)
			return
		}
	}
	const owner = "nexus-broker/doctor"
	first, err := b.Create(ctx, probeKey, "probe 1", owner)
	if err != nil {
		d.failed("create", err)
		return
	}
	defer func() {
		if err := b.Delete(ctx, probeKey); err != nil {
			d.failed("delete", err)
		} else {
			d.ok("delete", "a secret can be deleted, and the probe is")
		}
	}()
	d.ok("create", "a secret can be made")
	item, err := b.Read(ctx, probeKey)
	switch {
	case err != nil:
		d.failed("read back", err)
		return
	case item.Owner != owner:
		d.add("read back", secret.Fail, "the secret is there, and its owner is not to be seen", "grant secretmanager.secrets.get")
		return
	}
	second, err := b.Replace(ctx, probeKey, "probe 2", owner, first)
	if err != nil {
		d.failed("update", err)
		return
	}
	d.ok("update", "a version can be added")
	if err := b.RemoveVersion(ctx, probeKey, second); err != nil {
		d.failed("remove version", err)
		return
	}
	d.ok("remove version", "versions can be disabled and destroyed")
}

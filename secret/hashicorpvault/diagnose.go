package hashicorpvault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

var _ secret.Diagnoser = (*VaultBackend)(nil)

// Diagnose implements [secret.Diagnoser]. It looks, in this order, at the connection
// (sys/health), the server's certificate, the clocks, the login, the token, the
// namespace, the KV engine, each right below the prefix, and whether references may be
// read below each of theirs.
//
// With ReadWrite it writes a probe of its own, whose name nobody else uses, and removes
// it, also if ctx ends meanwhile. Where the token says of itself that it may not delete
// the probe, nothing is written and the rights are those that Vault tells.
func (b *VaultBackend) Diagnose(ctx context.Context, need secret.Access) []secret.Finding {
	d := &diagnosis{b: b, need: need}
	for _, examine := range []func(context.Context) bool{
		d.server, d.login, d.engine, d.rights, d.references,
	} {
		if !examine(ctx) {
			break
		}
	}
	return d.findings
}

// diagnosis collects findings. Its steps return false where the next ones are of no use.
type diagnosis struct {
	b        *VaultBackend
	need     secret.Access
	health   health
	found    engine
	findings []secret.Finding
}

func (d *diagnosis) ok(check, detail string, args ...any) {
	d.add(secret.Finding{Check: check, Verdict: secret.Ok, Detail: fmt.Sprintf(detail, args...)})
}

func (d *diagnosis) warn(check, advice, detail string, args ...any) {
	d.add(secret.Finding{Check: check, Verdict: secret.Warn, Detail: fmt.Sprintf(detail, args...), Advice: advice})
}

func (d *diagnosis) fail(check, advice, detail string, args ...any) {
	d.add(secret.Finding{Check: check, Verdict: secret.Fail, Detail: fmt.Sprintf(detail, args...), Advice: advice})
}

func (d *diagnosis) add(f secret.Finding) { d.findings = append(d.findings, f) }

// failed reports an error of ours, whose message ends with what to do about it.
func (d *diagnosis) failed(check string, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		d.fail(check, "run it again with more time", "the examination was ended before there was an answer")
		return
	}
	text := err.Error()
	for _, known := range []error{secret.ErrDenied, secret.ErrLogin, secret.ErrUnavailable, secret.ErrThrottled, secret.ErrInvalid} {
		text = strings.TrimPrefix(text, known.Error()+": ")
	}
	detail, advice := text, "see the log of Vault"
	if i := strings.LastIndex(text, ": "); i >= 0 {
		detail, advice = text[:i], text[i+2:]
	}
	d.fail(check, advice, "%s", detail)
}

// engine finds out which version of KV is mounted, and whether it is the configured one.
func (d *diagnosis) engine(ctx context.Context) bool {
	const check = "engine"
	b := d.b
	e, err := b.engine.get(ctx)
	if err != nil {
		d.failed(check, err)
		return false
	}
	d.found = e
	version := 2
	if _, is := e.(kv1); is {
		version = 1
	}
	if !b.engine.fixed {
		d.ok(check, "KV version %d at %s", version, b.mount)
		return true
	}
	// The configured version is taken on trust in calls. Whether it is the right one may
	// be forbidden to ask.
	mounted, err := b.engine.ask(ctx)
	switch {
	case errors.Is(err, secret.ErrDenied):
		d.ok(check, "KV version %d at %s, as configured; Vault does not tell", version, b.mount)
	case err != nil:
		d.failed(check, err)
		return false
	case mounted != version:
		d.fail(check, "correct the KV version (VAULT_KV_VERSION)", "KV version %d is mounted at %s, and %d configured", mounted, b.mount, version)
		return false
	default:
		d.ok(check, "KV version %d at %s, as configured", version, b.mount)
	}
	return true
}

// namespace reports the namespaces in use, if any.
func (d *diagnosis) namespace() {
	const check = "namespace"
	secrets, login := d.b.conn.secrets.Namespace(), d.b.conn.login.Namespace()
	if secrets == "" && login == "" {
		return
	}
	text := fmt.Sprintf("secrets in %s, login in %s", orRoot(secrets), orRoot(login))
	// Namespaces came with Vault Enterprise ("1.x+ent") and OpenBao 2.
	if strings.HasPrefix(d.health.Version, "1.") && !strings.Contains(d.health.Version, "+ent") {
		d.warn(check, "leave the namespace out", "%s; but this open-source Vault has none and answers from its root", text)
		return
	}
	d.ok(check, "%s", text)
}

func orRoot(namespace string) string {
	if namespace == "" {
		return "root"
	}
	return namespace
}

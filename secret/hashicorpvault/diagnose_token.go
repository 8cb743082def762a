package hashicorpvault

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// minTokenLife is the shortest life of a token that leaves time to try again when Vault
// does not answer at once.
const minTokenLife = time.Minute

// tokenInfo is what lookup-self tells
// (https://developer.hashicorp.com/vault/api-docs/auth/token).
type tokenInfo struct {
	TTL              int64    `json:"ttl"` // seconds left, 0 also for a token that does not expire
	ExpireTime       string   `json:"expire_time"`
	Renewable        bool     `json:"renewable"`
	Period           int64    `json:"period"`           // seconds, of a periodic token
	ExplicitMaxTTL   int64    `json:"explicit_max_ttl"` // seconds
	Uses             int      `json:"num_uses"`         // left; 0: no limit
	Policies         []string `json:"policies"`
	IdentityPolicies []string `json:"identity_policies"`
}

// login logs in and examines the token.
func (d *diagnosis) login(ctx context.Context) bool {
	const check = "login"
	method := d.b.auth.method
	r := request{method: http.MethodGet, path: "auth/token/lookup-self", self: true}
	a, err := d.b.call(ctx, r)
	switch {
	case err != nil:
		d.failed(check, err)
		return false
	case a.denied() && a.invalidToken():
		d.failed(check, refused("the token is not valid: it has expired or was revoked: %s", method.remedy()))
		return false
	case !a.ok() && !a.denied():
		d.failed(check, fault(a, r, nil))
		return false
	}
	var info tokenInfo
	if a.denied() || json.Unmarshal(a.data, &info) != nil {
		d.ok(check, "by %s", method)
		d.warn("token", `let it have Vault's policy "default", or read on auth/token/lookup-self and update on auth/token/renew-self`,
			"it may not look itself up: when it ends is unknown, and it is not renewed")
	} else {
		policies := slices.Concat(info.Policies, info.IdentityPolicies)
		d.ok(check, "by %s, with the policies %s", method, printable(strings.Join(policies, ", ")))
		d.token(ctx, info)
	}
	d.namespace()
	return true
}

// token judges how long the token will do. The most pressing thing is said.
func (d *diagnosis) token(ctx context.Context, info tokenInfo) {
	const check = "token"
	again := d.b.auth.method.again()
	ttl := time.Duration(info.TTL) * time.Second
	left := "ends in " + rough(ttl)
	switch {
	case slices.Contains(info.Policies, "root"):
		d.warn(check, "give the broker a token of the least policy", "it is a root token: it may do everything")
	case info.Uses > 0:
		d.warn(check, "use one without num_uses", "it can be used %d times more, and the broker uses it for every call", info.Uses)
	case info.TTL == 0 && info.ExpireTime == "":
		d.warn(check, "use a periodic token, or a login", "it has no end: it is good for ever to whoever finds it")
	case ttl < minTokenLife && !(info.Renewable && info.Period > 0 && info.Period >= int64(minTokenLife.Seconds())):
		d.warn(check, "let tokens live for 20 minutes or more", "%s: there is hardly time to try again", left)
	case !info.Renewable && !again:
		d.warn(check, "use a periodic token, or a login", "%s and can't be renewed", left)
	case info.Renewable && !again && info.Period == 0:
		d.warn(check, "use a periodic token, or a login", "%s and is renewed, but only up to its longest life", left)
	case info.Renewable && !d.mayRenew(ctx) && !again:
		d.warn(check, `let it have Vault's policy "default", or update on auth/token/renew-self`, "%s, and no policy allows it to renew itself", left)
	case again:
		d.ok(check, "%s; renewed, or replaced by another login, before that", left)
	default:
		d.ok(check, "%s; renewed before that", left)
	}
}

// mayRenew is true too where Vault does not tell.
func (d *diagnosis) mayRenew(ctx context.Context) bool {
	const path = "auth/token/renew-self"
	granted, told := d.capabilities(ctx, true, path)
	return !told || demand{{path, []string{"update"}}}.met(granted)
}

// capabilities asks Vault what the token may do at the paths. told is false where it
// does not say.
func (d *diagnosis) capabilities(ctx context.Context, self bool, paths ...string) (granted map[string][]string, told bool) {
	r := request{method: http.MethodPut, path: "sys/capabilities-self", body: map[string][]string{"paths": paths}, self: self}
	a, err := d.b.call(ctx, r)
	if err != nil || !a.ok() || json.Unmarshal(a.data, &granted) != nil {
		return nil, false
	}
	return granted, true
}

// allowed reports whether granted has the capability at path.
func allowed(granted map[string][]string, path, capability string) bool {
	return demand{right{path, []string{capability}}}.met(granted)
}

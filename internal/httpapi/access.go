package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// audience is who may use a route.
type audience []Role

// The audiences. public is nil: no key is looked at, and no address.
var (
	public   audience
	admins   = audience{Admin}
	agents   = audience{Admin, Agent}
	auditors = audience{Admin, Auditor}
	everyone = audience{Admin, Agent, Auditor} // with a key
)

// admit decides whether the caller may use a route for who, and notes the caller's
// role. Every request passes here before its handler is called.
func (a *api) admit(r *http.Request, who audience) error {
	if who == nil {
		return nil
	}
	from, err := a.authenticate(r)
	if err != nil {
		return err
	}
	c := callFrom(r.Context())
	c.role = from.role
	if a.RequireAllowlist && !contains(a.AllowedCIDRs, c.client) {
		return failure(codeAccessDenied, "this address is not in ALLOWED_CIDRS")
	}
	// Also what is forbidden counts; what comes from elsewhere does not, so that a
	// stolen key is of no use against its owner.
	if err := a.limits.take(from.key, time.Now()); err != nil {
		return err
	}
	if !slices.Contains(who, from.role) {
		return failure(codeForbidden, "a key with the role "+string(from.role)+" may not do this")
	}
	return nil
}

func (a *api) authenticate(r *http.Request) (caller, error) {
	if a.Keys == nil {
		return caller{role: Admin}, nil
	}
	presented := r.Header.Get("X-API-Key")
	if presented == "" {
		return caller{}, failure(codeMissingAPIKey, "the header X-API-Key is missing")
	}
	from, ok := a.Keys.find(presented)
	if !ok {
		return caller{}, failure(codeInvalidAPIKey, "the key in X-API-Key is not one of the broker's")
	}
	return from, nil
}

// contains reports whether addr, which may be unknown, is in one of the networks.
func contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

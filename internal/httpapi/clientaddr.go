package httpapi

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
)

// clientAddresses finds out where a request came from.
type clientAddresses struct {
	trusted []netip.Prefix
	warned  atomic.Bool
}

// of returns the caller's address, not valid if it cannot be known, and whether an
// X-Forwarded-For was ignored because the peer is not trusted.
//
// Each proxy appends the address that it was called from, so the header is read
// from its end: the first address that is no trusted proxy's is the caller's.
// Everything before it the caller may have invented.
func (c *clientAddresses) of(r *http.Request) (addr netip.Addr, ignored bool) {
	peer := parseAddr(r.RemoteAddr)
	forwarded := r.Header.Values("X-Forwarded-For")
	if len(forwarded) == 0 {
		return peer, false
	}
	if !contains(c.trusted, peer) {
		return peer, true
	}
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		addr = parseAddr(strings.TrimSpace(hops[i]))
		if !contains(c.trusted, addr) {
			return addr, false // or not valid: a trusted proxy did not say whom it serves
		}
	}
	return addr, false
}

// warnOnce says that callers seem to come through a proxy that nobody declared.
func (c *clientAddresses) warnOnce(log *slog.Logger, r *http.Request) {
	if c.warned.CompareAndSwap(false, true) {
		log.WarnContext(r.Context(), "a request has X-Forwarded-For and its peer is not in TRUSTED_PROXIES: "+
			"the allow-list is applied to the peer's own address", "peer", parseAddr(r.RemoteAddr))
	}
}

// parseAddr reads an address with or without a port. IPv4 in IPv6 becomes IPv4, and
// a zone is dropped: networks and databases know neither.
func parseAddr(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

package oauth

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// ErrAddressNotAllowed: a host's address is not on the public internet, and the
// client was made to reach that only.
var ErrAddressNotAllowed = errors.New("the address is not a public one")

type addressError struct{ ip netip.Addr }

func (e *addressError) Error() string {
	return fmt.Sprintf("%s: %s (OUTBOUND_ALLOW_PRIVATE=false)", ErrAddressNotAllowed, e.ip)
}
func (e *addressError) Unwrap() error { return ErrAddressNotAllowed }

// refuseNonPublic is a net.Dialer's Control: it sees the address that is about to be
// connected to.
func refuseNonPublic(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return ErrAddressNotAllowed
	}
	if !public(ap.Addr()) {
		return &addressError{ap.Addr()}
	}
	return nil
}

// public reports whether ip is reachable on the public internet and is nobody's
// metadata service.
func public(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("") // ::ffff:127.0.0.1 is 127.0.0.1
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false // loopback, link-local, multicast, unspecified, RFC 1918, RFC 4193
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// notPublic completes what package netip knows: the special-purpose registries of
// IANA (RFC 6890 and successors), and prefixes in which an IPv4 address is embedded
// and through which a private one could be reached.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),        // "this network", RFC 791
	netip.MustParsePrefix("100.64.0.0/10"),    // shared address space (CGNAT), RFC 6598
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's host agent, on a public address
	netip.MustParsePrefix("192.0.0.0/24"),     // IETF protocol assignments; Oracle's metadata service
	netip.MustParsePrefix("192.0.2.0/24"),     // documentation, RFC 5737
	netip.MustParsePrefix("192.88.99.0/24"),   // 6to4 relay, RFC 7526
	netip.MustParsePrefix("198.18.0.0/15"),    // benchmarks, RFC 2544
	netip.MustParsePrefix("198.51.100.0/24"),  // documentation
	netip.MustParsePrefix("203.0.113.0/24"),   // documentation
	netip.MustParsePrefix("240.0.0.0/4"),      // reserved, RFC 1112
	netip.MustParsePrefix("::/96"),            // IPv4-compatible, RFC 4291
	netip.MustParsePrefix("::ffff:0:0:0/96"),  // IPv4-translated, RFC 2765
	netip.MustParsePrefix("64:ff9b::/96"),     // NAT64, RFC 6052
	netip.MustParsePrefix("64:ff9b:1::/48"),   // NAT64 of local use, RFC 8215
	netip.MustParsePrefix("100::/64"),         // discard-only, RFC 6666
	netip.MustParsePrefix("2001::/23"),        // IETF protocol assignments; Teredo
	netip.MustParsePrefix("2001:db8::/32"),    // documentation, RFC 3849
	netip.MustParsePrefix("2002::/16"),        // 6to4, RFC 3056
	netip.MustParsePrefix("3fff::/20"),        // documentation, RFC 9637
	netip.MustParsePrefix("5f00::/16"),        // segment routing, RFC 9602
	netip.MustParsePrefix("fec0::/10"),        // site-local, RFC 3879
}

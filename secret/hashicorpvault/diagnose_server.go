package hashicorpvault

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// What is worth a warning.
const (
	maxClockSkew       = 30 * time.Second
	minCertificateLife = 14 * 24 * time.Hour
)

// health is the answer of sys/health. It has this form whatever the status
// (https://developer.hashicorp.com/vault/api-docs/system/health).
type health struct {
	Initialized        *bool  `json:"initialized"`
	Sealed             bool   `json:"sealed"`
	Standby            bool   `json:"standby"`
	PerformanceStandby bool   `json:"performance_standby"`
	DRMode             string `json:"replication_dr_mode"`
	ServerTime         int64  `json:"server_time_utc"` // seconds
	Version            string `json:"version"`
	ClusterName        string `json:"cluster_name"`
}

// server examines the connection, and with it the certificate and the clocks.
func (d *diagnosis) server(ctx context.Context) bool {
	bounded, cancel := context.WithTimeout(ctx, d.b.conn.timeout)
	defer cancel()
	sent := time.Now()
	state, date, err := d.ask(bounded)
	took := time.Since(sent)
	switch ended := ctx.Err(); {
	case ended != nil:
		d.failed("connection", ended)
		return false
	case err != nil:
		d.failed("connection", err)
		return false
	}
	works := d.connection()
	d.certificate(state)
	d.clock(date, sent.Add(took/2))
	return works
}

// ask reads sys/health, which needs no token and knows no namespace.
func (d *diagnosis) ask(ctx context.Context) (*tls.ConnectionState, time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.b.conn.secrets.Address()+"/v1/sys/health", nil)
	if err != nil {
		return nil, time.Time{}, errors.New("the address cannot be used: correct it")
	}
	req.Header.Set("X-Vault-Request", "true")
	resp, err := d.b.conn.http.Do(req)
	if err != nil {
		return nil, time.Time{}, errNetwork{reason(err)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, time.Time{}, errNetwork{reason(err)}
	}
	if json.Unmarshal(body, &d.health) != nil || d.health.Initialized == nil {
		return nil, time.Time{}, fmt.Errorf("the answer, with status %d, is not Vault's: check the address and the proxies in front of it", resp.StatusCode)
	}
	date, _ := http.ParseTime(resp.Header.Get("Date")) // zero if it is not there
	if d.health.ServerTime > 0 {
		date = time.Unix(d.health.ServerTime, 0) // Vault's own; the header may be a proxy's
	}
	return resp.TLS, date, nil
}

func (d *diagnosis) connection() bool {
	const check = "connection"
	h := d.health
	where := fmt.Sprintf("version %s at %s", printable(h.Version), d.b.address)
	if h.ClusterName != "" {
		where += ", cluster " + printable(h.ClusterName)
	}
	switch {
	case !*h.Initialized:
		d.fail(check, "initialise it: vault operator init", "%s is not initialised", where)
	case h.Sealed:
		d.fail(check, "unseal it", "%s is sealed", where)
	case h.DRMode == "secondary":
		d.fail(check, "use the address of the primary", "%s is a disaster recovery secondary", where)
	case h.Standby || h.PerformanceStandby:
		d.ok(check, "%s, a standby, which hands requests on", where)
		return true
	default:
		d.ok(check, "%s", where)
		return true
	}
	return false
}

// printable keeps what a stranger may have sent to a short line.
func printable(s string) string {
	var kept []rune
	for _, r := range s {
		if !unprintable(r) && len(kept) < 60 {
			kept = append(kept, r)
		}
	}
	return string(kept)
}

// certificate examines how the connection is protected.
func (d *diagnosis) certificate(state *tls.ConnectionState) {
	const check = "tls"
	if state == nil || len(state.PeerCertificates) == 0 {
		if onThisMachine(d.b.address) {
			d.ok(check, "none: the address is http on this machine")
			return
		}
		d.warn(check, "use https", "none: the token and every credential cross the network in clear")
		return
	}
	cert := state.PeerCertificates[0]
	text := fmt.Sprintf("the certificate, signed by %s, ends on %s", printable(cert.Issuer.String()), cert.NotAfter.UTC().Format(time.DateOnly))
	left := time.Until(cert.NotAfter)
	switch {
	case d.b.conn.idle.config.InsecureSkipVerify:
		d.warn(check, "name the authority instead (VAULT_CACERT)", "%s; any other would be accepted too (VAULT_SKIP_VERIFY)", text)
	case left < minCertificateLife:
		d.warn(check, "renew it", "%s, in %s", text, rough(left))
	default:
		d.ok(check, "%s", text)
	}
}

func onThisMachine(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// rough writes a duration for a person.
func rough(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

// clock compares Vault's clock, which tells seconds, with ours: where they differ a
// token ends sooner here than there, or later, and signed logins are refused.
func (d *diagnosis) clock(theirs, ours time.Time) {
	const check = "clock"
	if theirs.IsZero() {
		return
	}
	switch skew := theirs.Sub(ours).Round(time.Second); {
	case skew >= maxClockSkew:
		d.warn(check, "set both clocks by NTP", "Vault's is %s ahead of this machine's", rough(skew))
	case skew <= -maxClockSkew:
		d.warn(check, "set both clocks by NTP", "Vault's is %s behind this machine's", rough(-skew))
	default:
		d.ok(check, "less than %s apart", maxClockSkew)
	}
}

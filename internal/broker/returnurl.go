package broker

import (
	"net/url"
	"strings"
)

// checkReturnURL returns nil if a browser may be sent to s after a consent. With
// EnforceReturnURL the host must be allowed. In any case s must be one that a
// browser only navigates to: no script, no data, no control characters.
func (c Config) checkReturnURL(s string) *Error {
	refuse := func(why string) *Error { return fail(CodeReturnURLNotAllowed, "return_url "+why) }
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return refuse("contains a control character or a backslash")
	}
	u, err := url.Parse(s)
	if err != nil {
		return refuse("is not a URL")
	}
	switch strings.ToLower(u.Scheme) {
	case "javascript", "data", "vbscript", "file", "blob", "about":
		return refuse("has a scheme that a browser must not be sent to")
	}
	if !c.EnforceReturnURL {
		return nil
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.User != nil || !c.allowedHost(u.Hostname()) {
		return refuse("is not on a domain of ALLOWED_RETURN_DOMAINS")
	}
	return nil
}

func (c Config) allowedHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, d := range c.AllowedReturnDomains {
		d = strings.ToLower(strings.TrimSpace(d))
		if parent, ok := strings.CutPrefix(d, "*."); ok {
			if strings.HasSuffix(host, "."+parent) {
				return true
			}
		} else if host == d && host != "" {
			return true
		}
	}
	return false
}

// withQuery returns returnURL with the pairs set in its query. A URL that cannot
// be parsed any more (it was checked when it was stored) gives "".
func withQuery(returnURL string, pairs ...string) string {
	u, err := url.Parse(returnURL)
	if err != nil {
		return ""
	}
	q := u.Query()
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

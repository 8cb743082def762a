package broker

import (
	"fmt"
	"net/url"
	"slices"
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

// withQuery returns returnURL with the pairs in its query; a pair without a value is left
// out. What the query has under one of their names goes. All else stays as it is, to the
// byte, since it is another program's to understand; but what no URL may hold is escaped,
// as a browser would. A query that is as url.Values.Encode writes it stays so with them,
// sorted, as the existing broker has it. A URL that cannot be parsed any more (it was
// checked when it was stored) gives "".
func withQuery(returnURL string, pairs ...string) string {
	u, err := url.Parse(returnURL)
	if err != nil {
		return ""
	}
	var names, query []string
	added := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		names = append(names, pairs[i])
		if pairs[i+1] != "" {
			added.Set(pairs[i], pairs[i+1])
		}
	}
	if q := u.Query(); q.Encode() == u.RawQuery {
		for _, name := range names {
			q.Del(name)
		}
		for name := range added {
			q.Set(name, added.Get(name))
		}
		u.RawQuery = q.Encode()
		return u.String()
	}
	if u.RawQuery != "" {
		query = slices.DeleteFunc(strings.Split(u.RawQuery, "&"), func(part string) bool {
			key, _, _ := strings.Cut(part, "=")
			name, err := url.QueryUnescape(key)
			return err == nil && slices.Contains(names, name)
		})
	}
	u.RawQuery = escapeQuery(strings.Join(append(query, added.Encode()), "&"))
	return u.String()
}

// escapeQuery escapes what a browser escapes in a query: the query percent-encode set of
// the URL Standard (url.spec.whatwg.org, "Percent-encoded bytes").
func escapeQuery(query string) string {
	var b strings.Builder
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"#<>`, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

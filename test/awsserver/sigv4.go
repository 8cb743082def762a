package awsserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The format of dates in a signature, and how far a request's may be from the server's.
const (
	amzDate   = "20060102T150405Z"
	maxSkew   = 5 * time.Minute
	algorithm = "AWS4-HMAC-SHA256"
)

// signature is the header Authorization, taken apart
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html).
type signature struct {
	accessKey, date, region, service string
	signed                           []string // headers, lower case, in their order
	value                            string   // hex
}

// authenticate verifies the request's signature and returns who has signed it. It runs
// with the lock held.
func (s *Server) authenticate(r *http.Request, body []byte, service string) (*user, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	sig, ok := parseSignature(header)
	at, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	if !ok || err != nil {
		return nil, refuse("IncompleteSignatureException", "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header, and its parameters Credential, SignedHeaders and Signature.")
	}
	u := s.users[sig.accessKey]
	if u == nil || u.token != r.Header.Get("X-Amz-Security-Token") {
		return nil, refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if err := s.checkScope(sig, at, service); err != nil {
		return nil, err
	}
	if !slices.Contains(sig.signed, "host") || !slices.Contains(sig.signed, "x-amz-date") || !signsAmzHeaders(r, sig) {
		return nil, refuse("InvalidSignatureException", "'Host' and all 'X-Amz-' headers must be 'SignedHeaders' in the AWS Authorization.")
	}
	if !hmac.Equal([]byte(sig.sign(u.secret, r, body)), []byte(sig.value)) {
		return nil, refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	if !u.expires.IsZero() && !s.now().Before(u.expires) {
		return nil, refuse("ExpiredTokenException", "The security token included in the request is expired")
	}
	return u, nil
}

func (s *Server) checkScope(sig signature, at time.Time, service string) error {
	now := s.now().UTC()
	switch {
	case sig.region != Region:
		return refuse("InvalidSignatureException", "Credential should be scoped to a valid region.")
	case sig.service != service:
		return refuse("InvalidSignatureException", "Credential should be scoped to correct service: '%s'.", service)
	case sig.date != at.Format("20060102"):
		return refuse("InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
	case at.Before(now.Add(-maxSkew)):
		return refuse("InvalidSignatureException", "Signature expired: %s is now earlier than %s (%s - 5 min.)",
			at.Format(amzDate), now.Add(-maxSkew).Format(amzDate), now.Format(amzDate))
	case at.After(now.Add(maxSkew)):
		return refuse("InvalidSignatureException", "Signature not yet current: %s is still later than %s (%s + 5 min.)",
			at.Format(amzDate), now.Add(maxSkew).Format(amzDate), now.Format(amzDate))
	}
	return nil
}

// parseSignature reads "AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…".
func parseSignature(header string) (sig signature, ok bool) {
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return sig, false
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope := strings.Split(value, "/")
			if len(scope) != 5 || scope[4] != "aws4_request" {
				return sig, false
			}
			sig.accessKey, sig.date, sig.region, sig.service = scope[0], scope[1], scope[2], scope[3]
		case "SignedHeaders":
			sig.signed = strings.Split(value, ";")
		case "Signature":
			sig.value = value
		}
	}
	return sig, sig.accessKey != "" && len(sig.signed) > 0 && sig.value != ""
}

// signsAmzHeaders: a header that means something to the service must not have been
// added on the way.
func signsAmzHeaders(r *http.Request, sig signature) bool {
	for name := range r.Header {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "x-amz-") && !slices.Contains(sig.signed, name) {
			return false
		}
	}
	return true
}

// sign calculates what the signature has to be with the given key.
func (sig signature) sign(secretKey string, r *http.Request, body []byte) string {
	var canonical strings.Builder
	canonical.WriteString(r.Method + "\n" + canonicalPath(r.URL) + "\n" + canonicalQuery(r.URL) + "\n")
	for _, name := range sig.signed {
		canonical.WriteString(name + ":" + canonicalHeader(r, name) + "\n")
	}
	canonical.WriteString("\n" + strings.Join(sig.signed, ";") + "\n" + hash(body))

	scope := strings.Join([]string{sig.date, sig.region, sig.service, "aws4_request"}, "/")
	toSign := strings.Join([]string{algorithm, r.Header.Get("X-Amz-Date"), scope, hash([]byte(canonical.String()))}, "\n")
	k := []byte("AWS4" + secretKey)
	for _, part := range []string{sig.date, sig.region, sig.service, "aws4_request", toSign} {
		m := hmac.New(sha256.New, k)
		m.Write([]byte(part))
		k = m.Sum(nil)
	}
	return hex.EncodeToString(k)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func canonicalPath(u *url.URL) string {
	if p := u.EscapedPath(); p != "" {
		return p
	}
	return "/"
}

func canonicalQuery(u *url.URL) string {
	return strings.ReplaceAll(u.Query().Encode(), "+", "%20")
}

func canonicalHeader(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length": // net/http takes it out of the header
		if r.ContentLength >= 0 {
			return itoa(r.ContentLength)
		}
	}
	values := r.Header.Values(name)
	trimmed := make([]string, len(values))
	for i, v := range values {
		trimmed[i] = strings.Join(strings.Fields(v), " ")
	}
	return strings.Join(trimmed, ",")
}

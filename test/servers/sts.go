package servers

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

const stsAccount = "123456789012"

// STS is as much of the AWS Security Token Service as a login to Vault needs: the action
// GetCallerIdentity, with the signature verified as AWS documents it (Signature Version 4,
// https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html) by code that
// is independent of the SDK. What it cannot prove: that the endpoint of a region accepts
// what another region's would.
type STS struct {
	URL string

	mu       sync.Mutex
	keys     map[string]stsKey // by access key id
	outage   int               // the status of every answer, unless 0
	requests []Request
}

type stsKey struct{ secret, session, role string }

// NewSTS starts one. It ends with the test.
func NewSTS(t TB) *STS {
	t.Helper()
	s := &STS{keys: map[string]stsKey{}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// Credentials makes credentials of a session of an IAM role known; session may be "".
func (s *STS) Credentials(role, keyID, secret, session string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[keyID] = stsKey{secret, session, role}
}

// Outage makes every answer one with this status; 0 ends it.
func (s *STS) Outage(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outage = status
}

// Requests returns what was asked; the header has the Host too.
func (s *STS) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// ServeHTTP implements http.Handler.
func (s *STS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := Request{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Clone()}
	seen.Header.Set("Host", r.Host)
	s.requests = append(s.requests, seen)
	w.Header().Set("Content-Type", "text/xml")
	role, code := "", "IncompleteSignature"
	if err == nil {
		role, code = s.verify(r, body)
	}
	switch {
	case s.outage != 0:
		w.WriteHeader(s.outage)
		_, _ = fmt.Fprint(w, stsError("InternalFailure"))
	case code != "":
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, stsError(code))
	default:
		_, _ = fmt.Fprintf(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
			`<Arn>arn:aws:sts::%s:assumed-role/%s/session</Arn><UserId>AROA%s:session</UserId><Account>%s</Account>`+
			`</GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>`,
			stsAccount, role, strings.ToUpper(role), stsAccount)
	}
}

func stsError(code string) string {
	return `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>` + code +
		`</Code><Message>-</Message></Error><RequestId>1</RequestId></ErrorResponse>`
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([a-z0-9-]+)/([a-z]+)/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$`)

// verify returns the role that has signed the request, or the code of an error.
func (s *STS) verify(r *http.Request, body []byte) (role, code string) {
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil || string(body) != "Action=GetCallerIdentity&Version=2011-06-15" || r.Method != http.MethodPost {
		return "", "IncompleteSignature"
	}
	keyID, day, region, service, names, signature := m[1], m[2], m[3], m[4], strings.Split(m[5], ";"), m[6]
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	key, known := s.keys[keyID]
	switch {
	case !known || key.session != r.Header.Get("X-Amz-Security-Token"):
		return "", "InvalidClientTokenId"
	case err != nil || at.Format("20060102") != day || time.Since(at).Abs() > 15*time.Minute || service != "sts":
		return "", "SignatureDoesNotMatch"
	}
	canonical := r.Method + "\n" + path.Clean("/"+r.URL.EscapedPath()) + "\n" + r.URL.RawQuery + "\n"
	for _, name := range names {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		canonical += name + ":" + strings.Join(strings.Fields(value), " ") + "\n"
	}
	canonical += "\n" + m[5] + "\n" + digest(body)
	scope := day + "/" + region + "/" + service + "/aws4_request"
	toSign := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + scope + "\n" + digest([]byte(canonical))
	derived := []byte("AWS4" + key.secret)
	for _, part := range []string{day, region, service, "aws4_request", toSign} {
		derived = mac(derived, part)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(derived)), []byte(signature)) {
		return "", "SignatureDoesNotMatch"
	}
	return key.role, ""
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

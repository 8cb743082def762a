package awsserver

import (
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"
)

// stsAction returns the action of a request in the query protocol, "" if it is none.
func stsAction(r *http.Request, body []byte) string {
	if r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" &&
		r.Header.Get("Content-Type") != "application/x-www-form-urlencoded; charset=utf-8" {
		return ""
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Version") != "2011-06-15" {
		return ""
	}
	return form.Get("Action")
}

// serveSTS answers AssumeRole and GetCallerIdentity
// (https://docs.aws.amazon.com/STS/latest/APIReference/).
func (s *Server) serveSTS(w http.ResponseWriter, r *http.Request, body []byte) {
	form, _ := url.ParseQuery(string(body)) // stsAction has parsed it
	s.mu.Lock()
	var answer any
	u, err := s.authenticate(r, body, "sts")
	if err == nil {
		answer, err = s.sts(u, form)
	}
	s.mu.Unlock()
	if err != nil {
		failSTS(w, err)
		return
	}
	s.cutAfter("sts:" + form.Get("Action"))
	writeXML(w, http.StatusOK, answer)
}

type assumeRoleResponse struct {
	XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
	Result  struct {
		AssumedRoleUser struct {
			AssumedRoleID string `xml:"AssumedRoleId"`
			Arn           string
		}
		Credentials struct {
			AccessKeyID                               string `xml:"AccessKeyId"`
			SecretAccessKey, SessionToken, Expiration string
		}
	} `xml:"AssumeRoleResult"`
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

type callerIdentityResponse struct {
	XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
	Result  struct {
		Arn     string
		UserID  string `xml:"UserId"`
		Account string
	} `xml:"GetCallerIdentityResult"`
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

func (s *Server) sts(u *user, form url.Values) (any, error) {
	switch form.Get("Action") {
	case "GetCallerIdentity":
		a := callerIdentityResponse{RequestID: newUUID()}
		a.Result.Arn, a.Result.UserID, a.Result.Account = u.arn, "AIDACKCEVSQ6C2EXAMPLE", Account
		return a, nil
	case "AssumeRole":
		return s.assumeRole(u, form)
	}
	return nil, refuse("InvalidAction", "Could not find operation %s for version 2011-06-15", form.Get("Action"))
}

var sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

func (s *Server) assumeRole(u *user, form url.Values) (any, error) {
	role := s.roles[form.Get("RoleArn")]
	if !sessionName.MatchString(form.Get("RoleSessionName")) {
		return nil, refuse("ValidationError", "1 validation error detected: Value at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*")
	}
	// A role that is not there looks like one that may not be assumed.
	if role == nil || s.settings.denied["sts:AssumeRole"] || role.ExternalID != "" && role.ExternalID != form.Get("ExternalId") {
		return nil, &apiError{http.StatusForbidden, "AccessDenied",
			"User: " + u.arn + " is not authorized to perform: sts:AssumeRole on resource: " + form.Get("RoleArn")}
	}
	lasts := role.Session
	if lasts == 0 {
		seconds, err := strconv.Atoi(form.Get("DurationSeconds"))
		if form.Get("DurationSeconds") == "" {
			seconds, err = 3600, nil
		}
		if err != nil || seconds < 900 || seconds > 43200 {
			return nil, refuse("ValidationError", "1 validation error detected: Value at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 43200")
		}
		lasts = time.Duration(seconds) * time.Second
	}
	session := &user{
		secret: randomID(40), token: randomID(120), expires: s.now().Add(lasts), role: role,
		arn: "arn:aws:sts::" + Account + ":assumed-role/" + role.ARN[len("arn:aws:iam::")+len(Account)+len(":role/"):] + "/" + form.Get("RoleSessionName"),
	}
	id := "ASIA" + randomID(16)
	s.users[id] = session
	a := assumeRoleResponse{RequestID: newUUID()}
	a.Result.AssumedRoleUser.Arn = session.arn
	a.Result.AssumedRoleUser.AssumedRoleID = "AROA" + randomID(16) + ":" + form.Get("RoleSessionName")
	a.Result.Credentials.AccessKeyID = id
	a.Result.Credentials.SecretAccessKey = session.secret
	a.Result.Credentials.SessionToken = session.token
	a.Result.Credentials.Expiration = session.expires.UTC().Format(time.RFC3339)
	return a, nil
}

// stsCodes are the names that STS has for what Secrets Manager calls otherwise.
var stsCodes = map[string]string{
	"UnrecognizedClientException":         "InvalidClientTokenId",
	"InvalidSignatureException":           "SignatureDoesNotMatch",
	"IncompleteSignatureException":        "IncompleteSignature",
	"MissingAuthenticationTokenException": "MissingAuthenticationToken",
	"ExpiredTokenException":               "ExpiredToken",
}

func failSTS(w http.ResponseWriter, err error) {
	e := &apiError{http.StatusInternalServerError, "InternalFailure", ""}
	_ = errors.As(err, &e)
	status, code := e.status, e.code
	if other, ok := stsCodes[code]; ok {
		status, code = http.StatusForbidden, other
	}
	var form struct {
		XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
		Error   struct{ Type, Code, Message string }
		ID      string `xml:"RequestId"`
	}
	form.Error.Type, form.Error.Code, form.Error.Message, form.ID = "Sender", code, e.message, newUUID()
	writeXML(w, status, form)
}

func writeXML(w http.ResponseWriter, status int, form any) {
	body, err := xml.Marshal(form)
	if err != nil {
		panic(err) // our own types
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

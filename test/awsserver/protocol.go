package awsserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxBody is more than the largest legal request: 64 KiB of value, each byte escaped.
const maxBody = 1 << 20

// apiError is an error of the service, with the name and text that AWS gives it.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// refuse returns an error of status 400, as Secrets Manager gives all but its own failures.
func refuse(code, format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

// operation is one action of Secrets Manager. It runs with the server's lock held.
type operation struct {
	// run answers the request, whose body is raw.
	run func(s *Server, c *call, raw []byte) (any, error)
	// writes: it changes something.
	writes bool
}

// operations are the actions that the server knows. The others of the service
// (rotation, replication, resource policies, random passwords) are not there.
var operations = map[string]operation{
	"BatchGetSecretValue":      {decoded((*Server).batchGetSecretValue), false},
	"CreateSecret":             {decoded((*Server).createSecret), true},
	"DeleteSecret":             {decoded((*Server).deleteSecret), true},
	"DescribeSecret":           {decoded((*Server).describeSecret), false},
	"GetSecretValue":           {decoded((*Server).getSecretValue), false},
	"ListSecretVersionIds":     {decoded((*Server).listSecretVersionIDs), false},
	"ListSecrets":              {decoded((*Server).listSecrets), false},
	"PutSecretValue":           {decoded((*Server).putSecretValue), true},
	"RestoreSecret":            {decoded((*Server).restoreSecret), true},
	"TagResource":              {decoded((*Server).tagResource), true},
	"UntagResource":            {decoded((*Server).untagResource), true},
	"UpdateSecret":             {decoded((*Server).updateSecret), true},
	"UpdateSecretVersionStage": {decoded((*Server).updateSecretVersionStage), true},
}

// decoded makes an operation of a method that takes its request as a struct.
func decoded[In any](run func(*Server, *call, In) (any, error)) func(*Server, *call, []byte) (any, error) {
	return func(s *Server, c *call, raw []byte) (any, error) {
		var in In
		if err := json.Unmarshal(raw, &in); err != nil {
			return nil, refuse("SerializationException", "")
		}
		return run(s, c, in)
	}
}

// call is what is known of a request while it is served.
type call struct {
	action string
	user   *user
	// needed are the rights that the request has asked for so far.
	needed []string
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		s.fail(w, &apiError{http.StatusRequestEntityTooLarge, "RequestEntityTooLargeException", ""})
		return
	}
	action, isSTS := actionOf(r, body)
	entry := s.note(Request{Action: action, At: s.now(), Size: len(body)})
	if s.inFault(w, r, action) {
		return
	}
	if isSTS {
		s.serveSTS(w, r, body)
		return
	}
	s.mu.Lock()
	answer, err := s.answer(r, body, action, entry)
	s.mu.Unlock()
	if err != nil {
		var refusal *apiError
		if !errors.As(err, &refusal) {
			refusal = &apiError{http.StatusInternalServerError, "InternalServiceError", "An error occurred on the server side."}
		}
		s.outcome(entry, refusal.code)
		s.fail(w, refusal)
		return
	}
	s.cutAfter(action)
	s.write(w, http.StatusOK, answer)
}

// answer runs the request, with the lock held, and returns the body of the answer.
func (s *Server) answer(r *http.Request, body []byte, action string, entry int) ([]byte, error) {
	u, err := s.authenticate(r, body, "secretsmanager")
	if err != nil {
		return nil, err
	}
	op, known := operations[strings.TrimPrefix(action, "secretsmanager:")]
	if r.Method != http.MethodPost || !known {
		return nil, refuse("UnknownOperationException", "")
	}
	c := &call{action: action, user: u}
	s.purge()
	defer func() { s.journal[entry].Needed = c.needed }()
	answer, err := op.run(s, c, body)
	if err != nil {
		return nil, err
	}
	if op.writes {
		s.remember()
	}
	if answer == nil {
		return nil, nil
	}
	return json.Marshal(answer)
}

// actionOf names the action as a policy does, "secretsmanager:GetSecretValue".
func actionOf(r *http.Request, body []byte) (action string, isSTS bool) {
	if target, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager."); ok {
		return "secretsmanager:" + target, false
	}
	if name := stsAction(r, body); name != "" {
		return "sts:" + name, true
	}
	return "", false
}

func (s *Server) fail(w http.ResponseWriter, e *apiError) {
	form := map[string]string{"__type": e.code}
	if e.message != "" {
		form["Message"] = e.message
		if lowerCaseMessage[e.code] {
			form = map[string]string{"__type": e.code, "message": e.message}
		}
	}
	body, err := json.Marshal(form)
	if err != nil {
		panic(err) // a map of strings
	}
	s.write(w, e.status, body)
}

// lowerCaseMessage are errors of the layer in front of the service, which spells its
// member so.
var lowerCaseMessage = map[string]bool{
	"UnrecognizedClientException": true, "InvalidSignatureException": true, "IncompleteSignatureException": true,
	"MissingAuthenticationTokenException": true, "ExpiredTokenException": true, "ThrottlingException": true,
}

func (s *Server) write(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/x-amz-json-1.1")
	h.Set("X-Amzn-Requestid", newUUID())
	h.Set("Date", s.now().UTC().Format(http.TimeFormat))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

// stamp is a time as the protocol writes it: seconds with a fraction.
type stamp time.Time

// MarshalJSON implements json.Marshaler.
func (t stamp) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", float64(time.Time(t).UnixMilli())/1000), nil
}

// optional is nil for the zero time, which has no member in an answer.
func optional(t time.Time) *stamp {
	if t.IsZero() {
		return nil
	}
	s := stamp(t)
	return &s
}

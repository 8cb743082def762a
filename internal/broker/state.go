package broker

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
)

// consentTTL is how long a consent may take: the life of a state and of a pending
// connection.
const consentTTL = 10 * time.Minute

// clockSkew is how far ahead of ours the clock of a replica that signed a state may be.
// It is generous, for only who has the key can sign, and the connection's row has an
// end of its own.
const clockSkew = 5 * time.Minute

// state is what the "state" parameter of an authorization request says. Other
// programs verify it with the same key: members, their order and the encoding are
// a wire format.
type state struct {
	WorkspaceID string    `json:"workspace_id"`
	ProviderID  string    `json:"provider_id"`
	Nonce       string    `json:"nonce"` // the connection id
	IssuedAt    time.Time `json:"iat"`   // RFC 3339
}

// sign encodes st: base64url(JSON) "." base64url(HMAC-SHA256(JSON)), unpadded.
func (st state) sign(key []byte) (string, error) {
	payload, err := json.Marshal(st)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString(payload) + "." + enc.EncodeToString(stateMAC(key, payload)), nil
}

func stateMAC(key, payload []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(payload)
	return mac.Sum(nil)
}

var errState = errors.New("the state is malformed, forged or expired")

// verifyState returns what a signed state says, and the connection that it is for.
func verifyState(key []byte, s string, now time.Time) (state, uuid.UUID, error) {
	body, sum, ok := strings.Cut(s, ".")
	if !ok || strings.ContainsAny(s, "\r\n") { // which a decoder skips, a strict one too
		return state{}, uuid.Nil, errState
	}
	enc := base64.RawURLEncoding.Strict()
	payload, err := enc.DecodeString(body)
	if err != nil {
		return state{}, uuid.Nil, errState
	}
	mac, err := enc.DecodeString(sum)
	if err != nil || !hmac.Equal(mac, stateMAC(key, payload)) {
		return state{}, uuid.Nil, errState
	}
	var st state
	if json.Unmarshal(payload, &st) != nil {
		return state{}, uuid.Nil, errState
	}
	id, err := uuid.Parse(st.Nonce)
	age := now.Sub(st.IssuedAt)
	if err != nil || age > consentTTL || age < -clockSkew {
		return state{}, uuid.Nil, errState
	}
	return st, id, nil
}

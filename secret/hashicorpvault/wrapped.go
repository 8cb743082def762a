package hashicorpvault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/nexus-broker/nexus-broker/secret"
)

// wrappedSecretID is a secret id behind a response-wrapping token, which works once
// (https://developer.hashicorp.com/vault/docs/concepts/response-wrapping).
type wrappedSecretID struct {
	conn  *conn
	token *credential

	mu sync.Mutex
	// used is the token that secretID came from.
	used     secret.Value
	secretID secret.Value
	// lost is a token that an unwrapping without an answer may have used up.
	lost secret.Value
}

func (w *wrappedSecretID) changed() bool { return w.token.changed() }

// get unwraps the token, unless it is the one that was unwrapped before. One login takes
// place at a time.
func (w *wrappedSecretID) get(ctx context.Context) (secret.Value, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.secretID.IsZero() && !w.token.changed() {
		return w.secretID, nil
	}
	token, err := w.token.read()
	switch {
	case err != nil && !w.secretID.IsZero():
		return w.secretID, nil // the file has served its purpose; it may be gone
	case err != nil:
		return secret.Value{}, err
	case !w.secretID.IsZero() && token.Equal(w.used):
		return w.secretID, nil
	case strings.ContainsFunc(token.Reveal(), unprintable):
		return secret.Value{}, refused("the file of the wrapping token holds characters that no token has")
	}
	// What was unwrapped before has been replaced: it shall not hide that this fails.
	w.secretID, w.used = secret.Value{}, secret.Value{}
	secretID, err := w.unwrap(ctx, token)
	if err != nil {
		return secret.Value{}, err
	}
	w.secretID, w.used = secretID, token
	return secretID, nil
}

// unwrap asks with the wrapping token itself: that needs no other one.
func (w *wrappedSecretID) unwrap(ctx context.Context, token secret.Value) (secret.Value, error) {
	r := request{method: http.MethodPut, path: "sys/wrapping/unwrap", body: map[string]string{}}
	a, err := w.conn.send(ctx, withToken(w.conn.login, token), r)
	switch {
	case err != nil, !a.fromVault: // it may have been a proxy that gave up waiting
		w.lost = token
		return secret.Value{}, fmt.Errorf("unwrapping the secret id: %w", fault(a, r, err))
	case a.ok():
		return unwrapped(a)
	case a.refusesToken():
		return secret.Value{}, w.spent(token)
	}
	return secret.Value{}, fmt.Errorf("unwrapping the secret id: %w", fault(a, r, nil))
}

// refusesToken: a wrapping token that is not, or not any more, one is refused with 400,
// by some versions with 403 or 404.
func (a *answer) refusesToken() bool {
	if !a.fromVault || a.says("standby") || a.says("DR secondary") || a.says("Vault is sealed") {
		return false
	}
	return a.status == http.StatusBadRequest || a.status == http.StatusForbidden || a.status == http.StatusNotFound
}

func (w *wrappedSecretID) spent(token secret.Value) error {
	if token.Equal(w.lost) && !token.IsZero() {
		return refused("the wrapping token of the secret id is not valid: an earlier request of ours, whose answer was lost, may have used it up; " +
			"if not, it has expired, or somebody else may have unwrapped it and hold the secret id: look into the audit log of Vault, and give a new one")
	}
	return refused("the wrapping token of the secret id is not valid: it was used already or has expired; " +
		"if it was not this broker, before a restart, somebody else may have unwrapped it and hold the secret id: " +
		"look into the audit log of Vault, revoke that secret id, and give a new wrapping token")
}

// unwrapped reads the secret id out of what was wrapped.
func unwrapped(a *answer) (secret.Value, error) {
	var data struct {
		SecretID string `json:"secret_id"`
	}
	if json.Unmarshal(a.data, &data) != nil || data.SecretID == "" {
		return secret.Value{}, refused("what the wrapping token wraps is no secret id: give the answer of auth/<mount>/role/<role>/secret-id, wrapped")
	}
	return secret.NewValue(data.SecretID), nil
}
